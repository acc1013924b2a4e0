#!/usr/bin/env python3
"""Unpacks target/image with skopeo and umoci, checks it, runs its programs; see waste-5.sh.

Programs of another architecture than this machine's run under QEMU's user mode. As root they run
with the image as their whole file system, and find a Prometheus by a name that only a name server
of this script knows: a static program has to resolve names with what is in it.
"""
import gzip
import hashlib
import http.server
import json
import os
import platform
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

IMAGE = Path("target/image")
HERE = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine())
EMULATORS = {"amd64": "qemu-x86_64-static", "arm64": "qemu-aarch64-static"}
PROGRAMS = ["manager", "gpu-autoscaler"]
# Time for a program to serve or to end; an emulated one is slower by an order of magnitude.
WITHIN = 60
# An address of the loopback where nobody listens for names.
NAME_SERVER = "127.0.0.99"
PROMETHEUS = "prometheus.test"


def blob(digest):
    """The bytes of a blob, which must be those that its name says."""
    data = (IMAGE / "blobs" / "sha256" / digest.removeprefix("sha256:")).read_bytes()
    found = "sha256:" + hashlib.sha256(data).hexdigest()
    assert found == digest, f"blob {digest} holds {found}"
    return data


def run(*command):
    return subprocess.run(
        command, check=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ).stdout.strip()


def is_static(path):
    return "INTERP" not in run("readelf", "--program-headers", "--wide", str(path))


class Machine:
    """What runs the programs of one unpacked image: its root folder, user and emulator."""

    def __init__(self, root, user, architecture):
        self.root, self.user = root, user
        self.isolated = os.geteuid() == 0
        self.emulator = []
        if architecture != HERE:
            emulator = shutil.which(EMULATORS[architecture])
            if self.isolated:
                shutil.copy(emulator, root / "emulator")
                emulator = "/emulator"
            self.emulator = [emulator]

    def command(self, program, *arguments):
        """The command line of a program of the image."""
        if self.isolated:
            program = [*self.emulator, "/" + program, *arguments]
            return ["chroot", f"--userspec={self.user}", str(self.root), *program]
        return [*self.emulator, str(self.root / program), *arguments]

    def write(self, name, text):
        """Writes a file where programs find it; its name as they see it."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o644)
        return "/" + name if self.isolated else str(path)


def serve_names():
    """Answers each question for an IPv4 address with the loopback; others have no answer."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    listener.bind((NAME_SERVER, 53))

    def answer():
        while True:
            asked, whom = listener.recvfrom(512)
            end = asked.index(b"\0", 12) + 5
            question, kind = asked[12:end], asked[end - 4:end - 2]
            found = kind == b"\0\1"
            header = asked[:2] + struct.pack("!5H", 0x8180, 1, found, 0, 0)
            # A pointer to the question's name, type A, class IN, 60 s, 4 bytes.
            record = b"\xc0\x0c" + struct.pack("!HHIH", 1, 1, 60, 4) + bytes([127, 0, 0, 1])
            listener.sendto(header + question + (record if found else b""), whom)

    threading.Thread(target=answer, daemon=True).start()


class Prometheus(http.server.BaseHTTPRequestHandler):
    """Has no data; counts who asks it by its name."""
    asked = 0

    def answer(self):
        Prometheus.asked += self.headers["Host"].startswith(PROMETHEUS)
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'{"status":"success","data":{"resultType":"vector","result":[]}}')

    do_GET = do_POST = answer

    def log_message(self, *_):
        pass


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def serve(machine):
    """Runs the controller without a cluster: it lives, says what is missing, ends when asked."""
    probes, served = free_port(), free_port()
    nowhere = {
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{free_port()}"}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "users": [{"name": "u", "user": {}}],
    }
    kubeconfig = machine.write("kubeconfig", json.dumps(nowhere))
    telemetry = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Prometheus)
    threading.Thread(target=telemetry.serve_forever, daemon=True).start()
    name = "localhost"
    if machine.isolated:
        machine.write("etc/resolv.conf", f"nameserver {NAME_SERVER}\n")
        name = PROMETHEUS
    Prometheus.asked = 0
    process = subprocess.Popen(
        machine.command(
            "manager", f"--kubeconfig={kubeconfig}",
            f"--prometheus-url=http://{name}:{telemetry.server_port}",
            f"--metrics-bind-address=127.0.0.1:{served}",
            f"--health-probe-bind-address=127.0.0.1:{probes}",
        ),
        stderr=subprocess.DEVNULL,
    )
    try:
        answers = {}
        end = time.monotonic() + WITHIN
        while time.monotonic() < end and not (
            answers.get("/healthz", (0,))[0] == 200 and (Prometheus.asked or name != PROMETHEUS)
        ):
            for port, path in [(probes, "/healthz"), (probes, "/readyz"), (served, "/metrics")]:
                answers[path] = get(f"http://127.0.0.1:{port}{path}")
            time.sleep(0.1)
        owner = Path(f"/proc/{process.pid}").stat().st_uid
        process.send_signal(signal.SIGTERM)
        return answers, owner, process.wait(WITHIN)
    finally:
        process.kill()
        telemetry.shutdown()


def get(url):
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError as error:
        return 0, str(error)


def check_blobs():
    """The manifests by architecture, every digest verified from the index to the layers."""
    index = json.loads((IMAGE / "index.json").read_text())
    [tagged] = index["manifests"]
    reference = tagged["annotations"]["org.opencontainers.image.ref.name"]
    found = {}
    for entry in json.loads(blob(tagged["digest"]))["manifests"]:
        manifest = json.loads(blob(entry["digest"]))
        config = json.loads(blob(manifest["config"]["digest"]))
        [layer], [diff] = manifest["layers"], config["rootfs"]["diff_ids"]
        tar = gzip.decompress(blob(layer["digest"]))
        assert "sha256:" + hashlib.sha256(tar).hexdigest() == diff, "diff_id is not of the layer"
        assert config["architecture"] == entry["platform"]["architecture"]
        found[config["architecture"]] = {
            "digest": entry["digest"], "packed_bytes": layer["size"],
            "unpacked_bytes": len(tar), "user": config["config"]["User"],
        }
    return reference, found


def check_architecture(architecture, facts, reference, folder):
    one = f"oci:{folder}/{architecture}:one"
    run("skopeo", "copy", f"--override-arch={architecture}", f"oci:{IMAGE}:{reference}", one)
    rootless = [] if os.geteuid() == 0 else ["--rootless"]
    bundle = folder / f"bundle-{architecture}"
    run("umoci", "unpack", *rootless, "--image", one.removeprefix("oci:"), str(bundle))
    root = bundle / "rootfs"
    process = json.loads((bundle / "config.json").read_text())["process"]
    facts["sizes"] = {name: (root / name).stat().st_size for name in PROGRAMS}
    facts["static"] = all(is_static(root / name) for name in PROGRAMS)
    facts["non_root"] = process["user"]["uid"] != 0
    facts["entrypoint"] = process["args"]
    facts["holds"] = facts["static"] and facts["non_root"] and process["args"] == ["/manager"]
    user = f"{process['user']['uid']}:{process['user']['gid']}"
    for path in [folder, bundle]:
        path.chmod(0o755)
    machine = Machine(root, user, architecture)
    facts["by"] = "this machine" if architecture == HERE else EMULATORS[architecture]
    facts["ran"] = [run(*machine.command(name, "--version")) for name in PROGRAMS]
    answers, owner, code = serve(machine)
    facts["probes"] = {path: status for path, (status, _) in answers.items()}
    facts["ended_with"] = code
    facts["found_by_dns"] = Prometheus.asked > 0 if machine.isolated else None
    facts["holds"] = (
        facts["holds"] and facts["probes"] == {"/healthz": 200, "/readyz": 503, "/metrics": 200}
        and "watch of Node" in answers["/readyz"][1] and code == 0
        and facts["found_by_dns"] is not False
        and (not machine.isolated or str(owner) == user.split(":")[0])
    )


def main():
    reference, architectures = check_blobs()
    print(f"{IMAGE}:{reference}, every digest verified")
    if os.geteuid() == 0:
        serve_names()
    with tempfile.TemporaryDirectory() as folder:
        for architecture, facts in architectures.items():
            check_architecture(architecture, facts, reference, Path(folder))
    for architecture, facts in architectures.items():
        mib = {name: f"{size / 2**20:.1f} MiB" for name, size in facts["sizes"].items()}
        print(f"{architecture}: {facts['packed_bytes'] / 2**20:.1f} MiB packed, "
              f"{facts['unpacked_bytes'] / 2**20:.1f} MiB unpacked, {mib}")
        for name in ["digest", "user", "entrypoint", "static", "non_root", "by", "ran", "probes",
                     "found_by_dns", "ended_with", "holds"]:
            print(f"  {name:<11} {facts.get(name, '-')}")
    left_out = sorted({"amd64", "arm64"} - set(architectures))
    print(f"left out: {', '.join(left_out) or 'none'}")
    holds = all(facts["holds"] for facts in architectures.values()) and not left_out
    report = {"line": "waste-5", "holds": holds, "architectures": architectures,
              "left_out": left_out}
    Path("target/show").mkdir(parents=True, exist_ok=True)
    Path("target/show/waste-5.json").write_text(json.dumps(report, indent=1) + "\n")
    print(f"waste-5: {'holds' if holds else 'DOES NOT HOLD'}; target/show/waste-5.json")
    sys.exit(not holds)


main()

#!/usr/bin/env python3
"""Unpacks target/image with skopeo and umoci, checks it, runs its programs; see waste-5.sh."""
import gzip
import hashlib
import json
import os
import platform
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

IMAGE = Path("target/image")
HERE = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine())
PROGRAMS = ["manager", "gpu-autoscaler", "chronos"]
# Time for a program to serve or to end.
WITHIN = 30


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


def inside(root, user, command):
    """The command line that runs a program with the image as its whole file system."""
    if os.geteuid() == 0:
        return ["chroot", f"--userspec={user}", str(root), "/" + command[0], *command[1:]]
    return [str(root / command[0]), *command[1:]]


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def serve(root, user):
    """Runs the controller without a cluster: it lives, says what is missing, ends when asked."""
    probes, served = free_port(), free_port()
    nowhere = {
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{free_port()}"}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "users": [{"name": "u", "user": {}}],
    }
    kubeconfig = root / "kubeconfig"
    kubeconfig.write_text(json.dumps(nowhere))
    kubeconfig.chmod(0o644)
    shown = "/kubeconfig" if os.geteuid() == 0 else str(kubeconfig)
    process = subprocess.Popen(
        inside(root, user, [
            "manager", f"--kubeconfig={shown}", "--prometheus-url=",
            f"--metrics-bind-address=127.0.0.1:{served}",
            f"--health-probe-bind-address=127.0.0.1:{probes}",
        ]),
        stderr=subprocess.DEVNULL,
    )
    try:
        answers = {}
        end = time.monotonic() + WITHIN
        while time.monotonic() < end and answers.get("/healthz", (0,))[0] != 200:
            for port, path in [(probes, "/healthz"), (probes, "/readyz"), (served, "/metrics")]:
                answers[path] = get(f"http://127.0.0.1:{port}{path}")
        owner = Path(f"/proc/{process.pid}").stat().st_uid
        process.send_signal(signal.SIGTERM)
        return answers, owner, process.wait(WITHIN)
    finally:
        process.kill()


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
    if architecture != HERE:
        facts["ran"] = "not run: another architecture than this machine's"
        return
    user = f"{process['user']['uid']}:{process['user']['gid']}"
    for path in [folder, bundle]:
        path.chmod(0o755)
    said = [run(*inside(root, user, [name, "--version"])) for name in PROGRAMS]
    answers, owner, code = serve(root, user)
    facts["ran"] = said
    facts["probes"] = {path: status for path, (status, _) in answers.items()}
    facts["ended_with"] = code
    facts["holds"] = (
        facts["holds"] and facts["probes"] == {"/healthz": 200, "/readyz": 503, "/metrics": 200}
        and "watch of Node" in answers["/readyz"][1] and code == 0
        and (os.geteuid() != 0 or str(owner) == user.split(":")[0])
    )


def main():
    reference, architectures = check_blobs()
    print(f"{IMAGE}:{reference}, every digest verified")
    with tempfile.TemporaryDirectory() as folder:
        for architecture, facts in architectures.items():
            check_architecture(architecture, facts, reference, Path(folder))
    for architecture, facts in architectures.items():
        mib = {name: f"{size / 2**20:.1f} MiB" for name, size in facts["sizes"].items()}
        print(f"{architecture}: {facts['packed_bytes'] / 2**20:.1f} MiB packed, "
              f"{facts['unpacked_bytes'] / 2**20:.1f} MiB unpacked, {mib}")
        for name in ["digest", "user", "entrypoint", "static", "non_root", "ran", "probes",
                     "ended_with", "holds"]:
            print(f"  {name:<11} {facts.get(name, '-')}")
    left_out = sorted({"amd64", "arm64"} - set(architectures))
    print(f"left out: {', '.join(left_out) or 'none'}")
    holds = all(facts["holds"] for facts in architectures.values()) and HERE in architectures
    report = {"line": "waste-5", "holds": holds, "architectures": architectures,
              "left_out": left_out}
    Path("target/show").mkdir(parents=True, exist_ok=True)
    Path("target/show/waste-5.json").write_text(json.dumps(report, indent=1) + "\n")
    print(f"waste-5: {'holds' if holds else 'DOES NOT HOLD'}; target/show/waste-5.json")
    sys.exit(not holds)


main()

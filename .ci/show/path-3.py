"""Runs the comparison of path-3.sh and waste-1.sh. Standard library only.

usage: path-3.py SEED [SHOW NODES PODS]
"""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

PROGRAMS = Path(os.environ.get("CARGO_TARGET_DIR", "target")) / "debug"
CONTROLLER = os.environ.get("CONTROLLER", PROGRAMS / "gpu-autoscaler-controller")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def output(command):
    return subprocess.run(list(map(str, command)), check=True, stdout=subprocess.PIPE, text=True).stdout


def end(process):
    if process and process.poll() is None:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()


def totals_agree(server, saving):
    """Whether `optimize` and `report` give the saving that `status` gives; lines for the table."""
    lines, agree = [], True
    for command in ("optimize", "report"):
        program = [PROGRAMS / "gpu-autoscaler", command]
        if subprocess.run([*program, "--help"], stdout=subprocess.DEVNULL,
                          stderr=subprocess.DEVNULL).returncode != 0:
            lines.append(f"{command}: not compared, this build has no such command")
            continue
        said = json.loads(output([*program, "-o", "json", "--server", server]))
        found = said.get("totals", {}).get("savingPerHour")
        agree = agree and found == saving
        lines.append(f"{command}: {found}, {'the same' if found == saving else f'status says {saving}'}")
    return agree, lines


def main(seed, show="path-3", nodes=20, pods=80):
    OUT = Path("target/show") / show
    OUT.mkdir(parents=True, exist_ok=True)
    for old in OUT.iterdir():
        old.unlink()
    published = os.environ.get("PUBLISHED") == "1"
    window, young = (600, 300) if published else (180, 90)
    truth = OUT / "truth.json"
    fleet = controller = None
    began = time.monotonic()
    try:
        fleet = subprocess.Popen(
            [PROGRAMS / "fleet", "--seed", str(seed), "--truth", truth,
             "--window", str(window), "--young", str(young),
             "--nodes", str(nodes), "--pods", str(pods)],
            stdout=subprocess.PIPE, text=True)
        ready = json.loads(fleet.stdout.readline() or "null")
        if ready is None:
            sys.exit(f"{show}: the fleet did not start")
        stood = time.monotonic()
        print(f"the fleet stands after {stood - began:.0f} s; "
              f"truth of {truth.stat().st_size} bytes written before that", flush=True)
        kubectl = [ready["kubectl"], "--kubeconfig", ready["kubeconfig"]]
        output([*kubectl, "apply", "-f", "charts/gpu-autoscaler/crds"])
        port = free_port()
        arguments = [
            f"--kubeconfig={ready['kubeconfig']}", f"--prometheus-url={ready['prometheus']}",
            f"--metrics-bind-address=127.0.0.1:{port}", "--health-probe-bind-address=0",
            "--leader-election-namespace=default", "--scrape-interval=5s",
        ]
        if not published:
            arguments += [
                f"--waste-lookback={window}s", f"--waste-observed-min={window // 2}s",
                f"--waste-pod-age-min={young}s", "--waste-sample-gap-max=30s",
                "--reconcile-interval=5s",
            ]
        with open(OUT / "controller.log", "w", encoding="utf-8") as log:
            controller = subprocess.Popen([CONTROLLER, *arguments], stdout=log, stderr=log)
        # What is compared is the truth of one instant: the fleet's clock says when that is.
        while time.monotonic() - stood < ready["compareAfterSecs"]:
            for name, process in (("fleet", fleet), ("controller", controller)):
                if process.poll() is not None:
                    sys.exit(f"{show}: the {name} has ended with {process.returncode}; see {OUT}")
            time.sleep(0.5)
        status = output([PROGRAMS / "gpu-autoscaler", "status", "-o", "json",
                         "--server", f"http://127.0.0.1:{port}"])
        (OUT / "status.json").write_text(status, encoding="utf-8")
        agree, lines = True, []
        if show == "waste-1":
            saving = json.loads(status)["totals"]["savingPerHour"]
            agree, lines = totals_agree(f"http://127.0.0.1:{port}", saving)
        events = output([*kubectl, "get", "events", "--all-namespaces", "-o", "json"])
        (OUT / "events.json").write_text(events, encoding="utf-8")
    finally:
        end(controller)
        end(fleet)
    result = subprocess.run(
        [sys.executable, "tests/compare_truth.py", truth, OUT / "status.json", OUT / "events.json"],
        stdout=subprocess.PIPE, text=True)
    table = result.stdout.splitlines() + lines
    print("\n".join(table))
    passed = result.returncode == 0 and agree
    took = time.monotonic() - began
    print(f"seed {seed}, {took:.0f} s")
    OUT.with_suffix(".json").write_text(json.dumps({
        "show": show, "seed": seed, "passed": passed, "seconds": round(took),
        "windowSecs": window, "nodes": nodes, "pods": pods, "table": table,
    }, indent=2) + "\n", encoding="utf-8")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), *sys.argv[2:3], *map(int, sys.argv[3:5])))

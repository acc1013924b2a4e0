"""Runs the comparison of path-3.sh and waste-1.sh. Standard library only."""

import decimal
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

NAME = os.environ.get("SHOW", "path-3")
OUT = Path("target/show") / NAME
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


def disagreements(server):
    """What `optimize` and `report` say differently of one judgement; they are asked until both are
    of the same one."""
    for _ in range(20):
        said = {}
        for command in ("optimize", "report"):
            text = output([PROGRAMS / "gpu-autoscaler", command, "-o", "json", "--server", server])
            (OUT / f"{command}.json").write_text(text, encoding="utf-8")
            said[command] = json.loads(text)
        optimize, report = said["optimize"], said["report"]
        if optimize["at"] == report["at"]:
            break
    else:
        return ["no two answers were of the same judgement"]
    saving = optimize["totals"]["savingPerHour"]
    # Integers in billionths: a float would hide what is looked for.
    nanos = lambda one: int(decimal.Decimal(one["amount"]) * 10**9) if one else 0
    total = lambda items: sum(nanos(one["savingPerHour"]) for one in items)
    pods = lambda items: sorted((one["namespace"], one["pod"], one["kind"]) for one in items)
    sums = {
        "report, executive summary": nanos(report["executiveSummary"]["totals"]["savingPerHour"]),
        "optimize, recommendations": total(optimize["recommendations"]),
        "report, by advice": total(report["opportunities"]["byAdvice"]),
        "report, by namespace": total(report["utilization"]["namespaces"]),
    }
    wrong = [f"{what}: {value} nano-units, `optimize` has {nanos(saving)}"
             for what, value in sums.items() if value != nanos(saving)]
    if pods(optimize["recommendations"]) != pods(report["utilization"]["underutilized"]):
        wrong.append("`optimize` and `report` name different pods")
    print(f"optimize and report: {len(optimize['recommendations'])} findings, "
          f"{saving and saving['amount']} {saving and saving['currency']} per hour in "
          f"{len(sums) + 1} sums, {len(wrong)} disagreements")
    return wrong


def main(seed):
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
             "--nodes", os.environ.get("NODES", "20"), "--pods", os.environ.get("PODS", "80")],
            stdout=subprocess.PIPE, text=True)
        ready = json.loads(fleet.stdout.readline() or "null")
        if ready is None:
            sys.exit(f"{NAME}: the fleet did not start")
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
                    sys.exit(f"{NAME}: the {name} has ended with {process.returncode}; see {OUT}")
            time.sleep(0.5)
        server = f"http://127.0.0.1:{port}"
        status = output([PROGRAMS / "gpu-autoscaler", "status", "-o", "json", "--server", server])
        (OUT / "status.json").write_text(status, encoding="utf-8")
        events = output([*kubectl, "get", "events", "--all-namespaces", "-o", "json"])
        (OUT / "events.json").write_text(events, encoding="utf-8")
        wrong = disagreements(server)
    finally:
        end(controller)
        end(fleet)
    result = subprocess.run(
        [sys.executable, "tests/compare_truth.py", truth, OUT / "status.json", OUT / "events.json"],
        stdout=subprocess.PIPE, text=True)
    print(result.stdout, end="")
    for line in wrong:
        print(f"disagreement: {line}")
    holds = result.returncode == 0 and not wrong
    took = time.monotonic() - began
    print(f"seed {seed}, {took:.0f} s")
    Path(f"target/show/{NAME}.json").write_text(json.dumps({
        "show": NAME, "seed": seed, "passed": holds, "seconds": round(took),
        "windowSecs": window, "table": result.stdout.splitlines(), "disagreements": wrong,
    }, indent=2) + "\n", encoding="utf-8")
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))

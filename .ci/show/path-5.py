"""Runs the check of path-5.sh. Needs the package `jsonschema` for the schema."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import jsonschema

PROGRAMS = Path(os.environ.get("CARGO_TARGET_DIR", "target")) / "debug"
PODS = 80
SCHEMA = Path("docs/schema/plan.v1.json")


def run(command, **how):
    return subprocess.run(list(map(str, command)), stdout=subprocess.PIPE, text=True, **how)


def gpu_pods(pods):
    """Namespace and name of every pod that asks for an NVIDIA GPU, in whatever form."""
    for pod in pods:
        containers = pod["spec"]["containers"] + pod["spec"].get("initContainers", [])
        asked = [name for c in containers for name in c.get("resources", {}).get("limits", {})]
        if any(name.startswith(("nvidia.com/gpu", "nvidia.com/mig-")) for name in asked):
            yield pod["metadata"]["namespace"], pod["metadata"]["name"]


def wait_for_pods(kubectl, count):
    """The fleet creates its last pods a moment after it stands."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        pods = json.loads(run([*kubectl, "get", "pods", "-A", "-o", "json"], check=True).stdout)
        if len(list(gpu_pods(pods["items"]))) >= count:
            return
        time.sleep(0.5)
    sys.exit(f"path-5: not {count} GPU pods within 120 s")


def check(kubectl):
    dump = run([*kubectl, "get", "nodes,pods,pdb", "-A", "-o", "yaml"], check=True).stdout
    pods = json.loads(run([*kubectl, "get", "pods", "-A", "-o", "json"], check=True).stdout)["items"]
    planned = run([PROGRAMS / "gpu-autoscaler", "plan", "-f", "-", "-o", "json"], input=dump)
    if planned.returncode != 0:
        return {"exit": planned.returncode}, False
    plan = json.loads(planned.stdout)
    jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text())).validate(plan)
    shown = [(p["namespace"], p["pod"]) for part in ("placed", "found", "refused") for p in plan[part]]
    expected = sorted(gpu_pods(pods))
    facts = {
        "dump lines": dump.count("\n"),
        "nodes": plan["totals"]["gpuNodes"],
        "pods": len(pods),
        "GPU pods": len(expected),
        "placed": len(plan["placed"]),
        "found": len(plan["found"]),
        "refused": len(plan["refused"]),
        "unreadable": len(plan["unreadable"]),
        "schema": "valid",
        "each GPU pod exactly once": sorted(shown) == expected,
    }
    return facts, sorted(shown) == expected and expected != []


def main(seed):
    truth = Path("target/show/path-5-truth.json")
    # Nobody judges here: a short window and old youth bring the late pods within seconds.
    fleet = subprocess.Popen(
        [PROGRAMS / "fleet", "--seed", str(seed), "--truth", truth, "--pods", str(PODS),
         "--window", "1", "--young", "160"],
        stdout=subprocess.PIPE, text=True)
    try:
        ready = json.loads(fleet.stdout.readline() or "null")
        if ready is None:
            sys.exit("path-5: the fleet did not start")
        kubectl = [ready["kubectl"], "--kubeconfig", ready["kubeconfig"]]
        wait_for_pods(kubectl, PODS)
        facts, holds = check(kubectl)
    finally:
        fleet.terminate()
        fleet.wait(30)
    for name, value in facts.items():
        print(f"{name:<28}{value!s:>10}")
    Path("target/show/path-5.json").write_text(
        json.dumps({"show": "path-5", "seed": seed, "holds": holds, **facts}, indent=2) + "\n")
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))

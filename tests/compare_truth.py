#!/usr/bin/env python3
"""Compares what was found on a cluster with what is true of it.

usage: compare_truth.py TRUTH STATUS_JSON EVENTS_JSON

TRUTH is what the simulator wrote before the controller was started: plain facts about every pod
(the range of its exact mean compute over every window that an observer may look at, the framebuffer
it holds, whether it is measured at all, whether it is young). STATUS_JSON is the output of
`gpu-autoscaler status -o json`, EVENTS_JSON that of `kubectl get events -A -o json`.

What must be found follows from the published rule alone and is worked out here: mean compute below
50 % and a waste score above 50, 0.6 x unused compute + 0.4 x unused memory. Nothing here uses or
knows code of the product.

Exit status: 0 everything agrees, 1 something does not, 2 the input cannot be read.
"""

import collections
import json
import sys

# A counter that looks at one second of each scrape is right on average only.
TOLERANCE = {"SmActive": 0.05, "GrEngineActive": 0.05, "GpuUtil": 0.25}
REASONS = {
    "GpuIdle": "Idle",
    "GpuUnderutilized": "Underutilized",
    "GpuMemoryHeld": "MemoryHeld",
    "GpuOverRequested": "OverRequested",
    "GpuStuck": "Stuck",
}


HARDWARE_REASONS = {"GpuThrottled": "Throttled", "GpuSick": "Sick"}

# What must be found as what. A counter that looks at one second of each scrape can miss every burst
# of a low load.
FOUND_AS = {
    "idle": {"Idle"},
    "held": {"MemoryHeld"},
    "idle or held": {"Idle", "MemoryHeld"},
    "spare": {"OverRequested"},
    "stuck": {"Stuck"},
    "low": {"Underutilized", "Idle", "MemoryHeld"},
}


def score(activity, framebuffer):
    return 60 * (1 - activity) + 40 * (1 - framebuffer)


def expectation(pod, rule):
    """What an observer must say of a pod: unknown, silent, one of FOUND_AS, busy, tolerated, or
    either."""
    if pod["stuck"]:
        return "stuck"
    if not pod["measured"]:
        return "unknown"
    if pod["young"]:
        return "silent"
    low, high = pod["activityMeanLow"], pod["activityMeanHigh"]
    devices = pod["deviceMeans"]
    if high == 0:
        # Of a pod alone on a shared GPU, memory may be unknown.
        return "idle or held" if pod["shared"] else "held" if pod["framebuffer"] >= 0.5 else "idle"
    if not pod["shared"] and min(devices) == 0:
        return "spare" if all(mean == 0 or mean > 0.5 for mean in devices) else "either"
    if pod["shared"]:
        # Of a pod alone on a shared GPU, its own lines may be copies of the device's.
        return "busy" if low - 0.25 >= rule["busyFrom"] else "either"
    slack = TOLERANCE[pod["counter"]]
    if low - slack >= rule["busyFrom"]:
        return "busy"
    worst, best = min(1, high + slack), max(0, low - slack)
    memory = pod["framebuffer"]
    if worst < rule["busyFrom"] and score(worst, min(1, memory + 0.02)) > rule["scoreAbove"]:
        return "low"
    if score(best, max(0, memory - 0.02)) < rule["scoreAbove"]:
        return "tolerated"
    return "either"


def judge(expected, kinds, listed):
    """Whether what was said is right; `kinds` is what was found, `listed` whether as unknown."""
    if expected == "unknown":
        return not kinds and listed
    if expected in ("silent", "busy", "tolerated"):
        return not kinds
    if expected in FOUND_AS:
        return len(kinds) == 1 and kinds[0] in FOUND_AS[expected]
    return len(kinds) <= 1


def compare(truth, status, events):
    """Rows for the table, and everything that is wrong."""
    found = collections.defaultdict(list)
    for finding in status["findings"]:
        found[finding["namespace"], finding["pod"]].append(finding["kind"])
    listed = {(u["namespace"], u["pod"]) for u in status["unknown"] if u["pod"]}
    announced = collections.defaultdict(list)
    for event in events["items"]:
        reason = event.get("reason")
        if reason in REASONS:
            of = event.get("involvedObject") or event.get("regarding") or {}
            announced[of.get("namespace"), of.get("name")].append(reason)

    wrong, rows = [], collections.Counter()
    known = set()
    for pod in truth["pods"]:
        key = pod["namespace"], pod["name"]
        known.add(key)
        expected = expectation(pod, truth["rule"])
        kinds = found.get(key, [])
        right = judge(expected, kinds, key in listed)
        rows[expected, "pods"] += 1
        rows[expected, "found"] += bool(kinds)
        rows[expected, "listed"] += key in listed
        rows[expected, "events"] += bool(announced[key])
        rows[expected, "wrong"] += not right
        name = "/".join(key)
        if not right:
            wrong.append(f"{name} ({pod['load']}, {expected}): found {kinds}, as unknown: {key in listed}")
        reasons = announced[key]
        if len(reasons) != len(set(reasons)):
            wrong.append(f"{name}: announced twice: {reasons}")
        for kind in kinds:
            if kind not in [REASONS[reason] for reason in reasons]:
                wrong.append(f"{name}: {kind} without an Event, only {reasons}")
        if expected in ("busy", "unknown", "silent", "tolerated") and reasons:
            wrong.append(f"{name} ({pod['load']}, {expected}): announced {reasons}")
    for key in sorted(set(found) - known):
        wrong.append(f"{'/'.join(key)}: found, and is no pod of the cluster")

    stuck = {key for key, kinds in found.items() if kinds == ["Stuck"]}
    for node in truth["nodes"]:
        unknown = sum(u["gpus"] for u in status["unknown"] if u["node"] == node["name"])
        # What a stuck pod holds is known to serve nothing.
        unknown += sum(p["gpus"] for p in status["pods"]
                       if p["node"] == node["name"] and (p["namespace"], p["pod"]) in stuck)
        shares = [p for p in truth["pods"] if p["node"] == node["name"]]
        if not node["measured"] and not any(p["shared"] for p in shares) and unknown < node["gpus"]:
            wrong.append(f"node {node['name']}: {unknown} of {node['gpus']} GPUs listed as unknown")
    unwell = {(h["node"], h["device"], h["kind"]) for h in status["hardware"]}
    ailing = {(h["node"], h["gpu"], h["kind"]) for h in truth["hardware"]}
    for node, gpu, kind in sorted(ailing ^ unwell):
        wrong.append(f"node {node}: {kind} of {gpu} is {'missing' if (node, gpu, kind) in ailing else 'not so'}")
    told = {(node, HARDWARE_REASONS[reason]) for node, reason in told_of_nodes(events)}
    for node, kind in sorted({(node, kind) for node, _, kind in ailing} ^ told):
        wrong.append(f"node {node}: {kind} announced too much or not at all")
    rows["unwell", "pods"], rows["unwell", "found"] = len(ailing), len(unwell & ailing)
    rows["unwell", "events"] = len(told)
    rows["unwell", "wrong"] = len(ailing ^ unwell)
    return rows, wrong


def told_of_nodes(events):
    """Name and reason of every Event of ours about a node."""
    for event in events["items"]:
        of = event.get("involvedObject") or {}
        if of.get("kind") == "Node" and event.get("reason") in HARDWARE_REASONS:
            yield of["name"], event["reason"]


def main(arguments):
    if len(arguments) != 3:
        print(__doc__, file=sys.stderr)
        return 2
    documents = []
    for path in arguments:
        try:
            with open(path, encoding="utf-8") as file:
                documents.append(json.load(file))
        except (OSError, ValueError) as error:
            print(f"compare_truth: read `{path}`: {error}", file=sys.stderr)
            return 2
    rows, wrong = compare(*documents)
    columns = ["pods", "found", "listed", "events", "wrong"]
    meaning = {
        "idle": "compute nothing",
        "held": "hold memory for nothing",
        "idle or held": "nothing, memory unclear",
        "spare": "spare GPUs untouched",
        "stuck": "cannot run",
        "low": "compute too little",
        "busy": "compute enough",
        "tolerated": "score of 50 or less",
        "silent": "too young",
        "unknown": "not measurable",
        "either": "too close to call",
        "unwell": "GPUs not well",
    }
    print(f"{'what is true':<25}" + "".join(f"{column:>8}" for column in columns))
    for expected, words in meaning.items():
        if rows[expected, "pods"]:
            print(f"{words:<25}" + "".join(f"{rows[expected, column]:>8}" for column in columns))
    unmeasured = [node["name"] for node in documents[0]["nodes"] if not node["measured"]]
    print(f"nodes that nobody measures: {', '.join(unmeasured) or 'none'}")
    for line in wrong:
        print(f"WRONG {line}")
    print("everything agrees" if not wrong else f"{len(wrong)} disagreements")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

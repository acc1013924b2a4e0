"""Real processes for a given time: takes, extends, suspends, kills; then nothing may be left."""

import json
import os
import random
import signal
import subprocess
import sys
import time

tool, seconds, seed = sys.argv[1], float(sys.argv[2]), int(sys.argv[3])
chance = random.Random(seed)
jobs = []
counts = {"granted": 0, "refused": 0, "killed": 0, "late_ms_max": 0.0}


def run(*arguments):
    return subprocess.run([tool, *arguments], capture_output=True, text=True)


def leases():
    return json.loads(run("list", "--json").stdout)["items"]


def check():
    now = time.time()
    taken = {}
    for lease in leases():
        for part in lease["parts"]:
            if lease["holdsMemory"]:
                taken[part["gpu"]] = taken.get(part["gpu"], 0) + part["memoryBytes"]
    for gpu, memory in taken.items():
        assert memory <= 80 << 30, f"{gpu} is over-committed: {memory}"
    for job in jobs[:]:
        code = job["process"].poll()
        if code is not None:
            jobs.remove(job)
        elif now > job["until"]:
            late = (now - job["until"]) * 1e3
            counts["late_ms_max"] = max(counts["late_ms_max"], late)
            assert late < 5_000, f"a job is {late:.0f} ms late"


end = time.monotonic() + seconds
while time.monotonic() < end:
    what = chance.randrange(6)
    live = leases()
    if what <= 1 and len(jobs) < 20:
        length = chance.randrange(1, 8)
        script = "trap '' TERM; while :; do sleep 0.2; done" if chance.randrange(2) else "exec sleep 60"
        process = subprocess.Popen(
            [tool, "run", "--any", "--mem", f"{chance.randrange(1, 60)}%", "--for", f"{length}s",
             "--grace", "500ms", "--", "sh", "-c", script],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        jobs.append({"process": process, "until": time.time() + length + 0.5})
        counts["granted"] += 1
    elif what == 2:
        done = run("create", "--any", f"{chance.random() * 0.9 + 0.01:.3f}", "2")
        counts["granted" if done.returncode == 0 else "refused"] += 1
    elif what == 3 and live:
        run("release", chance.choice(live)["id"])
    elif what == 4 and jobs:
        job = chance.choice(jobs)
        job["process"].send_signal(signal.SIGKILL)
        counts["killed"] += 1
    elif what == 5 and live:
        identity = chance.choice(live)["id"]
        if run("suspend", identity).returncode == 0:
            run("resume", identity)
            for job in jobs:
                job["until"] += 10
    check()

deadline = time.monotonic() + 60
while leases():
    assert time.monotonic() < deadline, "leases are left"
check()
print(f"soak: seed={seed} seconds={seconds:.0f} " + " ".join(f"{k}={v}" for k, v in counts.items()))

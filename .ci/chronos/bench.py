"""Measures the tool as users run it, one process a sample, beside other tools.

The machine may be shared: rounds of all tools alternate, a limit is compared with the median of the
rounds, and beside the time on the wall stands the processor time of the process, which the load of
others changes less. The load and what an empty process costs are reported with every table.
"""

import argparse
import json
import os
import platform
import shutil
import signal
import statistics
import subprocess
import sys
import time

import fill

parser = argparse.ArgumentParser()
parser.add_argument("tool")
parser.add_argument("out")
parser.add_argument("--times", type=int, required=True)
parser.add_argument("--rounds", type=int, required=True)
parser.add_argument("--rivals", default="")
given = parser.parse_args()
tool, rivals = given.tool, given.rivals
environment = dict(os.environ)
place = os.path.dirname(environment["CHRONOS_RUNTIME_DIR"])
NULL = os.open(os.devnull, os.O_RDWR)
samples = {}
rows = []


def quantile(values, q):
    values = sorted(values)
    return values[min(len(values) - 1, int(q * len(values)))]


def spawn(command, settings):
    """Runs a command to its end: milliseconds on the wall and on the processor."""
    actions = [(os.POSIX_SPAWN_DUP2, NULL, fd) for fd in (0, 1, 2)]
    began = time.perf_counter()
    pid = os.posix_spawn(command[0], command, settings, file_actions=actions)
    _, status, used = os.wait4(pid, 0)
    wall = (time.perf_counter() - began) * 1e3
    code = os.waitstatus_to_exitcode(status)
    assert code == 0, f"{' '.join(command)}: exit code {code}"
    return wall, (used.ru_utime + used.ru_stime) * 1e3


def sample(name, command, times, settings=None):
    """One round of a command, kept under its name."""
    done = [spawn(command, {**environment, **(settings or {})}) for _ in range(times)]
    samples.setdefault(name, []).append(done)


def run(*arguments, **settings):
    return subprocess.run(
        [tool, *arguments], env={**environment, **settings}, capture_output=True, text=True
    )


def row(what, value, unit, limit=None, command="", cpu=None, instructions=None):
    rows.append({
        "what": what, "value": value, "unit": unit, "limit": limit, "cpu_ms": cpu,
        "instructions": instructions, "holds": limit is None or value <= limit, "command": command,
    })


def text_row(what, text):
    rows.append({"what": what, "value": None, "text": text, "holds": True})


def timed_row(what, name, q, limit=None, command=""):
    """The median over the rounds of a quantile of each, and the median of processor time."""
    rounds = samples[name]
    wall = statistics.median(quantile([w for w, _ in done], q) for done in rounds)
    cpu = statistics.median(c for done in rounds for _, c in done)
    row(what, wall, "ms", limit, command, cpu, INSTRUCTIONS.get(name))


INSTRUCTIONS = {}


def count(name, command, settings=None):
    """Instructions of one run outside the kernel, where valgrind is there to count them."""
    if not shutil.which("valgrind"):
        return
    done = subprocess.run(
        ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", *command],
        env={**environment, **(settings or {})}, capture_output=True, text=True,
    )
    collected = [line for line in done.stderr.splitlines() if "Collected :" in line]
    if collected:
        INSTRUCTIONS[name] = int(collected[-1].split()[-1])


def release_all():
    for lease in json.loads(run("list", "--json").stdout)["items"]:
        run("release", "--force", lease["id"])


def expiry(times):
    """How late the first process of a lease sees SIGTERM, against its deadline."""
    script = (
        "import os, signal, time\n"
        "def end(*_):\n"
        "    now = time.clock_gettime_ns(time.CLOCK_BOOTTIME)\n"
        # One write: another guard's SIGTERM may come while this one is told of.
        "    late = now - int(os.environ['CHRONOS_DEADLINE_BOOTTIME_NS'])\n"
        "    os.write(1, b'%d\\n' % late); os._exit(0)\n"
        "signal.signal(signal.SIGTERM, end)\n"
        "time.sleep(60)\n"
    )
    late = []
    tries = 0
    while len(late) < times:
        tries += 1
        done = run("run", "--for", "600ms", "--mem", "1%", "--", sys.executable, "-c", script)
        assert done.returncode == 124, (done.returncode, done.stderr)
        # On a busy machine the interpreter may not have been up in time to say anything.
        assert done.stdout or tries < 5 * times, "the job never comes up within 600 ms"
        late.extend((int(line) / 1e6, 0) for line in done.stdout.splitlines())
    samples.setdefault("expiry", []).append(late)


def tree_kill(times):
    """From the end of the grace to the end of 41 processes that ignore SIGTERM."""
    script = "trap '' TERM; for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do " \
        "setsid sh -c \"trap '' TERM; sleep 60 & wait; wait\" & done; wait"
    late = []
    for _ in range(times):
        began = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        process = subprocess.Popen(
            [tool, "run", "--for", "700ms", "--grace", "0", "--mem", "1%", "--", "sh", "-c", script],
            env=environment, stderr=subprocess.DEVNULL,
        )
        assert process.wait() == 137, process.returncode
        while json.loads(run("list", "--json").stdout)["items"]:
            pass
        late.append(((time.clock_gettime_ns(time.CLOCK_BOOTTIME) - began) / 1e6 - 700, 0))
    samples.setdefault("tree", []).append(late)


def helper_resident():
    """Most memory that the helper has had, after 20 orders of a user, beside a long queue."""
    if os.geteuid() != 0:
        return None
    runtime = place + "/helped"
    settings = {**environment, "CHRONOS_RUNTIME_DIR": runtime}
    helper = subprocess.Popen([tool, "helper"], env=settings)
    while not os.path.exists(runtime + "/helper.sock"):
        pass
    for _ in range(20):
        subprocess.run(["setpriv", "--reuid", "daemon", "--regid", "daemon", "--clear-groups", tool,
                        "create", "0", "0.01", "600"], capture_output=True, env=settings)
    status = open(f"/proc/{helper.pid}/status").read()
    resident = next(int(l.split()[1]) for l in status.splitlines() if l.startswith("VmHWM"))
    environment["CHRONOS_RUNTIME_DIR"] = runtime
    release_all()
    helper.send_signal(signal.SIGTERM)
    helper.wait()
    return resident / 1024


# What chronos-gpu does in one process: it forgets a partition when the process that took it ends.
CHRONOS_GPU = """
import json, resource, sys, time
import chronos
partitioner = chronos.Partitioner()
def once(call):
    began = time.perf_counter()
    call()
    return (time.perf_counter() - began) * 1e3
made = [once(lambda: partitioner.create_raw(0, 0.001, 600)) for _ in range(50)]
def lives(wanted):
    return any(p.partition_id == wanted for p in partitioner.list())
late = []
for _ in range(5):
    taken = partitioner.create_raw(0, 0.001, 1)
    began = time.perf_counter()
    while lives(taken):
        time.sleep(0.0005)
    late.append((time.perf_counter() - began - 1) * 1e3)
resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps({"made": made, "late": late, "resident": resident}), file=sys.stderr)
"""


class Rival:
    """A tool of others: how it is run, and what it said if it cannot be."""

    def __init__(self, package, name, command):
        self.package, self.name, self.command = package, name, command
        self.settings = {"LD_LIBRARY_PATH": rivals + "/lib"}
        missing = f"{rivals}/{package}.missing"
        self.missing = open(missing).read().strip() if os.path.exists(missing) else None
        if not self.missing:
            done = subprocess.run(
                command, env={**environment, **self.settings}, capture_output=True, text=True
            )
            if done.returncode:
                self.missing = (done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1]

    def bare(self):
        """What it says without the library that stands in for the driver."""
        done = subprocess.run(self.command, env=environment, capture_output=True, text=True)
        said = (done.stderr + done.stdout).strip().splitlines() or [""]
        errors = [line for line in said if "Error" in line or "ERROR" in line or "not" in line.lower()]
        return done.returncode, (errors or said)[0][:90]


def all_rivals():
    if not rivals:
        return []
    python = rivals + "/venv/bin/python"
    return [
        Rival("nvitop", "nvisel -n 1", [rivals + "/venv/bin/nvisel", "-n", "1"]),
        Rival("gpustat", "gpustat --json", [rivals + "/venv/bin/gpustat", "--json"]),
        Rival("chronos-gpu", "chronos-gpu: open and list",
              [python, "-c", "import chronos; chronos.Partitioner().list()"]),
        Rival("chronos-gpu", "chronos-gpu: open and create",
              [python, "-c", "import chronos; chronos.Partitioner().create_raw(0, 0.001, 600)"]),
    ]


def measure(others):
    """Every round measures every tool, so that all meet the same load."""
    runtime = environment["CHRONOS_RUNTIME_DIR"]
    full = place + "/full"
    run("create", "0", "0.1", "600")
    environment["CHRONOS_RUNTIME_DIR"] = full
    fill.fill(run, full, 1_000, 10_000)
    # The first create after a fill makes the index, as any hundredth does; it is counted.
    loads = []
    for _ in range(given.rounds):
        environment["CHRONOS_RUNTIME_DIR"] = runtime
        loads.append(os.getloadavg()[0])
        sample("true", ["/bin/true"], given.times)
        sample("list", [tool, "list"], given.times)
        sample("create", [tool, "create", "--any", "0.001", "600"], given.times)
        release_all()
        sample("first", [tool, "create", "--any", "0.001", "600"], 1)
        release_all()
        expiry(max(5, given.times // 5))
        tree_kill(max(2, given.times // 40))
        environment["CHRONOS_RUNTIME_DIR"] = full
        sample("full", [tool, "create", "7", "0.001", "600"], given.times, {"CHRONOS_PROGRAM": "/bin/true"})
        sample("full list", [tool, "list"], max(5, given.times // 5), {"CHRONOS_PROGRAM": "/bin/true"})
        environment["CHRONOS_RUNTIME_DIR"] = runtime
        for other in others:
            if not other.missing:
                sample(other.name, other.command, max(3, given.times // 20), other.settings)
    count("list", [tool, "list"])
    count("create", [tool, "create", "--any", "0.001", "600"])
    environment["CHRONOS_RUNTIME_DIR"] = full
    count("full", [tool, "create", "7", "0.001", "600"], {"CHRONOS_PROGRAM": "/bin/true"})
    environment["CHRONOS_RUNTIME_DIR"] = runtime
    release_all()
    return loads


def table(others):
    timed_row("/bin/true, p50: what starting a process costs", "true", 0.5)
    timed_row("list, cold process, p50", "list", 0.5, 5, "chronos list")
    timed_row("list, cold process, p99", "list", 0.99, None, "chronos list")
    timed_row("create, p50", "create", 0.5, 3, "chronos create --any 0.001 600")
    timed_row("create, p99", "create", 0.99, 30, "chronos create --any 0.001 600")
    timed_row("create, the first: starts the guardian", "first", 0.5, None, "same, nothing leased")
    what = "create beside 1,000 leases and 10,000 queued"
    timed_row(what + ", p50", "full", 0.5, 10, "chronos create 7 0.001 600")
    timed_row(what + ", p99", "full", 0.99, None, "chronos create 7 0.001 600")
    timed_row("list beside them, p50", "full list", 0.5, None, "chronos list")
    timed_row("expiry: SIGTERM after the deadline, p50", "expiry", 0.5, None, "chronos run --for 600ms")
    timed_row("expiry: SIGTERM after the deadline, p99", "expiry", 0.99, 50, "chronos run --for 600ms")
    timed_row("kill of 41 processes that ignore SIGTERM, p50", "tree", 0.5, 100, "run --grace 0")
    row("binary", os.path.getsize(tool) / 2**20, "MiB", 6, "release build, stripped")
    resident = helper_resident()
    if resident:
        row("helper, most memory resident", resident, "MiB", 8, "VmHWM after 20 orders")
    else:
        text_row("helper, most memory resident", "not measured: needs root")
    for other in others:
        if other.missing:
            text_row(other.name, "cannot run here: " + other.missing)
        else:
            timed_row(other.name + ", cold process, p50", other.name, 0.5)
    rival_facts(others)


def rival_facts(others):
    """What the others do and do not do of the rest."""
    for other in others[:3]:
        code, said = other.bare()
        text_row(f"{other.package} without a GPU", f"exit {code}: {said}")
    for package, name in [("nvitop", "nvitop"), ("gpustat", "gpustat")]:
        if rivals:
            text_row(f"{package}: create, expiry, queue, kill", "none: it shows GPUs")
    chronos_gpu = next((o for o in others if o.package == "chronos-gpu" and not o.missing), None)
    if chronos_gpu:
        settings = {**environment, **chronos_gpu.settings}
        done = subprocess.run(
            [rivals + "/venv/bin/python", "-c", CHRONOS_GPU], env=settings, capture_output=True, text=True
        )
        found = json.loads(done.stderr.strip().splitlines()[-1])
        row("chronos-gpu: create within a process, p50", quantile(found["made"], 0.5), "ms")
        row("chronos-gpu: create within a process, p99", quantile(found["made"], 0.99), "ms")
        row("chronos-gpu: gone from its list after the time, p50", quantile(found["late"], 0.5), "ms")
        row("chronos-gpu: gone from its list after the time, max", max(found["late"]), "ms")
        row("chronos-gpu: memory of the process that holds it", found["resident"], "MiB")
        text_row("chronos-gpu: kill at expiry, queue", "none: processes run on, nobody waits")


def show(loads):
    cores = os.cpu_count()
    quiet = max(loads) < cores / 2
    print(f"{platform.machine()}, {cores} cores, Linux {platform.release()}; {given.rounds} rounds of "
          f"{given.times} samples; runtime directory on {filesystem(place)}")
    print(f"load at each round: {' '.join(f'{load:.1f}' for load in loads)}"
          f" ({'quiet' if quiet else 'NOT quiet: wall times include waiting for others'})\n")
    print(f"{'':58} {'wall':>9} {'limit':>10} {'processor':>10} {'instructions':>12}")
    for line in rows:
        if line["value"] is None:
            print(f"{line['what']:58} {line['text']}")
            continue
        limit = "" if line["limit"] is None else f"{line['limit']} {line['unit']}"
        cpu = f"{line['cpu_ms']:.2f} ms" if line["cpu_ms"] else ""
        counted = f"{line['instructions'] / 1e6:.1f} M" if line["instructions"] else ""
        mark = "" if line["holds"] else "  MISSED"
        print(f"{line['what']:58} {line['value']:6.2f} {line['unit']:3} {limit:>9} {cpu:>10} {counted:>12}{mark}")
    missed = [line["what"] for line in rows if not line["holds"]]
    result = {"load": loads, "quiet": quiet, "rounds": given.rounds, "times": given.times,
              "rows": rows, "holds": not missed}
    json.dump(result, open(given.out, "w"), indent=1)
    sys.exit(f"missed: {', '.join(missed)}" if missed else 0)


def filesystem(path):
    mounts = [line.split() for line in open("/proc/mounts")]
    under = [m for m in mounts if os.path.realpath(path).startswith(m[1])]
    return max(under, key=lambda mount: len(mount[1]))[2]


others = all_rivals()
loads = measure(others)
table(others)
subprocess.run(["rm", "-rf", place + "/full"], check=True)
show(loads)

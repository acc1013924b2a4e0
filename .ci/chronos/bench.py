"""Measures the tool: one process a sample, as users run it."""

import json
import os
import platform
import signal
import subprocess
import sys
import time

tool, place, samples, out, rivals = sys.argv[1:]
samples = int(samples)
environment = dict(os.environ)
rows = []


def run(*arguments, **settings):
    began = time.perf_counter()
    done = subprocess.run(
        [tool, *arguments], env={**environment, **settings}, capture_output=True, text=True
    )
    return (time.perf_counter() - began) * 1e3, done


def quantile(values, q):
    values = sorted(values)
    return values[min(len(values) - 1, int(q * len(values)))]


def row(what, value, unit, limit, command):
    holds = limit is None or value <= limit
    rows.append(
        {"what": what, "value": round(value, 2), "unit": unit, "limit": limit, "holds": holds,
         "command": command}
    )
    bound = "" if limit is None else f"{limit} {unit}"
    print(f"{what:52} {value:9.2f} {unit:4} {bound:>9} {'' if holds else 'MISSED'}", flush=True)


def release_all():
    for lease in json.loads(run("list", "--json")[1].stdout)["items"]:
        run("release", "--force", lease["id"])


def measured(*arguments):
    times = []
    for _ in range(samples):
        elapsed, done = run(*arguments)
        assert done.returncode == 0, done.stderr
        times.append(elapsed)
    return times


def fill(leases, tickets):
    """A journal with that many live leases and waiting tickets, from lines that the tool wrote."""
    run("create", "0", "0.001", "36000")
    first = run("create", "6", "1", "36000")[1]
    assert first.returncode == 0, first.stderr
    waiter = subprocess.Popen(
        [tool, "create", "6", "1", "36000", "--wait"], env=environment,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )
    journal = environment["CHRONOS_RUNTIME_DIR"] + "/journal"
    while b"queued" not in open(journal, "rb").read():
        pass
    events = [json.loads(line[9:]) for line in open(journal)]
    opened = next(event for event in events if "opened" in event)
    grants = [event for event in events if "granted" in event]
    lease = min(grants, key=lambda event: event["granted"]["parts"][0]["index"])["granted"]
    blocker = max(grants, key=lambda event: event["granted"]["parts"][0]["index"])["granted"]
    ticket = next(event for event in events if "queued" in event)["queued"]
    opened["opened"]["serial"] = leases + tickets + 10
    lines = [opened, {"granted": blocker}]
    for number in range(leases):
        gpu = number % 6
        part = {**lease["parts"][0], "gpu": f"FAKE-{gpu}", "index": gpu}
        identity = f"partition_{lease['creator']['pid']}_1_{number:04}"
        lines.append({"granted": {**lease, "id": identity, "parts": [part], "fenced": False}})
    for number in range(tickets):
        identity = f"partition_{ticket['waiter']['pid']}_2_{leases + number:04}"
        lines.append({"queued": {**ticket, "id": identity}})
    with open(journal + ".made", "w") as made:
        for line in lines:
            text = json.dumps(line, separators=(",", ":"))
            made.write(f"{crc32c(text.encode()):08x} {text}\n")
    os.rename(journal + ".made", journal)


def crc32c(data):
    total = 0xFFFFFFFF
    for byte in data:
        total = TABLE[(total ^ byte) & 0xFF] ^ (total >> 8)
    return total ^ 0xFFFFFFFF


def crc_table():
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = (byte >> 1) ^ 0x82F63B78 if byte & 1 else byte >> 1
        table.append(byte)
    return table


TABLE = crc_table()


def expiry():
    """How late the first process of a lease sees SIGTERM, against its deadline."""
    errors = []
    script = (
        "import os, signal, time\n"
        "def end(*_):\n"
        "    now = time.clock_gettime_ns(time.CLOCK_BOOTTIME)\n"
        "    print(now - int(os.environ['CHRONOS_DEADLINE_BOOTTIME_NS']), flush=True); os._exit(0)\n"
        "signal.signal(signal.SIGTERM, end)\n"
        "time.sleep(60)\n"
    )
    for _ in range(max(10, samples // 10)):
        _, done = run("run", "--for", "300ms", "--mem", "1%", "--", sys.executable, "-c", script)
        assert done.returncode == 124, (done.returncode, done.stderr)
        errors.append(int(done.stdout) / 1e6)
    return errors


def tree_kill():
    """From the end of the grace to the end of a tree of 41 processes that ignore SIGTERM."""
    lates = []
    script = "trap '' TERM; for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do " \
        "setsid sh -c \"trap '' TERM; sleep 60 & wait; wait\" & done; wait"
    for _ in range(max(5, samples // 40)):
        began = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        process = subprocess.Popen(
            [tool, "run", "--for", "700ms", "--grace", "0", "--mem", "1%", "--", "sh", "-c", script],
            env=environment, stderr=subprocess.DEVNULL,
        )
        assert process.wait() == 137, process.returncode
        while json.loads(run("list", "--json")[1].stdout)["items"]:
            pass
        lates.append((time.clock_gettime_ns(time.CLOCK_BOOTTIME) - began) / 1e6 - 700)
    return lates


print(f"{platform.machine()}, {os.cpu_count()} cores, Linux {platform.release()}, {samples} samples")
print(f"load at the start: {os.getloadavg()[0]:.1f}")
row("binary", os.path.getsize(tool) / 2**20, "MiB", 6, "release build, stripped")
began = [time.perf_counter()]
for _ in range(samples):
    subprocess.run(["/bin/true"])
    began.append(time.perf_counter())
empty = [(after - before) * 1e3 for before, after in zip(began, began[1:])]
row("/bin/true by the same method, p50", quantile(empty, 0.5), "ms", None, "what starting a process costs")
run("create", "0", "0.1", "600")
times = measured("list")
row("list, cold process, p50", quantile(times, 0.5), "ms", 5, "chronos list")
row("list, cold process, p99", quantile(times, 0.99), "ms", None, "chronos list")
times = measured("create", "--any", "0.001", "600")
row("create, p50", quantile(times, 0.5), "ms", 3, "chronos create --any 0.001 600")
row("create, p99", quantile(times, 0.99), "ms", 30, "chronos create --any 0.001 600")
release_all()
errors = expiry()
row("expiry: SIGTERM after the deadline, p50", quantile(errors, 0.5), "ms", None, "chronos run --for 300ms")
row("expiry: SIGTERM after the deadline, p99", quantile(errors, 0.99), "ms", 50, "chronos run --for 300ms")
late = tree_kill()
row("kill of 41 processes that ignore SIGTERM, max", max(late), "ms", None, "chronos run, setsid, trap")
release_all()

helper = subprocess.Popen([tool, "helper"], env={**environment, "CHRONOS_RUNTIME_DIR": place + "/h"})
while not os.path.exists(place + "/h/helper.sock"):
    pass
for _ in range(20):
    if os.geteuid() == 0:
        subprocess.run(["setpriv", "--reuid", "daemon", "--regid", "daemon", "--clear-groups", tool,
                        "create", "0", "0.01", "600"], capture_output=True,
                       env={**environment, "CHRONOS_RUNTIME_DIR": place + "/h"})
status = open(f"/proc/{helper.pid}/status").read()
resident = next(int(l.split()[1]) for l in status.splitlines() if l.startswith("VmHWM"))
row("helper, most memory resident", resident / 1024, "MiB", 8, "VmHWM after 20 orders")
environment["CHRONOS_RUNTIME_DIR"] = place + "/h"
release_all()
helper.send_signal(signal.SIGTERM)
helper.wait()
environment["CHRONOS_RUNTIME_DIR"] = place + "/full"
environment["CHRONOS_PROGRAM"] = "/bin/true"
fill(1_000, 10_000)
times = [run("create", "7", "0.001", "600") for _ in range(min(samples, 100))]
assert all(done.returncode == 0 for _, done in times), times[0][1].stderr
times = [elapsed for elapsed, _ in times]
row("create beside 1,000 leases and 10,000 queued, p50", quantile(times, 0.5), "ms", 10, "chronos create 7 0.001 600")
row("create beside 1,000 leases and 10,000 queued, p99", quantile(times, 0.99), "ms", None, "chronos create 7 0.001 600")
subprocess.run(["rm", "-rf", place + "/full"], check=True)
if rivals == "1":
    virtual = place + "/venv"
    subprocess.run([sys.executable, "-m", "venv", virtual], check=True)
    for package, command in [
        ("gpustat", ["gpustat", "--json"]),
        ("nvitop", ["nvisel", "-n", "1"]),
        ("chronos-gpu", ["python", "-c", "import chronos; print(chronos.__version__)"]),
    ]:
        done = subprocess.run([virtual + "/bin/pip", "install", "-q", package], capture_output=True, text=True)
        if done.returncode:
            print(f"{package}: not installable here: {done.stderr.strip().splitlines()[-1]}")
            continue
        times = []
        for _ in range(min(samples, 20)):
            began = time.perf_counter()
            subprocess.run([f"{virtual}/bin/{command[0]}", *command[1:]], capture_output=True)
            times.append((time.perf_counter() - began) * 1e3)
        row(f"{package}: {' '.join(command)[:30]}, p50", quantile(times, 0.5), "ms", None, " ".join(command))
json.dump({"load": os.getloadavg()[0], "rows": rows}, open(out, "w"), indent=1)
missed = [r["what"] for r in rows if not r["holds"]]
sys.exit(f"missed: {', '.join(missed)}" if missed else 0)

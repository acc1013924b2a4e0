"""A journal with many live leases and waiting tickets, from lines that the tool wrote."""

import json
import os
import subprocess


def fill(run, runtime, leases, tickets):
    """`run` runs the tool on the state in `runtime`, which must be empty."""
    quiet = {"CHRONOS_PROGRAM": "/bin/true"}
    first = run("create", "0", "0.001", "36000", **quiet)
    assert first.returncode == 0, first.stderr
    run("create", "6", "1", "36000", **quiet)
    waiter = subprocess.Popen(
        [*first.args[:1], "create", "6", "1", "36000", "--wait"],
        env={**os.environ, **quiet, "CHRONOS_RUNTIME_DIR": runtime},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )
    journal = runtime + "/journal"
    while b'"queued"' not in open(journal, "rb").read():
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
    priorities = ["high", "normal", "low"]
    for number in range(tickets):
        identity = f"partition_{ticket['waiter']['pid']}_2_{leases + number:04}"
        request = {**ticket["request"], "priority": priorities[number % 3]}
        owner = {"uid": 1000 + number % 50, "user": f"u{number % 50}"}
        lines.append({"queued": {**ticket, "id": identity, "request": request, "owner": owner}})
    with open(journal + ".made", "w") as made:
        for line in lines:
            text = json.dumps(line, separators=(",", ":"))
            made.write(f"{crc32c(text.encode()):08x} {text}\n")
    waiter.kill()
    waiter.wait()
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

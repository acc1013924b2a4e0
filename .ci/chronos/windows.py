#!/usr/bin/env python3
"""Runs chronos.exe under Wine: windows.py CHRONOS_EXE

Each step is what a user does; what is checked is what the tool promises everywhere: no GPU is
promised twice, each lease ends with its whole tree, what was acknowledged is not lost when the tool
is killed, and no other process is ended. SEED chooses the moments of the kills, TIMES their number.
"""
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TOOL = str(Path(sys.argv[1]).resolve())
SEED, KILLS = int(os.environ.get("SEED", "1")), int(os.environ.get("TIMES", "12"))
# How late a process may be gone: the timer of Windows ticks each 16 ms, and Wine is shared.
LATE_S = 3.0


class Machine:
    def __init__(self, root):
        self.root = root
        self.environment = {
            **os.environ, "WINEPREFIX": str(root / "wine"), "WINEDEBUG": "-all", "DISPLAY": "",
            "CHRONOS_BACKEND": "fake", "CHRONOS_FAKE_GPUS": "count=2,memory=8GiB",
            "CHRONOS_RUNTIME_DIR": r"C:\chronos\run", "CHRONOS_STATE_DIR": r"C:\chronos\state",
        }
        for name in ["CHRONOS_LEASE", "CHRONOS_CONFIG", "CHRONOS_POLICY"]:
            self.environment.pop(name, None)

    def start(self, *words):
        # Not a pipe: under Wine the guardian keeps its maker's standard error open.
        errors = tempfile.TemporaryFile("w+", dir=self.root)
        process = subprocess.Popen(
            ["wine", TOOL, *words], env=self.environment, text=True, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=errors,
        )
        process.errors = errors
        return process

    def run(self, *words, code=0):
        process = self.start(*words)
        out, _ = process.communicate(timeout=120)
        process.errors.seek(0)
        errors = process.errors.read()
        if code is not None and process.returncode != code:
            raise AssertionError(f"{words}: exit {process.returncode}, not {code}: {out}{errors}")
        return out, errors

    def json(self, *words):
        return json.loads(self.run(*words, "--json")[0])

    def leases(self):
        return {lease["id"]: lease for lease in self.json("list")["items"]}

    def folder(self, name):
        return self.root / "wine" / "drive_c" / "chronos" / name


def tree(mark):
    """Processes of this machine whose command line contains the mark."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = entry.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if mark in words and TOOL not in words and int(entry.parent.name) != os.getpid():
            found.append(int(entry.parent.name))
    return found


def await_some(what, look, patience=30.0):
    until = time.monotonic() + patience
    while time.monotonic() < until:
        found = look()
        if found:
            return found
    raise AssertionError(f"{what} did not appear")


def job(mark):
    """A command with a child; the mark is a number of pings that nothing else has."""
    return ["cmd", "/c", f"start /b ping -n {mark} 127.0.0.1 > nul & ping -n {mark} 127.0.0.1 > nul"]


def grants(machine):
    created = machine.json("create", "0", "0.5", "600")
    assert created["enforcement"]["tree"] == "environment", created
    _, errors = machine.run("create", "0", "0.6", "600", code=73)
    assert "hint: " in errors, errors
    assert set(machine.leases()) == {created["id"]}
    longer = machine.json("extend", created["id"], "--for", "60s")
    assert longer["remainingSeconds"] > 630, longer
    machine.run("release", created["id"])
    assert not machine.leases()


def ends_a_tree(machine):
    run = machine.start("run", "--gpu", "1", "--for", "8s", "--grace", "500ms", "--", *job(90001))
    await_some("the tree of the job", lambda: len(tree("90001")) >= 2)
    (lease,) = machine.leases()
    stranger = machine.start("run", "--gpu", "0", "--for", "60s", "--", *job(90002))
    await_some("the other tree", lambda: len(tree("90002")) >= 2)
    assert run.wait(timeout=60) == 137, run.communicate()
    await_some("the end of the tree", lambda: not tree("90001"), LATE_S)
    assert len(tree("90002")) >= 2, "a process of another lease was ended"
    assert lease not in machine.leases()
    for other in machine.leases():
        machine.run("release", "--force", other)
    await_some("the end of the other tree", lambda: not tree("90002"), LATE_S)
    assert stranger.wait(timeout=60) == 137


def ends_without_a_supervisor(machine):
    run = machine.start("run", "--gpu", "1", "--for", "4s", "--grace", "0", "--", *job(90003))
    await_some("the tree of the job", lambda: len(tree("90003")) >= 2)
    run.kill()
    await_some("the end of the tree", lambda: not tree("90003"), 4 + LATE_S)
    run.wait(timeout=60)
    await_some("the end of the lease", lambda: not machine.leases())


def waits_its_turn(machine):
    first = machine.json("create", "0", "1", "3")
    later = machine.json("create", "0", "1", "2", "--wait")
    assert later["id"] != first["id"], later
    machine.run("release", later["id"])


def survives_kills(machine):
    """The tool is killed while it grants: what it said is there, and nothing is promised twice."""
    chance, killed = random.Random(SEED), 0
    for _ in range(KILLS):
        acknowledged = {machine.json("create", "--any", "0.05", "3600")["id"]}
        victims = [machine.start("create", "--any", "0.05", "3600", "--json") for _ in range(2)]
        time.sleep(chance.uniform(0.0, 0.5))
        victims[0].kill()
        for victim in victims:
            out, _ = victim.communicate(timeout=60)
            killed += victim.returncode < 0
            if victim.returncode == 0:
                acknowledged.add(json.loads(out)["id"])
        leases = machine.leases()
        assert acknowledged <= set(leases), f"lost: {acknowledged - set(leases)}"
        for gpu in (0, 1):
            parts = [p for lease in leases.values() for p in lease["parts"] if p["index"] == gpu]
            held = sum(part["memoryBytes"] for part in parts)
            assert held <= 8 << 30, f"GPU {gpu} is promised {held} bytes"
        if len(leases) > 24:
            for lease in leases:
                machine.run("release", lease)
    for lease in machine.leases():
        machine.run("release", lease)
    print(f"  {killed} of {KILLS} killed in time, SEED={SEED}")


def repairs_and_refuses(machine):
    lease = machine.json("create", "0", "0.5", "3600")["id"]
    journal = max(machine.folder("run").glob("journal-*"), key=lambda p: int(p.name.rsplit("-")[-1]))
    whole = journal.read_bytes()
    journal.write_bytes(whole + b'0123abcd {"granted":{"id')
    assert lease in machine.leases(), "a torn line is not seen"
    machine.run("extend", lease, "--for", "60s")
    damaged = bytearray(journal.read_bytes())
    damaged[20] ^= 1
    journal.write_bytes(damaged)
    _, errors = machine.run("create", "0", "0.1", "60", code=74)
    assert "damaged" in errors, errors
    journal.write_bytes(whole)
    machine.run("release", lease)


def says_what_is_missing(machine):
    out, _ = machine.run("doctor")
    assert "windows refuses no process a GPU" in out, out
    for words in (["lockdown", "on"], ["setup", "--print"], ["helper"]):
        _, errors = machine.run(*words, code=None)
        assert "windows has no" in errors or "root" in errors, errors


def main():
    root = Path(tempfile.mkdtemp(prefix="chronos-wine-"))
    machine = Machine(root)
    try:
        subprocess.run(["wineboot", "--init"], env=machine.environment, check=True,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        print(machine.run("version")[0].strip())
        steps = [grants, ends_a_tree, ends_without_a_supervisor, waits_its_turn, survives_kills,
                 repairs_and_refuses, says_what_is_missing]
        for step in steps:
            began = time.monotonic()
            step(machine)
            print(f"ok {step.__name__.replace('_', ' '):32} {time.monotonic() - began:5.1f} s")
        await_some("the end of the guardian", lambda: not tree("guard --detach"))
    finally:
        subprocess.run(["wineserver", "-k"], env=machine.environment, check=False,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        shutil.rmtree(root, ignore_errors=True)


main()

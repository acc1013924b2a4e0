"""Prints the table of waste-6.sh and judges it by its aims."""
import json
import pathlib
import statistics
import sys

AIMS = {1000: {"one_change_ms": 10, "memory_mib": 128},
        10000: {"one_change_ms": 150, "memory_mib": 1024}}
show = pathlib.Path("target/show")
rows, misses = [], []


def row(what, value, unit, aim=None):
    missed = aim is not None and not value <= aim
    rows.append({"what": what, "value": value, "unit": unit, "aim": aim, "missed": missed})
    if missed:
        misses.append(what)


for path in sys.argv[1:]:
    run = json.load(open(path))
    fleet, aims = f"{run['nodes']} nodes, {run['pods']} pods", AIMS[run["nodes"]]
    row(f"{fleet}: tick after one change", run["one_change_ms"], "ms", aims["one_change_ms"])
    row(f"{fleet}: memory between ticks", run["state_mib"], "MiB", aims["memory_mib"])
    row(f"{fleet}: memory at most", run["peak_mib"], "MiB", aims["memory_mib"])
    row(f"{fleet}: ten minutes from nothing", run["cold_ms"], "ms")
    row(f"{fleet}: tick with a scrape of all", run["scrape_ms"], "ms")
    row(f"{fleet}: tick with a judgement of all", run["judge_ms"], "ms")
parse = [json.loads(line) for line in open(show / "waste-6-parse.jsonl")]
ours, go = parse[::2], parse[1::2]
assert {run["series"] for run in parse} == {ours[0]["series"]}, "both parsers find the same series"
mib = ours[0]["bytes"] / 2**20
speed = {name: mib / statistics.median(run["seconds"] for run in runs)
         for name, runs in (("ours", ours), ("go", go))}
row(f"parsing {ours[0]['series']} series: ours", speed["ours"], "MiB/s")
row("parsing the same: Prometheus' expfmt (Go)", speed["go"], "MiB/s")
# Turn by turn, so that a busy moment of the machine is in both.
ratios = [one["seconds"] / other["seconds"] for one, other in zip(ours, go)]
row("parsing: our time as a share of Go's", statistics.median(ratios), "", 1)
scrape = json.load(open(show / "waste-6-scrape.json"))
row("one node of 8 GPUs: text to samples", scrape["micros"], "us")
row(f"{scrape['nodes']} nodes every {scrape['interval']} s", scrape["cores"] * 100,
    "% of a core", 100)
for it in rows:
    aim = "" if it["aim"] is None else f"  (aim: {it['aim']:g}{', MISSED' if it['missed'] else ''})"
    print(f"{it['what']:<64}{it['value']:>10.2f} {it['unit']}{aim}")
report = {"line": "waste-6", "holds": not misses, "rows": rows}
(show / "waste-6.json").write_text(json.dumps(report, indent=1) + "\n")
print(f"waste-6: {'holds' if not misses else 'DOES NOT HOLD: ' + '; '.join(misses)}")
sys.exit(bool(misses))

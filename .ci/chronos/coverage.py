"""The share of lines that ran in any program, by file; tests within a file do not count."""

import json
import pathlib
import re
import sys

reports, out, show = pathlib.Path(sys.argv[1]), sys.argv[2], sys.argv[3] == "1"
AIM = 90.0


def own_tests(path):
    """Lines from the first test module of a file on."""
    for number, line in enumerate(pathlib.Path(path).read_text().splitlines(), 1):
        if re.match(r"#\[cfg\(test\)\]", line):
            return number
    return float("inf")


files, path = {}, None
for line in (line for report in reports.glob("*.info") for line in open(report)):
    if line.startswith("SF:"):
        path = line[3:].strip()
        ends = own_tests(path)
    elif line.startswith("DA:"):
        number, hits = map(int, line[3:].split(",")[:2])
        if number < ends:
            lines = files.setdefault(path, {})
            lines[number] = max(lines.get(number, 0), hits)


def source(path):
    return "/crates/chronos/src/" in path and not path.endswith("_tests.rs")


rows = []
for path, lines in sorted(files.items()):
    if source(path):
        ran = sum(hits > 0 for hits in lines.values())
        rows.append({"file": path.split("/crates/chronos/src/")[1], "lines": len(lines), "ran": ran})
        if show:
            missing = [str(number) for number, hits in sorted(lines.items()) if not hits]
            print(f"{rows[-1]['file']}: {' '.join(missing)}")
print(f"\n{'file':32} {'lines':>6} {'ran':>6}")
for row in sorted(rows, key=lambda row: row["ran"] - row["lines"]):
    print(f"{row['file']:32} {row['lines']:6} {row['ran']:6} {row['ran'] / row['lines']:7.1%}")
total, ran = sum(row["lines"] for row in rows), sum(row["ran"] for row in rows)
share = 100 * ran / total
print(f"\nlines of crates/chronos that ran: {ran} of {total}, {share:.1f} % (aim {AIM:.0f} %)")
json.dump({"lines": total, "ran": ran, "percent": round(share, 1), "aim": AIM, "files": rows},
          open(out, "w"), indent=1)
sys.exit(0 if share >= AIM else "below the aim")

#!/bin/bash
# Must show 2: the tool killed at every system call of five operations, and the model at TIMES
# random kill points from SEED, which takes ten minutes on two cores that are free. POINTS is the number of system calls tried for each operation; 0,
# the default, is every one of them.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
cd "$root"
results=${CARGO_TARGET_DIR:-$root/target}/show
record=$(mktemp -d)
trap 'rm -rf "$record"' EXIT
mkdir -p "$results"
seed=${SEED:-1} times=${TIMES:-1000000}
export CHRONOS_RECORD=$record
SEED=$seed TIMES=${POINTS:-0} \
    .ci/test chronos --quiet --nocapture kill_points:: | tee "$record/kill.log"
SEED=$seed TIMES=$times \
    .ci/test chronos --quiet --nocapture model:: | tee "$record/model.log"
line=$(grep '^model: ' "$record/model.log")
python3 - "$record/kill_points.json" "$line" "$results/chronos-2.json" <<'P'
import json, sys
kill = json.load(open(sys.argv[1]))
model = dict(pair.split("=") for pair in sys.argv[2].split()[1:])
wrong = []
print(f"\n{'operation':10} {'calls':>8} {'killed':>8} {'violations':>10} {'s':>6}")
for row in kill["operations"]:
    print(f"{row['operation']:10} {row['calls']:8} {row['killed']:8} {0:10} {row['secs']:6.0f}")
    if row["every"] and row["killed"] < row["calls"]:
        wrong.append(f"{row['operation']}: {row['killed']} of {row['calls']} calls")
    if not row["every"]:
        print(f"{'':10} a sample: POINTS is set, or there is no PID namespace here")
print(f"{'model':10} {model['steps']:>8} {model['kills']:>8} {model['violations']:>10} "
      f"{float(model['secs']):6.0f}")
json.dump({"kill_points": kill, "model": model}, open(sys.argv[3], "w"), indent=1)
if wrong:
    sys.exit("not every call was covered: " + ", ".join(wrong))
P

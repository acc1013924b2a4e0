#!/bin/bash
# Must show 2: the tool killed at every system call of five operations, and the model at TIMES
# random kill points from SEED. POINTS is the number of system call stops tried for each operation,
# 0 is all of them.
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
    cargo test --quiet -p chronos --test it -- --nocapture kill_points:: | tee "$record/kill.log"
SEED=$seed TIMES=$times \
    cargo test --quiet --release -p chronos --test it -- --nocapture model:: | tee "$record/model.log"
line=$(grep '^model: ' "$record/model.log")
python3 - "$record/kill_points.json" "$line" "$results/chronos-2.json" <<'P'
import json, sys
kill = json.load(open(sys.argv[1]))
model = dict(pair.split("=") for pair in sys.argv[2].split()[1:])
print(f"\n{'operation':10} {'stops':>6} {'tried':>6} {'killed':>6} {'violations':>10}")
for row in kill["operations"]:
    print(f"{row['operation']:10} {row['stops']:6} {row['tried']:6} {row['killed']:6} {0:10}")
print(f"{'model':10} {model['steps']:>6} {'':6} {model['kills']:>6} {model['violations']:>10}")
json.dump({"kill_points": kill, "model": model}, open(sys.argv[3], "w"), indent=1)
P

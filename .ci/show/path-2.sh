#!/usr/bin/env bash
# Path, line 2: a week of the demo repeats to the byte, another seed differs, and the same holds
# for an openb trace that is given by path.
#
# SEED: the first seed (7); the other is the next. TRACES: the folder of openb's csv files; without
# it, that part is skipped aloud, or fails under REQUIRE_ALL=1. FOR: how long (7d).
set -euo pipefail
cd "$(dirname "$0")/../.."
seed=${SEED:-7}
span=${FOR:-7d}
traces=${TRACES:-../shared/data/openb/csv}
out=target/show/path-2
mkdir -p "$out"
cargo build --quiet --workspace --bin gpu-autoscaler
program=${CARGO_TARGET_DIR:-target}/debug/gpu-autoscaler

rows=()
passed=true
# Runs the demo of seed $1 into file $2 with the arguments that follow; prints its time.
week() {
  local seed=$1 file=$2 start
  shift 2
  start=$(date +%s.%N)
  "$program" demo --seed "$seed" --for "$span" --speed max -o json "$@" >"$out/$file"
  awk -v a="$start" -v b="$(date +%s.%N)" 'BEGIN { printf "%.1f", b - a }'
}
# Compares the files of three runs, two of which must be equal.
check() {
  local what=$1 time=$2 same=no differs=no
  cmp -s "$out/$what-a.json" "$out/$what-b.json" && same=yes
  cmp -s "$out/$what-a.json" "$out/$what-c.json" || differs=yes
  local sum
  sum=$(sha256sum "$out/$what-a.json" | cut -c1-16)
  [[ $same == yes && $differs == yes ]] || passed=false
  rows+=("$(printf '%-10s %9s s %10s bytes  %s  %-11s %s' "$what" "$time" \
    "$(stat -c %s "$out/$what-a.json")" "$sum" "$same" "$differs")")
}

time=$(week "$seed" generated-a.json)
week "$seed" generated-b.json >/dev/null
week "$((seed + 1))" generated-c.json >/dev/null
check generated "$time"

if [[ -r $traces/openb_node_list_gpu_node.csv && -r $traces/openb_pod_list_default.csv ]]; then
  trace=(--trace-nodes "$traces/openb_node_list_gpu_node.csv"
    --trace-pods "$traces/openb_pod_list_default.csv")
  time=$(week "$seed" trace-a.json "${trace[@]}")
  week "$seed" trace-b.json "${trace[@]}" >/dev/null
  week "$((seed + 1))" trace-c.json "${trace[@]}" >/dev/null
  check trace "$time"
else
  echo "skipped: no openb trace in $traces (name its folder in TRACES)"
  [[ -z ${REQUIRE_ALL:-} ]] || passed=false
fi

printf 'world         time of a run             size  sha256            repeats     seed %s differs\n' \
  "$((seed + 1))"
printf '%s\n' "${rows[@]}"
{
  printf '{\n  "show": "path-2",\n  "seed": %s,\n  "for": "%s",\n  "passed": %s,\n  "rows": [\n' \
    "$seed" "$span" "$passed"
  printf '    "%s"\n' "${rows[@]}" | sed '$!s/$/,/'
  printf '  ]\n}\n'
} >target/show/path-2.json
[[ $passed == true ]] && echo 'everything repeats'
[[ $passed == true ]]

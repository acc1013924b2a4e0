#!/usr/bin/env bash
# Waste, line 6: what a tick costs in time and memory, what parsing costs beside Prometheus' own
# parser for Go, and what scraping costs. Ends with an error where an aim is missed. TIMES repeats
# the parsing.
#
# Times on a shared machine are noise: medians are printed, and the parsers take turns.
set -euo pipefail
cd "$(dirname "$0")/../.."
mkdir -p target/show
cargo build --quiet --release -p benches --bin loopbench --bin parsebench
tests/cluster/build.sh >/dev/null
go=$(tests/cluster/build.sh --dir)/expfmtbench

# As the chart sets it for the controller.
export MALLOC_MMAP_THRESHOLD_=1048576 MALLOC_ARENA_MAX=2
text=target/show/waste-6.prom
target/release/parsebench write "$text"
loops=()
for size in "1000 8000 2000 15" "10000 80000 20000 5"; do
  read -r nodes gpu_pods other_pods ticks <<<"$size"
  out=target/show/waste-6-$nodes.json
  target/release/loopbench --json --nodes "$nodes" --gpu-pods "$gpu_pods" \
    --other-pods "$other_pods" --ticks "$ticks" >"$out"
  loops+=("$out")
done
: >target/show/waste-6-parse.jsonl
for ((turn = 0; turn < ${TIMES:-5}; turn++)); do
  target/release/parsebench parse --times 5 "$text" >>target/show/waste-6-parse.jsonl
  "$go" "$text" 5 >>target/show/waste-6-parse.jsonl
done
target/release/parsebench scrape >target/show/waste-6-scrape.json
exec python3 .ci/show/waste-6.py "${loops[@]}"

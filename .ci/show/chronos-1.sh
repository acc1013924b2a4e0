#!/bin/bash
# Must show 1: the demonstration, without a terminal, within 60 s.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
results=${CARGO_TARGET_DIR:-$root/target}/show
mkdir -p "$results"
cargo build --quiet --workspace --bin chronos --manifest-path "$root/Cargo.toml"
began=$(date +%s)
code=0
timeout 60 sh "$root/.ci/chronos/demo.sh" < /dev/null 2>&1 | cat || code=$?
secs=$(($(date +%s) - began))
printf '\n%-28s %s\n%-28s %s\n' "exit code" "$code" "seconds (limit 60)" "$secs"
printf '{"exit": %d, "secs": %d, "limit_secs": 60}\n' "$code" "$secs" > "$results/chronos-1.json"
[ "$code" = 0 ] && [ "$secs" -le 60 ]

#!/bin/bash
# Must show 4: the ABI golden test in C, and the behaviours in C, C++, Python and at the CLI.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
cd "$root"
results=${CARGO_TARGET_DIR:-$root/target}/show
mkdir -p "$results"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
{
    .ci/test chronos-c --nocapture
    .ci/test chronos behaviour::
} 2>&1 | grep -E '^(test |c:|c\+\+:|Ran|skipped)' | tee "$log"
passed=$(grep -c '^test .* ok$' "$log")
failed=$(grep -c '^test .* FAILED$' "$log" || true)
printf '\n%-20s %s\n%-20s %s\n' passed "$passed" failed "$failed"
printf '{"passed": %d, "failed": %d}\n' "$passed" "$failed" > "$results/chronos-4.json"
[ "$failed" = 0 ] && [ "$passed" -ge 15 ]

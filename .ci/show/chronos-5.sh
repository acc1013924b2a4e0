#!/bin/bash
# Must show 5: two real users on one machine, and a policy. Needs root.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
cd "$root"
results=${CARGO_TARGET_DIR:-$root/target}/show
record=$(mktemp -d)
trap 'rm -rf "$record"' EXIT
mkdir -p "$results"
CHRONOS_RECORD=$record .ci/test chronos --quiet --nocapture users:: \
    | grep -E '^(users|policy|guards|skipped)' | tee "$record/log"
if [ ! -e "$record/users.json" ]; then
    echo "not shown: it needs root and the accounts daemon and games" >&2
    exit 1
fi
cp "$record/users.json" "$results/chronos-5.json"
printf '\n%-14s %-34s %s\n' who what exit
python3 -c 'import json,sys
for r in json.load(open(sys.argv[1])): print("{who:14} {what:34} {exit}".format(**r))' "$results/chronos-5.json"

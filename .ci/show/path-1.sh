#!/usr/bin/env bash
# Path, line 1: what a new user does, in a fresh clone, with nothing typed between:
# make demo DEMO_ARGS='--for 10m --speed max', make test, and a second make demo, whose first
# screen must stand within 5 seconds.
#
# Only what is committed is tried. DIR: where to clone to (a folder that is removed afterwards).
set -euo pipefail
cd "$(dirname "$0")/../.."
root=$PWD
out=$root/target/show
mkdir -p "$out"
if [[ -n $(git status --porcelain --untracked-files=no) ]]; then
  echo 'note: there are changes that are not committed; they are not in the clone' >&2
fi
base=${DIR:-$(mktemp -d)}
directory=$base/clone
trap 'rm -rf "$directory"; rmdir --ignore-fail-on-non-empty "$base"' EXIT
# The clone builds what it needs by itself: no target folder of this checkout.
unset CARGO_TARGET_DIR

rows=()
step() {
  local name=$1 log start code=0
  shift
  log=$out/path-1-$name.log
  start=$(date +%s.%N)
  "$@" >"$log" 2>&1 </dev/null || code=$?
  rows+=("$(printf '%-14s %8.1f s  exit %d' "$name" \
    "$(awk -v a="$start" -v b="$(date +%s.%N)" 'BEGIN { print b - a }')" "$code")")
  printf '%s\n' "${rows[-1]}"
  if ((code != 0)); then
    tail -n 30 "$log" >&2
    passed=false
  fi
}

passed=true
step clone git clone --quiet . "$directory"
cd "$directory"
step demo make demo DEMO_ARGS='--for 10m --speed max'
step test make test
# A second demo: how long from the command to a page with something on it.
step second-demo make demo DEMO_ARGS='--first-screen-exit'
screen=$(grep -o 'first screen after [0-9.]* s' "$out/path-1-second-demo.log" || true)
seconds=$(printf '%s' "${rows[-1]}" | awk '{ print $2 }')
echo "second demo: ${screen:-no first screen}; $seconds s from the command to its end"
awk -v s="$seconds" 'BEGIN { exit !(s < 5) }' || passed=false
grep 'Wasteful pods' "$out/path-1-demo.log" || passed=false
grep -h '^test result' "$out/path-1-test.log" | awk '
  { passed += $4; failed += $6 } END { printf "tests: %d passed, %d failed\n", passed, failed }'
{
  printf '{\n  "show": "path-1",\n  "passed": %s,\n  "secondDemoSecs": %s,\n  "rows": [\n' \
    "$passed" "$seconds"
  printf '    "%s"\n' "${rows[@]}" | sed '$!s/$/,/'
  printf '  ]\n}\n'
} >"$out/path-1.json"
[[ $passed == true ]]

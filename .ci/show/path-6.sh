#!/usr/bin/env bash
# Path, line 6: `.ci/run` on a fresh clone, first with nothing built, then again. TIMES=1 stops
# after the cold run.
set -euo pipefail
cd "$(dirname "$0")/../.."
mkdir -p target/show
report=$PWD/target/show/path-6.json
clone=$(mktemp -d)/gpu-autoscaler
trap 'rm -rf "$(dirname "$clone")"' EXIT
git clone --quiet . "$clone"
if [[ -d ../shared ]]; then ln -s "$(realpath ../shared)" "$(dirname "$clone")/shared"; fi

declare -A seconds
holds=true
for run in cold warm; do
  start=$SECONDS
  # TIMES and SEED are this script's own here, not those of the tests within.
  if ! (cd "$clone" && env -u TIMES -u SEED CI=true bash .ci/run) >"target/show/path-6-$run.log" 2>&1; then
    holds=false
    tail -n 40 "target/show/path-6-$run.log"
  fi
  seconds[$run]=$((SECONDS - start))
  printf '%s: %d s\n' "$run" "${seconds[$run]}"
  grep -E '^== .* took' "target/show/path-6-$run.log" || true
  [[ $holds == true && ${TIMES:-2} -gt 1 ]] || break
done
printf '{"show": "path-6", "holds": %s, "cold_secs": %s, "warm_secs": %s}\n' \
  "$holds" "${seconds[cold]}" "${seconds[warm]:-null}" >"$report"
$holds

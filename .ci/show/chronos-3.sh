#!/bin/bash
# Must show 3: supervisor, helper, timer and guardian killed in turn; the lease ends in time.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
cd "$root"
results=${CARGO_TARGET_DIR:-$root/target}/show
record=$(mktemp -d)
trap 'rm -rf "$record"' EXIT
mkdir -p "$results"
for _ in $(seq "${TIMES:-1}"); do
    CHRONOS_RECORD=$record .ci/test chronos --quiet --nocapture --test-threads 1 \
        guards:: timers:: users::a_users_job | grep -E '^(guards|skipped)' | tee -a "$record/log"
done
python3 - "$record" "$results/chronos-3.json" <<'P'
import json, os, sys
def read(name):
    path = os.path.join(sys.argv[1], name + ".json")
    return json.load(open(path)) if os.path.exists(path) else None
rows = read("guards") + [{"killed": "Helper and supervisor", **(read("helper") or {"skipped": True})}]
rows.append({"killed": "Supervisor and guardian, timer left", **(read("timer") or {"skipped": True})})
rows.append({"killed": "Timer, guardian left", **(read("timer_killed") or {"skipped": True})})
print(f"\n{'killed':40} {'ms after deadline and grace':>28}")
for row in rows:
    print(f"{row['killed']:40} {row.get('late_ms', 'skipped')!s:>28}")
json.dump(rows, open(sys.argv[2], "w"), indent=1)
P

#!/usr/bin/env bash
# Packing, line 4: feasibility of TIMES (1000) random pods on random nodes, by packing and by the
# real kube-scheduler. Any SEED.
set -euo pipefail
cd "$(dirname "$0")/../.."
mkdir -p target/show
tests/cluster/install-deps.sh
tests/cluster/build.sh
log=target/show/packing-4.log
status=0
SEED="${SEED:-1}" TIMES="${TIMES:-1000}" REQUIRE_ALL=1 \
    .ci/test tests --quiet --nocapture feasibility_agrees_with_kube_scheduler \
    > "$log" 2>&1 || status=$?
cat "$log"
python3 - "$log" "$status" <<'EOF'
import json, re, sys
text = open(sys.argv[1]).read()
found = re.search(r"(\d+) bound, (\d+) refused, (\d+) disagreements", text)
keys = ("bound", "refused", "disagreements")
table = dict(zip(keys, map(int, found.groups()))) if found else {}
table["holds"] = sys.argv[2] == "0" and bool(found)
json.dump(table, open("target/show/packing-4.json", "w"), indent=1)
EOF
exit $status

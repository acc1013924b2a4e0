#!/usr/bin/env bash
# Packing, line 5: churn, MIG and speed tables. SEED changes the streams.
set -euo pipefail
cd "$(dirname "$0")/../.."
mkdir -p target/show
cargo build --quiet --release -p benches
status=0
for table in churn mig speed; do
    echo "== $table"
    target/release/packshow --seed "${SEED:-1}" --out "target/show/packing-5-$table.json" "$table" ||
        status=1
done
python3 - <<'EOF'
import json
tables = {t: json.load(open(f"target/show/packing-5-{t}.json")) for t in ("churn", "mig", "speed")}
json.dump(tables, open("target/show/packing-5.json", "w"), indent=1)
EOF
exit $status

#!/usr/bin/env bash
# Packing, line 1: the packbench table with its baselines. TRACES=DIR runs another folder, SEED the
# arrivals of traces that come without a sequence.
set -euo pipefail
cd "$(dirname "$0")/../.."
mkdir -p target/show
traces="${TRACES:-../shared/data/openb}"
if [ ! -d "$traces" ]; then
    echo "skipped: $traces absent (TRACES=DIR names a folder with csv/ and arrival_sequences/)"
    exit 0
fi
cargo build --quiet --release -p benches
exec target/release/packbench --traces "$traces" --seed "${SEED:-42}" --out target/show/packing-1.json

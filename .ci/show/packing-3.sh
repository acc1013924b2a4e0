#!/usr/bin/env bash
# Packing, line 3: joint placement against the optimum on all tiny clusters.
set -euo pipefail
cd "$(dirname "$0")/../.."
mkdir -p target/show
cargo build --quiet --release -p benches
exec target/release/packshow --out target/show/packing-3.json optimum

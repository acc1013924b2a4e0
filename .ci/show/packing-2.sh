#!/usr/bin/env bash
# Packing, line 2: every reachable MIG mask of every model against brute force over the placement list.
set -euo pipefail
cd "$(dirname "$0")/../.."
mkdir -p target/show
cargo build --quiet --release -p benches
exec target/release/packshow --out target/show/packing-2.json mig-masks

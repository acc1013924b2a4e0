#!/usr/bin/env bash
# Path, line 5: what kubectl prints of a live cluster goes through `plan -f` and its JSON validates
# against the committed schema; every GPU pod occurs exactly once.
set -euo pipefail
cd "$(dirname "$0")/../.."
mkdir -p target/show
tests/cluster/install-deps.sh
tests/cluster/build.sh
cargo build --quiet -p gpu-autoscaler -p tests
exec python3 .ci/show/path-5.py "${SEED:-1}"

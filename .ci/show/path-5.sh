#!/usr/bin/env bash
# Path, line 5: what kubectl prints of a live cluster goes through `plan -f`, its JSON validates
# against the committed schema, and every GPU pod occurs in it exactly once. SEED draws the cluster.
set -euo pipefail
cd "$(dirname "$0")/../.."
mkdir -p target/show
tests/cluster/install-deps.sh
tests/cluster/build.sh
cargo build --quiet --workspace --bin gpu-autoscaler --bin fleet
venv=target/show/venv
if ! "$venv/bin/python" -c 'import jsonschema' 2>/dev/null; then
  python3 -m venv "$venv"
  "$venv/bin/pip" install --quiet --disable-pip-version-check 'jsonschema==4.26.0'
fi
exec "$venv/bin/python" .ci/show/path-5.py "${SEED:-1}"

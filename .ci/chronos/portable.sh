#!/bin/bash
# The half of `os` for systems other than Linux, run on Linux: the tests of the other half but
# those of what only Linux has. SEED= and TIMES= as for those.
#
# What it builds has other features than the workspace, so it lies in a folder of its own.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
cd "$root"
exec cargo test --locked -p chronos --features portable --lib --test it \
    --target-dir "${CARGO_TARGET_DIR:-$root/target}/portable" -- "$@"

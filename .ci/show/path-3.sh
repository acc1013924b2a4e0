#!/usr/bin/env bash
# Path, line 3: on a real control plane with 20 kwok GPU nodes, 80 pods and a real Prometheus that
# scrapes exporters following the simulator's curves, the findings are the truth, which was written
# before the controller started and is compared by a script of its own.
#
# SEED draws the cluster. The windows are shorter than published, so that it takes 5 minutes;
# PUBLISHED=1 takes the published ones and 14 minutes.
set -euo pipefail
cd "$(dirname "$0")/../.."
tests/cluster/install-deps.sh
tests/cluster/build.sh
cargo build --quiet --workspace --bin gpu-autoscaler --bin gpu-autoscaler-controller --bin fleet
exec python3 .ci/show/path-3.py "${SEED:-1}"

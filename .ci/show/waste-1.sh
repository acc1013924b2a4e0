#!/usr/bin/env bash
# Waste, line 1: on a real control plane with 100 kwok nodes (mixed models, MIG, time-sliced), 400
# pods and a real Prometheus, the findings are the truth, by the comparison of path-3: idle,
# underutilized, memory held, spare GPUs, stuck pods, throttled and sick devices; and every sum of
# savings that `optimize` and `report` print of one judgement is the same, to the nano-unit.
#
# SEED draws the cluster; NODES and PODS make it smaller. PUBLISHED=1 takes the published windows.
set -euo pipefail
cd "$(dirname "$0")/../.."
tests/cluster/install-deps.sh
tests/cluster/build.sh
cargo build --quiet --workspace --bin gpu-autoscaler --bin gpu-autoscaler-controller --bin fleet
export SHOW=waste-1 NODES="${NODES:-100}" PODS="${PODS:-400}"
exec python3 .ci/show/path-3.py "${SEED:-1}"

#!/usr/bin/env bash
# Waste, line 1: on a real control plane with 100 kwok nodes (mixed models, MIG, time-sliced, some
# not measured), 400 pods and a real Prometheus, the findings are the truth, which the simulator
# wrote before the controller started and a script of its own compares: idle, underutilized, memory
# held, spare GPUs, stuck pods, throttled and sick devices. `optimize` and `report` agree.
#
# SEED draws the cluster. The windows are shorter than published, so that it takes 6 minutes;
# PUBLISHED=1 takes the published ones and 15 minutes.
set -euo pipefail
cd "$(dirname "$0")/../.."
tests/cluster/install-deps.sh
tests/cluster/build.sh
cargo build --quiet --workspace --bins
exec python3 .ci/show/path-3.py "${SEED:-1}" waste-1 100 400

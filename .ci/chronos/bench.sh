#!/bin/bash
# The measured table, on fake GPUs: what the tool itself costs. TIMES is the number of samples.
# RIVALS=1 also measures PyPI's chronos-gpu, nvitop and gpustat, in a virtual environment.
set -euo pipefail
. "$(dirname "$0")/place.sh"
build release
export CHRONOS_FAKE_GPUS="count=8,memory=80GiB"
python3 "$root/.ci/chronos/bench.py" "$tool" "$place" "${TIMES:-200}" "$results/chronos-6.json" "${RIVALS:-0}"

#!/usr/bin/env bash
# Waste, line 2: every fault of the controller is injected on the test control plane, in an order
# that SEED chooses, the full disk first; /readyz, a metric and the condition of a policy tell of it, and are well again
# after it. The API server stays dead for DOWN_SECS (60).
set -euo pipefail
cd "$(dirname "$0")/../.."
export DOWN_SECS=${DOWN_SECS:-60} SEED=${SEED:-1}
exec .ci/show/run-tests waste-2 faults::

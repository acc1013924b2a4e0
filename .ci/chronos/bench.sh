#!/bin/bash
# The measured table, on fake GPUs: what the tool itself costs, beside others on the same machine in
# the same run. TIMES is the number of samples a round, ROUNDS the number of rounds; a limit is
# compared with the median over the rounds. RIVALS=0 leaves the others out.
set -euo pipefail
. "$(dirname "$0")/place.sh"
build release
export CHRONOS_FAKE_GPUS="count=8,memory=80GiB"
# Live state is in memory, as it is in /run.
if [ "$(stat -f -c %T /dev/shm 2>/dev/null)" = tmpfs ]; then
    memory=$(mktemp -d /dev/shm/chronos-XXXXXX)
    chmod 755 "$memory"
    export CHRONOS_RUNTIME_DIR="$memory/run"
fi
if [ "${RIVALS:-1}" = 1 ]; then
    bash "$root/.ci/chronos/rivals/install.sh" "${CARGO_TARGET_DIR:-$root/target}/rivals"
fi
python3 "$root/.ci/chronos/bench.py" "$tool" "$results/chronos-6.json" \
    --times "${TIMES:-100}" --rounds "${ROUNDS:-5}" \
    --rivals "$([ "${RIVALS:-1}" = 1 ] && echo "${CARGO_TARGET_DIR:-$root/target}/rivals")"

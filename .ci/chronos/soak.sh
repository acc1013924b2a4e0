#!/bin/bash
# Soak: TIMES random kill points of the model on its virtual clock, then SECS seconds of real
# processes. The defaults are a million kill points and one hour.
set -euo pipefail
. "$(dirname "$0")/place.sh"
cd "$root"
SEED=${SEED:-1} TIMES=${TIMES:-1000000} \
    cargo test --quiet --release -p chronos --test it -- --nocapture model:: | grep '^model: '
build dev
export CHRONOS_FAKE_GPUS="count=4,memory=80GiB,checkpoint=yes"
python3 "$root/.ci/chronos/soak.py" "$tool" "${SECS:-3600}" "${SEED:-1}"

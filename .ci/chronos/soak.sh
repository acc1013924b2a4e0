#!/bin/bash
# Soak: TIMES random kill points of the model (a million), HOURS of its virtual clock on one machine
# that is never restarted (a day), then SECS seconds of real processes (an hour). SEED repeats it.
set -euo pipefail
. "$(dirname "$0")/place.sh"
cd "$root"
export SEED=${SEED:-1} TIMES=${TIMES:-1000000} HOURS=${HOURS:-24}
# The profile of the tests, so that nothing is built a second time.
.ci/test chronos --quiet --nocapture model:: 2>&1 | tee "$place/model.log" |
    grep -E '(model|day): |violation|panicked|test result' || true
grep -q '^test result: ok' "$place/model.log"
build dev
export CHRONOS_FAKE_GPUS="count=4,memory=80GiB,checkpoint=yes"
python3 "$root/.ci/chronos/soak.py" "$tool" "${SECS:-3600}" "$SEED" | tee "$place/real.log"
{ grep -oE '(model|day): seed=.*' "$place/model.log"; cat "$place/real.log"; } > "$results/soak-chronos.txt"

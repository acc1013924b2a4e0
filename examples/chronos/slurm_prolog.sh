#!/bin/sh
# Slurm prolog: takes the GPUs of a job in Chronos as well, so that users outside Slurm see them.
# The epilog releases what it finds under the job's name:
#   chronos list --json | jq -r '.items[] | select(.name == "slurm-'$SLURM_JOB_ID'").id' |
#       xargs -r -n 1 chronos release
set -eu
gpus=${SLURM_JOB_GPUS:-}
[ -n "$gpus" ] || exit 0
exec chronos create --gpus "$gpus" --mem 100% --for "${SLURM_TIMELIMIT_SECS:-86400}" \
    --user "${SLURM_JOB_USER:?}" --name "slurm-${SLURM_JOB_ID:?}" --on-expire notify

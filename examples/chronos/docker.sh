#!/bin/sh
# A container in a partition: it gets the GPUs of the lease and is stopped with it.
#   docker.sh IMAGE COMMAND...
# The container is not a child of this script, so that the trap stops it at the deadline.
set -eu
image=$1
shift
exec chronos run --any --mem 50% --for 1h --grace 30s -- sh -c '
    container=$(docker run --detach --env CUDA_VISIBLE_DEVICES --env CHRONOS_LEASE \
        --device "nvidia.com/gpu=$CHRONOS_GPUS" "$@")
    trap "docker stop --time 25 $container" TERM INT
    docker wait "$container" & wait $!' sh "$image" "$@"

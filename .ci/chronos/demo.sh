#!/bin/sh
# Two users, three jobs, one queue, an expiry that kills a tree which ignores SIGTERM, a job that
# is suspended and resumed: on fake GPUs, without a terminal, in less than a minute.
. "$(dirname "$0")/place.sh"
build dev
export CHRONOS_FAKE_GPUS="count=1,memory=80GiB,checkpoint=yes"
say() { printf '\n== %s\n' "$*"; }

if [ "$(id -u)" = 0 ]; then
    "$tool" helper & helper=$!
    until [ -S "$place/run/helper.sock" ]; do :; done
    ann() { setpriv --reuid daemon --regid daemon --clear-groups "$tool" "$@"; }
    bob() { setpriv --reuid games --regid games --clear-groups "$tool" "$@"; }
    ann_name=daemon bob_name=games
else
    echo "not root: both users of the demonstration are you"
    ann() { "$tool" "$@"; }
    bob() { "$tool" "$@"; }
    ann_name=$(id -un) bob_name=$ann_name
fi
chmod 1777 "$place"

say "the first user ($ann_name) trains on 60% of the GPU for 4 s; the job ignores SIGTERM"
ann run --mem 60% --for 4s --grace 1s -- sh -c "trap '' TERM
    setsid sh -c 'trap \"\" TERM; echo \$\$ > $place/stray; while :; do read x < /dev/zero || sleep 60; done' &
    wait" & first=$!
until "$tool" list | grep -q "$ann_name"; do :; done

say "the second user ($bob_name) wants 60% as well and waits in the queue"
bob run --mem 60% --for 60s --wait=30s -- sh -c "
    echo 'job 2 has its turn on GPU '\$CUDA_VISIBLE_DEVICES
    while [ ! -e $place/enough ]; do echo step >> $place/progress; done" & second=$!
until "$tool" queue | grep -q normal; do :; done
"$tool" queue
"$tool" suggest --mem 60%
"$tool" list

say "the deadline passes: SIGTERM, a second of grace, SIGKILL to the whole tree"
code=0; wait "$first" || code=$?
echo "the first job ended with exit code $code (137: expired and killed)"
[ "$code" = 137 ]
stray=$(cat "$place/stray")
until ! kill -0 "$stray" 2>/dev/null; do :; done
echo "its child, which had left the session and ignored SIGTERM, is gone as well"

say "the second job runs; it is suspended for a third one that needs 90%"
until [ -s "$place/progress" ]; do :; done
id=$("$tool" list --json | grep -o 'partition_[0-9_]*' | head -n 1)
bob suspend "$id"
steps() { wc -l < "$place/progress"; }
before=$(steps)
ann run --mem 90% --for 10s -- sh -c 'echo "job 3 computes on "$CHRONOS_MEMORY_BYTES" bytes"'
[ "$before" = "$(steps)" ]
bob resume "$id"
until [ "$(steps)" -gt "$before" ]; do :; done
echo "it stood still at step $before and went on: now at step $(steps)"
: > "$place/enough"
code=0; wait "$second" || code=$?
echo "the second job ended with exit code $code"
[ "$code" = 0 ]

say "what was used"
"$tool" stats --since 1h | tail -n 3
until [ "$("$tool" list)" = "No active partitions" ]; do :; done
echo "nothing is left"

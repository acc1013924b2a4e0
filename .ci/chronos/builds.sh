#!/bin/bash
# Which builds of Chronos see NVIDIA GPUs: dynamic, static with glibc, static with musl, each on
# this machine with a library that has the functions of NVML. A static one has to refuse, and
# `doctor` to say which build can. Needs a C compiler and `rustup target add` of the musl target.
set -euo pipefail
. "$(dirname "$0")/place.sh"
machine=$(uname -m)
double=$place/libnvidia-ml.so.1
cc -shared -fPIC -o "$double" "$root/crates/chronos/tests/doubles/nvml.c"
export CHRONOS_BACKEND=nvidia CHRONOS_NVML=$double
failed=0

compile() { # KIND TARGET FLAGS
    RUSTFLAGS=$3 cargo build --quiet --manifest-path "$root/Cargo.toml" -p chronos \
        --target "$machine-unknown-linux-$2" \
        --target-dir "${CARGO_TARGET_DIR:-$root/target}/cross"
    built=${CARGO_TARGET_DIR:-$root/target}/cross/$machine-unknown-linux-$2/debug/chronos
    cp "$built" "$place/chronos-$1"
}

row() { # KIND EXPECTED
    local code=0 found gpus
    gpus=$("$place/chronos-$1" stats --json 2> "$place/errors" | grep -o '"kind":"Gpu"' | wc -l) ||
        code=$?
    "$place/chronos-$1" doctor > "$place/doctor" 2>&1 || :
    if [ "$gpus" = 2 ] && ! grep -q ' driver: ' "$place/doctor"; then
        found=sees
    elif grep -q 'this build is static' "$place/errors" && grep -q ' driver: ' "$place/doctor"; then
        found=refuses
    else
        found="exit $code: $(head -n 1 "$place/errors")"
    fi
    printf '%-14s %s\n' "$1" "$found"
    [ "$found" = "$2" ] || failed=1
}

compile dynamic gnu ''
compile static-glibc gnu '-C target-feature=+crt-static'
compile static-musl musl ''
row dynamic sees
row static-glibc refuses
row static-musl refuses
grep ' driver: ' "$place/doctor"
exit "$failed"

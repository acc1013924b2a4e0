#!/bin/bash
# Links the tool for 64-bit ARM and runs the demonstration with it, by emulation of user mode.
# QEMU 7.2 shows a process its own start a tick or two later than the kernel shows it to others. Who
# suspends a job is then taken for gone by the guardian, which lets the job run, as it should: about
# every third run ends there with 69, `cannot be suspended`.
# Needs root, gcc-aarch64-linux-gnu, qemu-user-static, `rustup target add` of both targets.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
folder=${CARGO_TARGET_DIR:-$root/target}/cross
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_MUSL_LINKER=aarch64-linux-gnu-gcc
for target in ${TARGETS:-aarch64-unknown-linux-musl}; do
    cargo build --quiet --manifest-path "$root/Cargo.toml" --target "$target" \
        --target-dir "$folder" -p chronos
    export TOOL=$folder/$target/debug/chronos QEMU_LD_PREFIX=/usr/aarch64-linux-gnu
    printf '\n== %s: ' "$target" && file --brief "$TOOL"
    sh "$root/.ci/chronos/foreign.sh" sh "$root/.ci/chronos/demo.sh"
done

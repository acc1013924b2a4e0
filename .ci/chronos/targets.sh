#!/bin/bash
# Which targets Chronos compiles for: the whole on Linux, what decides elsewhere. Targets whose
# standard library is not installed (`rustup target add NAME`) are named and left out.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
folder=${CARGO_TARGET_DIR:-$root/target}/cross
installed=$(rustup target list --installed)
failed=0
check() { # NAME WHAT PACKAGES...
    local name=$1 what=$2
    shift 2
    if ! grep -qx "$name" <<< "$installed"; then
        printf '%-28s %-12s %s\n' "$name" "$what" "not installed"
    elif cargo check --quiet --manifest-path "$root/Cargo.toml" --target "$name" \
        --target-dir "$folder" "$@"; then
        printf '%-28s %-12s %s\n' "$name" "$what" compiles
    else
        printf '%-28s %-12s %s\n' "$name" "$what" FAILS
        failed=1
    fi
}
for name in x86_64-unknown-linux-{gnu,musl} aarch64-unknown-linux-{gnu,musl}; do
    check "$name" everything -p chronos -p chronos-c
done
for name in x86_64-unknown-freebsd x86_64-apple-darwin x86_64-pc-windows-gnu; do
    check "$name" "what decides" -p chronos --lib
done
exit "$failed"

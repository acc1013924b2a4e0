#!/bin/bash
# Which targets Chronos compiles for. Targets whose standard library is not installed
# (`rustup target add NAME`) are named and left out.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
folder=${CARGO_TARGET_DIR:-$root/target}/cross
installed=$(rustup target list --installed)
failed=0
check() { # NAME HALF
    if ! grep -qx "$1" <<< "$installed"; then
        printf '%-28s %-10s %s\n' "$1" "$2" "not installed"
    elif cargo check --quiet --manifest-path "$root/Cargo.toml" --target "$1" \
        --target-dir "$folder" -p chronos -p chronos-c; then
        printf '%-28s %-10s %s\n' "$1" "$2" compiles
    else
        printf '%-28s %-10s %s\n' "$1" "$2" FAILS
        failed=1
    fi
}
for name in x86_64-unknown-linux-{gnu,musl} aarch64-unknown-linux-{gnu,musl}; do
    check "$name" linux
done
for name in x86_64-unknown-freebsd {aarch64,x86_64}-apple-darwin x86_64-pc-windows-gnu; do
    check "$name" portable
done
exit "$failed"

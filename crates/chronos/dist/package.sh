#!/bin/sh
# Makes the archive that install.sh installs, from a release build: package.sh OUT_DIR
set -eu
root=$(cd "$(dirname "$0")/../../.." && pwd)
out=${1:?package.sh OUT_DIR}
target=${CARGO_TARGET_DIR:-$root/target}/release
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp "$target/chronos" "$work/"
cp "$target/libchronos_c.so" "$work/libchronos.so"
cp "$root/bindings/c/include/chronos/chronos_c.h" "$root/bindings/cpp/include/chronos/chronos.hpp" "$work/"
mkdir -p "$out"
archive=chronos-linux-$(uname -m).tar.gz
tar -C "$work" -czf "$out/$archive" chronos libchronos.so chronos_c.h chronos.hpp
(cd "$out" && sha256sum "$archive" > SHA256SUMS)
wheel=$(CHRONOS_WHEEL_LIBRARY=$target/libchronos_c.so CHRONOS_WHEEL_TOOL=$target/chronos \
    python3 "$root/bindings/python/backend.py" "$out")
(cd "$out" && sha256sum "$wheel" >> SHA256SUMS)
echo "$out/$archive"
echo "$out/$wheel"

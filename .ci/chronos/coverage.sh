#!/bin/bash
# Line coverage of the crate by its own tests and those of the libraries, every process that they
# start included, also the killed ones: counters lie in mapped files. Prints the lines of each file
# that were never run where SHOW=1. Needs `rustup component add llvm-tools`.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
cd "$root"
target=${CARGO_TARGET_DIR:-$root/target}
tools=$(rustc --print sysroot)/lib/rustlib/$(rustc -vV | sed -n 's/^host: //p')/bin
if [ ! -x "$tools/llvm-cov" ]; then
    echo "no llvm-cov: rustup component add llvm-tools" >&2
    exit 1
fi
profiles=$target/coverage
rm -rf "$profiles"
mkdir -p "$profiles" "$target/show"
# Only our own packages are instrumented; what they depend on is built once for everything.
export RUSTC_WORKSPACE_WRAPPER=$root/.ci/chronos/coverage-rustc
export LLVM_PROFILE_FILE=$profiles/%m%c.profraw
cargo build --quiet -p chronos
"$target/debug/chronos" version > /dev/null
# Tests run the tool as other users, which count in the same file.
chmod 1777 "$profiles"
chmod 666 "$profiles"/*.profraw
cargo test --quiet -p chronos -p chronos-c 2>&1 | grep -E '^(test |running |skipped)|panicked' || true
# What a process without an environment wrote where it stood.
find "$root" -maxdepth 3 -name 'default_*.profraw' -delete
executables=$(cargo test --no-run -p chronos -p chronos-c --message-format json 2>/dev/null |
    sed -nE 's/.*"executable":"([^"]+)".*/\1/p')
"$tools/llvm-profdata" merge --sparse "$profiles"/*.profraw -o "$profiles/all.profdata"
# One report for each program: asked for together, llvm-cov takes functions of the library from one.
number=0
for object in $executables "$target/debug/chronos" "$target"/debug/libchronos.so; do
    [ -e "$object" ] || continue
    number=$((number + 1))
    "$tools/llvm-cov" export --format=lcov --instr-profile "$profiles/all.profdata" \
        "$object" --sources crates/chronos/src \
        > "$profiles/$number.info" 2>> "$profiles/llvm-cov.log"
done
python3 .ci/chronos/coverage.py "$profiles" "$target/show/coverage-chronos.json" "${SHOW:-0}"

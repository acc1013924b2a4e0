#!/bin/bash
# Builds the tool for Windows and runs it under Wine: windows.py says what it has to do.
#
# Installs what is missing, as root: the target of Rust, and Debian's gcc-mingw-w64-x86-64 and wine64.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
cd "$root"
target=x86_64-pc-windows-gnu
folder=${CARGO_TARGET_DIR:-$root/target}/cross
rustup target list --installed | grep -qx "$target" || rustup target add "$target"
lacking=()
command -v x86_64-w64-mingw32-gcc > /dev/null || lacking+=(gcc-mingw-w64-x86-64)
command -v wine > /dev/null || lacking+=(wine wine64)
if [ ${#lacking[@]} -gt 0 ]; then
    if [ "$(id -u)" != 0 ] || ! command -v apt-get > /dev/null; then
        echo "windows.sh: ${lacking[*]} not here; hint: as root, apt-get install ${lacking[*]}" >&2
        exit 1
    fi
    DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${lacking[@]}" >&2
fi
cargo build --locked --target "$target" --target-dir "$folder" -p chronos --bin chronos
programs=$folder/$target/debug
# Wine before 8.15 lacks the library that Rust takes random numbers from, of one function.
cat > "$folder/random.c" <<'C'
#include <windows.h>
#include <ntsecapi.h>
__declspec(dllexport) BOOL WINAPI ProcessPrng(PBYTE out, SIZE_T length) {
    return RtlGenRandom(out, (ULONG)length);
}
C
x86_64-w64-mingw32-gcc -shared -O1 -o "$programs/bcryptprimitives.dll" "$folder/random.c" -ladvapi32
exec python3 .ci/chronos/windows.py "$programs/chronos.exe"

#!/bin/bash
# chronos-gpu, nvitop and gpustat from PyPI in a virtual environment in $1, and beside it the two
# libraries that they need to do anything where there is no GPU. What cannot be had is said in
# $1/NAME.missing; the measurement goes on without it.
set -euo pipefail
rivals=$1
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$rivals/lib"
[ -x "$rivals/venv/bin/python" ] || python3 -m venv "$rivals/venv"
cc -shared -fPIC -O1 -o "$rivals/lib/libnvidia-ml.so.1" "$here/../../../crates/chronos/tests/doubles/nvml.c"
printf 'OPENCL_1.0 { global: cl*; };\n' > "$rivals/lib/opencl.map"
cc -shared -fPIC -O1 -Wl,--version-script="$rivals/lib/opencl.map" -Wl,-soname,libOpenCL.so.1 \
    -o "$rivals/lib/libOpenCL.so.1" "$here/opencl.c"

get() {
    # $1: package; the rest: options of pip
    rm -f "$rivals/$1.missing"
    "$rivals/venv/bin/pip" install --quiet --disable-pip-version-check "${@:2}" "$1" \
        > "$rivals/$1.log" 2>&1 || tail -n 1 "$rivals/$1.log" > "$rivals/$1.missing"
}
opens() {
    LD_LIBRARY_PATH="$rivals/lib" "$rivals/venv/bin/python" \
        -c 'import chronos; chronos.Partitioner()' > /dev/null 2>"$rivals/chronos-gpu.log"
}
get gpustat
get nvitop
get chronos-gpu
# Its wheel is built for one C library; elsewhere it is built from its source, which needs cmake
# and the headers of OpenCL.
opens || get chronos-gpu --force-reinstall --no-deps --no-binary chronos-gpu
opens || grep -m 1 'ChronosStubError' "$rivals/chronos-gpu.log" > "$rivals/chronos-gpu.missing"

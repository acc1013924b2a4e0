# State of its own for one script, ended when the script ends. Sourced, with `tool` set to a built
# `chronos` that every user can execute.
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
place=$(mktemp -d "${TMPDIR:-/tmp}/chronos-XXXXXX")
chmod 755 "$place"
results=${CARGO_TARGET_DIR:-$root/target}/show
mkdir -p "$results"
export CHRONOS_BACKEND=fake CHRONOS_RUNTIME_DIR="$place/run" CHRONOS_STATE_DIR="$place/state"
export CHRONOS_POLICY="$place/policy.yaml"
unset CHRONOS_LEASE XDG_RUNTIME_DIR || true

build() {
    # $1: dev or release; TOOL is one that is built already
    if [ -n "${TOOL:-}" ]; then
        built=$TOOL
    elif [ "$1" = release ]; then
        cargo build --quiet --release -p chronos --manifest-path "$root/Cargo.toml"
        built=${CARGO_TARGET_DIR:-$root/target}/release/chronos
    else
        # The features of the whole workspace, as tests have them, so that nothing is built twice.
        cargo build --quiet --workspace --bin chronos --manifest-path "$root/Cargo.toml"
        built=${CARGO_TARGET_DIR:-$root/target}/debug/chronos
    fi
    cp "$built" "$place/chronos"
    tool=$place/chronos
}

finish() {
    status=$?
    # Nothing left to release is no failure of the script, and the rest has to be cleared all the same.
    set +e
    if [ -n "${tool:-}" ]; then
        CHRONOS_PROGRAM=/bin/true "$tool" list --json 2>/dev/null |
            grep -o '"id":"[A-Za-z0-9_]*"' | cut -d'"' -f4 |
            while read -r id; do "$tool" release --force "$id" >/dev/null 2>&1; done
    fi
    [ -z "${helper:-}" ] || kill "$helper" 2>/dev/null
    rm -rf "$place" ${memory:+"$memory"}
    exit "$status"
}
trap finish EXIT

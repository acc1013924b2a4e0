#!/usr/bin/env bash
# Installs the command line `gpu-autoscaler`, after its checksum was compared.
#
#   curl -sSL https://gpuautoscaler.io/install.sh | bash
#   bash install.sh --version 1.2.3
#
# INSTALL_DIR             where to put it (default: /usr/local/bin, else ~/.local/bin)
# GPU_AUTOSCALER_RELEASE  folder or https:// address of a release (default: the published one)
#
# A release holds gpu-autoscaler-SYSTEM-MACHINE.tar.gz and checksums.txt. Nothing is written before
# the checksum holds; what is there already is replaced by rename.
set -euo pipefail

fail() { echo "install.sh: $1" >&2; exit 1; }

# All of it is read before any of it runs: a connection that breaks must not run half a script.
main() {
    local version=latest from=${GPU_AUTOSCALER_RELEASE:-} into=${INSTALL_DIR:-}
    while [ $# -gt 0 ]; do
        case $1 in
        --version) version=${2:?--version needs a number}; shift 2 ;;
        *) echo "install.sh: argument \`$1\` is not known" >&2; exit 2 ;;
        esac
    done
    local releases=https://github.com/gpuautoscaler/gpuautoscaler/releases
    if [ -z "$from" ] && [ "$version" = latest ]; then
        from=$releases/latest/download
    elif [ -z "$from" ]; then
        from=$releases/download/v${version#v}
    fi
    local system machine
    case $(uname -s) in
    Linux) system=linux ;;
    Darwin) system=darwin ;;
    *) fail "no release for $(uname -s): build it with \`cargo build --release -p gpu-autoscaler\`" ;;
    esac
    case $(uname -m) in
    x86_64 | amd64) machine=x86_64 ;;
    aarch64 | arm64) machine=aarch64 ;;
    *) fail "no release for $(uname -m): build it with \`cargo build --release -p gpu-autoscaler\`" ;;
    esac
    local archive=gpu-autoscaler-$system-$machine.tar.gz
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    get "$from" checksums.txt
    get "$from" "$archive"
    check "$archive"
    tar -xzf "$work/$archive" -C "$work" gpu-autoscaler || fail "$archive holds no gpu-autoscaler"
    if [ -z "$into" ]; then
        into=/usr/local/bin
        [ -w "$into" ] || into=$HOME/.local/bin
    fi
    mkdir -p "$into"
    cp "$work/gpu-autoscaler" "$into/gpu-autoscaler.new"
    chmod 755 "$into/gpu-autoscaler.new"
    mv -f "$into/gpu-autoscaler.new" "$into/gpu-autoscaler"
    "$into/gpu-autoscaler" version
    echo "installed as $into/gpu-autoscaler; next: gpu-autoscaler doctor"
    case :$PATH: in
    *:"$into":*) ;;
    *) echo "note: $into is not in PATH" ;;
    esac
}

get() {
    case $1 in
    https://*) curl --fail --silent --show-error --location --proto '=https' \
        --output "$work/$2" "$1/$2" || fail "cannot download $1/$2" ;;
    *://*) fail "only https:// and folders are trusted, not $1" ;;
    *) cp "$1/$2" "$work/$2" || fail "no $2 in $1" ;;
    esac
}

check() {
    local expected actual
    expected=$(awk -v name="$1" '$2 == name || $2 == "*" name {print $1}' "$work/checksums.txt")
    [ -n "$expected" ] || fail "checksums.txt does not name $1"
    if command -v sha256sum > /dev/null; then
        actual=$(sha256sum "$work/$1" | cut -d' ' -f1)
    else
        actual=$(shasum -a 256 "$work/$1" | cut -d' ' -f1)
    fi
    [ "$expected" = "$actual" ] || fail "checksum of $1 is $actual, checksums.txt says $expected"
}

main "$@"

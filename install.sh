#!/usr/bin/env bash
# Installs `gpu-autoscaler` or `chronos` from a release, after its checksum was compared.
#
#   curl -sSL https://gpuautoscaler.io/install.sh | bash
#   curl -sSL https://gpuautoscaler.io/install.sh | bash -s -- chronos
#   bash install.sh [gpu-autoscaler|chronos] [--version 1.2.3] [--from RELEASE] [--prefix DIR]
#
# --version    a published release (default: the latest)
# --from       folder or https:// address of a release (default: the published one)
# --prefix     where bin, lib, include and share are (default: /usr/local, else ~/.local)
# INSTALL_DIR  folder for the program; nothing but the program is installed then
#
# A release holds NAME-linux-MACHINE.tar.gz with the tree of a prefix, and checksums.txt. Nothing is
# written before the checksum holds. A program that is there already is replaced, by rename, by one
# that was seen to run.
set -euo pipefail

fail() { echo "install.sh: $1" >&2; exit 1; }
misused() { echo "install.sh: $1" >&2; exit 2; }

# All of it is read before any of it runs: a connection that breaks must not run half a script.
main() {
    local name=gpu-autoscaler version=latest from= prefix=
    while [ $# -gt 0 ]; do
        case $1 in
        gpu-autoscaler | chronos) name=$1; shift; continue ;;
        --version | --from | --prefix) [ -n "${2:-}" ] || misused "$1 needs a value" ;;
        *) misused "argument \`$1\` is not known" ;;
        esac
        case $1 in
        --version) version=${2#v} ;;
        --from) from=$2 ;;
        --prefix) prefix=$2 ;;
        esac
        shift 2
    done
    [ -z "$prefix" ] || [ -z "${INSTALL_DIR:-}" ] ||
        misused "--prefix and INSTALL_DIR are both given"
    local releases=https://github.com/gpuautoscaler/gpuautoscaler/releases
    if [ -n "$from" ]; then
        [ "$version" = latest ] || misused "--from names a release already, --version another"
    elif [ "$version" = latest ]; then
        from=$releases/latest/download
    else
        from=$releases/download/v$version
    fi
    local machine
    machine=$(uname -m)
    case $(uname -s)-$machine in
    Linux-x86_64 | Linux-amd64) machine=x86_64 ;;
    Linux-aarch64 | Linux-arm64) machine=aarch64 ;;
    *) fail "no release for $(uname -s) on $machine: try \`cargo build --release -p $name\`" ;;
    esac

    local archive=$name-linux-$machine.tar.gz
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    get "$from" checksums.txt
    get "$from" "$archive"
    check "$archive"
    mkdir "$work/tree"
    tar -xzf "$work/$archive" -C "$work/tree"
    [ -f "$work/tree/bin/$name" ] || fail "$archive holds no bin/$name"

    local into=${INSTALL_DIR:-}
    if [ -z "$into" ]; then
        if [ -z "$prefix" ]; then
            prefix=/usr/local
            [ -w /usr/local/bin ] || prefix=$HOME/.local
        fi
        into=$prefix/bin
    fi
    put "$work/tree/bin/$name" "$into/$name" 755
    [ -n "${INSTALL_DIR:-}" ] || put_rest "$prefix"
    echo "installed as $into/$name; next: $name doctor"
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
    actual=$(sha256sum "$work/$1" | cut -d' ' -f1)
    [ "$expected" = "$actual" ] || fail "checksum of $1 is $actual, checksums.txt says $expected"
}

# put FILE PLACE MODE: a program is run once beside its place, and takes it when it can run.
put() {
    mkdir -p "$(dirname "$2")"
    cp "$1" "$2.new"
    chmod "$3" "$2.new"
    if [ "$3" = 755 ] && ! "$2.new" --version; then
        rm -f "$2.new"
        fail "${1##*/} does not run on this machine: a release needs glibc 2.17 or newer"
    fi
    mv -f "$2.new" "$2"
}

# Libraries, headers, completions and documents: all of the tree but its programs.
put_rest() {
    local file
    while IFS= read -r file; do
        put "$work/tree/$file" "$1/$file" 644
    done < <(cd "$work/tree" && find . -type f ! -path './bin/*' | sed 's,^\./,,')
}

main "$@"

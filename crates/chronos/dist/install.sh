#!/bin/sh
# Installs chronos from a release folder or URL, after its checksum was compared.
#
#   install.sh [--prefix DIR] [--from DIR_OR_URL]
#
# The source holds chronos-LINUX_MACHINE.tar.gz and SHA256SUMS. Nothing is written before the
# checksum holds; what is there already is replaced by rename.
set -eu
prefix=/usr/local from=
while [ $# -gt 0 ]; do
    case $1 in
    --prefix) prefix=$2; shift 2 ;;
    --from) from=$2; shift 2 ;;
    *) echo "install.sh: argument \`$1\` is not known" >&2; exit 2 ;;
    esac
done
[ -n "$from" ] || { echo "install.sh: --from names a release folder or URL" >&2; exit 2; }
[ "$(uname -s)" = Linux ] || { echo "install.sh: only Linux is released; build from source elsewhere" >&2; exit 1; }
archive=chronos-linux-$(uname -m).tar.gz
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
get() {
    case $from in
    https://*) curl --fail --silent --show-error --location --proto '=https' --output "$work/$1" "$from/$1" ;;
    *://*) echo "install.sh: only https:// and folders are trusted" >&2; exit 1 ;;
    *) cp "$from/$1" "$work/$1" ;;
    esac
}
get SHA256SUMS
get "$archive"
cd "$work"
expected=$(awk -v name="$archive" '$2 == name || $2 == "*" name {print $1}' SHA256SUMS)
[ -n "$expected" ] || { echo "install.sh: SHA256SUMS does not name $archive" >&2; exit 1; }
actual=$(sha256sum "$archive" | cut -d' ' -f1)
if [ "$expected" != "$actual" ]; then
    echo "install.sh: checksum of $archive is $actual, SHA256SUMS says $expected" >&2
    exit 1
fi
tar -xzf "$archive"
put() {
    mkdir -p "$(dirname "$2")"
    cp "$1" "$2.new"
    chmod "$3" "$2.new"
    mv -f "$2.new" "$2"
}
put chronos "$prefix/bin/chronos" 755
[ ! -e libchronos.so ] || put libchronos.so "$prefix/lib/libchronos.so" 644
[ ! -e chronos_c.h ] || put chronos_c.h "$prefix/include/chronos/chronos_c.h" 644
[ ! -e chronos.hpp ] || put chronos.hpp "$prefix/include/chronos/chronos.hpp" 644
"$prefix/bin/chronos" version

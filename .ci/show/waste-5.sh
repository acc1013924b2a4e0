#!/usr/bin/env bash
# Waste, line 5: the image is written without Docker, unpacked by tools that know nothing of it, and
# the programs of both architectures run as its user with nothing but what is in it; sizes are
# printed.
#
# PROGRAMS_amd64, PROGRAMS_arm64: folders of static programs that were built already.
set -euo pipefail
cd "$(dirname "$0")/../.."
lacking=()
for program in skopeo umoci; do command -v "$program" >/dev/null || lacking+=("$program"); done
case $(uname -m) in
x86_64) emulator=qemu-aarch64-static ;;
*) emulator=qemu-x86_64-static ;;
esac
command -v "$emulator" >/dev/null || lacking+=(qemu-user-static)
if ((${#lacking[@]})); then
  if ((EUID != 0)) || ! command -v apt-get >/dev/null; then
    printf 'missing: %s\nhint: as root, apt-get install --no-install-recommends %s\n' \
      "${lacking[*]}" "${lacking[*]}" >&2
    exit 1
  fi
  apt-get update >&2
  DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${lacking[@]}" >&2
fi
.ci/image
exec .ci/show/waste-5.py

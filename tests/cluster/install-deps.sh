#!/usr/bin/env bash
# Installs the Debian packages that the test control plane runs: etcd and Prometheus.
#
# As root the missing ones are installed by apt; otherwise they are named and the exit status is 1.
# Nothing is done, and no network is used, when both programs are there already.
#
# The packages carry daemons that would take ports 2379 and 9090 of this machine.
# The test control plane starts the programs itself, so the daemons are neither started (policy-rc.d
# answers 101, "forbidden", while apt runs) nor left enabled for the next boot.
set -euo pipefail

# One row per program: the program, its Debian package, the service that the package enables.
rows=("etcd etcd-server etcd" "prometheus prometheus prometheus")
policy=/usr/sbin/policy-rc.d

packages=() services=()
for row in "${rows[@]}"; do
  read -r program package service <<<"$row"
  if ! command -v "$program" >/dev/null; then
    packages+=("$package") services+=("$service")
  fi
done
if ((${#packages[@]} == 0)); then exit 0; fi

if ((EUID != 0)) || ! command -v apt-get >/dev/null; then
  printf 'missing programs of the test control plane: packages %s\n' "${packages[*]}" >&2
  printf 'hint: as root, apt-get install --no-install-recommends %s\n' "${packages[*]}" >&2
  exit 1
fi

# A policy-rc.d that the machine's owner wrote is kept: it already says what may start.
if [[ ! -e $policy ]]; then
  trap 'rm -f "$policy"' EXIT
  printf '#!/bin/sh\nexit 101\n' >"$policy"
  chmod 755 "$policy"
fi
apt-get update >&2
DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${packages[@]}" >&2
for service in "${services[@]}"; do update-rc.d "$service" disable >&2; done

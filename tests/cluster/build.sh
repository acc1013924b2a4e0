#!/usr/bin/env bash
# Builds the programs of the test control plane into a cache folder outside the source tree.
#
#   build.sh          build what is missing, then print the folder of the programs on stdout
#   build.sh --dir    only print that folder; builds nothing and needs neither Go nor network
#
# Talk goes to stderr.
# The versions and checksums are those of the go.mod and go.sum files beside this script.
# A finished program is built again only where its source is in this folder and is newer, so a
# second run is a no-op and needs no network.
set -euo pipefail
umask 022

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

modules=(kubernetes kwok helm)
# One row per program: its module folder here, then its package.
programs=(
  "kubernetes k8s.io/kubernetes/cmd/kube-apiserver"
  "kubernetes k8s.io/kubernetes/cmd/kube-controller-manager"
  "kubernetes k8s.io/kubernetes/cmd/kube-scheduler"
  "kubernetes k8s.io/kubernetes/cmd/kubectl"
  "kubernetes ./podresources"
  "kubernetes ./expfmtbench"
  "kwok sigs.k8s.io/kwok/cmd/kwok"
  "helm helm.sh/helm/v3/cmd/helm"
)

say() { printf 'cluster build: %s\n' "$*" >&2; }
die() { printf 'cluster build: %s\n' "$1" >&2; printf 'hint: %s\n' "$2" >&2; exit 1; }

# The release that a module folder pins, for example `v1.36.2`.
version_of() { # module-folder module-path
  awk -v path="$2" '$1 == "require" && $2 == path { print $3; exit } $1 == path { print $2; exit }' \
    "$here/$1/go.mod"
}

# The programs report their release themselves; without these flags they call themselves
# v0.0.0, which an API client reads as a server without any feature.
ldflags_of() { # module-folder
  local version minor
  case $1 in
    kubernetes)
      version=$(version_of kubernetes k8s.io/kubernetes)
      minor=${version#v1.} minor=${minor%%.*}
      local package=k8s.io/component-base/version
      echo "-s -w -X $package.gitVersion=$version -X $package.gitMajor=1 -X $package.gitMinor=$minor"
      ;;
    kwok) echo "-s -w" ;; # its source names its release
    helm)
      echo "-s -w -X helm.sh/helm/v3/internal/version.version=$(version_of helm helm.sh/helm/v3)"
      ;;
  esac
}

# The folder is named by everything that decides what the programs are.
cache_key() {
  local module
  for module in "${modules[@]}"; do
    cat "$here/$module/go.mod" "$here/$module/go.sum"
    ldflags_of "$module"
  done | { cat; uname -sm; } | sha256sum | cut -c 1-16
}

require_go() {
  local wanted have source
  wanted=$(awk '$1 == "go" { print $2; exit }' "$here/kubernetes/go.mod")
  source="install Go $wanted or newer from https://go.dev/dl/ and put it first in PATH"
  command -v go >/dev/null || die "no \`go\` in PATH; Go $wanted or newer is needed" "$source"
  have=$(GOTOOLCHAIN=local go env GOVERSION) # `go1.26.8`
  if [[ $(printf '%s\n' "$wanted" "${have#go}" | sort -V | head -n 1) != "$wanted" ]]; then
    die "\`$(command -v go)\` is $have; Go $wanted or newer is needed" "$source"
  fi
}

# Compiles packages of one module and moves the finished programs into `bin`, so that a program
# which is there is a whole one even where the build was interrupted.
build_module() { # module-folder package...
  local module=$1 began=$SECONDS
  shift
  local staging="$cache/staging-$module"
  rm -rf "$staging"
  mkdir -p "$staging"
  say "$module: compiling ${*##*/}"
  (
    cd "$here/$module"
    # GOFLAGS of the user, such as -mod=mod, would let the build edit the pinned versions.
    GOTOOLCHAIN=local GOFLAGS=-mod=readonly CGO_ENABLED=0 nice -n 10 \
      go build -v -p "${BUILD_JOBS:-$(nproc)}" -trimpath -buildvcs=false \
      -ldflags "$(ldflags_of "$module")" -o "$staging/" "$@" 2>&1
  ) | progress "$module"
  mv "$staging"/* "$cache/bin/"
  rm -rf "$staging"
  say "$module: done after $((SECONDS - began)) s"
}

# `go build -v` names each package when it is compiled: count those, pass on all other lines.
progress() { # module-folder
  awk -v module="$1" '
    /^go: downloading / { downloads++; next }
    /^[A-Za-z0-9_.~\/-]+$/ {
      if (++packages % 200 == 0) {
        printf "cluster build: %s: %d packages compiled\n", module, packages; fflush()
      }
      next
    }
    { print; fflush() }
    END { if (downloads) printf "cluster build: %s: %d modules downloaded\n", module, downloads }
  ' >&2
}

cache="${XDG_CACHE_HOME:-$HOME/.cache}/gpu-autoscaler/cluster-$(cache_key)"
case "${1:-}" in
  '') ;;
  --dir) echo "$cache/bin"; exit 0 ;;
  *) die "unknown argument \`$1\`" "build.sh [--dir]" ;;
esac

# Whether a program is older than its source, where that is here.
is_older() { # program package-folder
  [[ -f $here/$2/main.go && $here/$2/main.go -nt $1 ]]
}

missing_packages() { # module-folder
  local row module package
  for row in "${programs[@]}"; do
    read -r module package <<<"$row"
    [[ $module == "$1" ]] || continue
    if [[ ! -x $cache/bin/${package##*/} ]] || is_older "$cache/bin/${package##*/}" "$1/$package"
    then echo "$package"; fi
  done
}

all_missing() {
  local module
  for module in "${modules[@]}"; do missing_packages "$module"; done
}

if [[ -n $(all_missing) ]]; then
  require_go
  mkdir -p "$cache/bin"
  exec 9>"$cache/lock"
  if ! flock --nonblock 9; then
    say "another build holds $cache/lock; waiting for it"
    flock 9
  fi
  # Asked again under the lock: the build that held it may have made everything.
  if [[ -n $(all_missing) ]]; then
    say "into $cache (from nothing: about 13 CPU-minutes, 1 GB of modules, 4 GB of Go's cache)"
  fi
  for module in "${modules[@]}"; do
    mapfile -t packages < <(missing_packages "$module")
    if ((${#packages[@]})); then build_module "$module" "${packages[@]}"; fi
  done
fi
echo "$cache/bin"

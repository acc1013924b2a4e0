#!/usr/bin/env bash
# Waste, line 4: every expression of every panel and rule returns data in a real Prometheus that
# scrapes the running controller and exporters; every alert fires and is silent; runbooks exist.
set -euo pipefail
cd "$(dirname "$0")/../.."
exec .ci/show/run-tests waste-4 chart::monitoring

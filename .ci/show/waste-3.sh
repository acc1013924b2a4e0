#!/usr/bin/env bash
# Waste, line 3: the chart is linted, rendered with every accepted value and every published `--set`
# line, installed, upgraded and removed on a real API server, which says what each service account
# may not do.
set -euo pipefail
cd "$(dirname "$0")/../.."
exec .ci/show/run-tests waste-3 chart::values chart::objects chart::install

#!/usr/bin/env bash
# The simulation: SEEDS lives (default 10,000); with SEED=n only that one, told step by step; with BUG=name only the copy of the sources
# with that bug planted.
set -euo pipefail
cd "$(dirname "$0")/.."
filter=simulated_lives
[ -z "${BUG:-}" ] || filter=planted
[ -n "${SEED:-}" ] || export SEEDS=${SEEDS:-10000}
exec scripts/cargo.sh test --release --locked --workspace --test sim -- "$filter" ${BUG:+--ignored}

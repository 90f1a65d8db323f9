#!/usr/bin/env bash
# The simulation: SEEDS lives (default 10,000); with SEED=n only that one, told step by step; with BUG=name only copies of the sources
# with the bugs planted whose names contain that (BUG=all: each of them).
set -euo pipefail
cd "$(dirname "$0")/.."
filter=simulated_lives
[ -z "${BUG:-}" ] || filter=every_planted_bug_is_found
[ -n "${SEED:-}" ] || export SEEDS=${SEEDS:-10000}
exec scripts/cargo.sh test --release --locked --workspace --test sim -- "$filter"

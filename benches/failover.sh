#!/usr/bin/env bash
# How long partitions are without verdicts after kill -9: three runs of each figure, one line of JSON each. Needs a Kafka at
# MANGROVE_TEST_KAFKA (scripts/testbed.sh up); FIGURE_PAYMENTS is the number of payments scored before (default 1,020,000).
set -euo pipefail
cd "$(dirname "$0")/.."
: "${MANGROVE_TEST_KAFKA:?set it to the address of a Kafka broker}"
export MANGROVE_TEST_KAFKA FIGURE_PAYMENTS="${FIGURE_PAYMENTS:-1020000}"
for _ in 1 2 3; do
  for figure in fail_over_with_a_standby fail_over_without_one restart_with_its_disk; do
    scripts/cargo.sh test --release --workspace --test kafka -- --ignored --exact --nocapture "end_to_end::figures::figure_$figure" \
      | grep --line-buffered '^{"figure"'
  done
done

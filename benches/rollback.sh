#!/usr/bin/env bash
# How long a promotion and a rollback take until every partition, half of them on each of two instances, has verdicts of the other model:
# three runs, two lines of JSON each. Needs a Kafka at MANGROVE_TEST_KAFKA (scripts/testbed.sh up); FIGURE_PAYMENTS is the number of
# payments scored before (default 100,000).
set -euo pipefail
cd "$(dirname "$0")/.."
: "${MANGROVE_TEST_KAFKA:?set it to the address of a Kafka broker}"
export MANGROVE_TEST_KAFKA
for _ in 1 2 3; do
  scripts/cargo.sh test --release --workspace --test kafka -- --ignored --exact --nocapture end_to_end::figures::figure_rollback \
    | grep --line-buffered '^{"figure"'
done

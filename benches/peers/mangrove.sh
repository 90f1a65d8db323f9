#!/usr/bin/env bash
# Mangrove as a peer of the harness (peers/bench.py says what a peer must do): turns its arguments into settings.
#   mangrove.sh BOOTSTRAP APP STATE_DIR WORKERS eos|alo TOPIC
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
[ "$5" = eos ] && guarantee=exactly_once || guarantee=at_least_once
export KAFKA_BOOTSTRAP_SERVERS=$1 APPLICATION_ID=$2 STATE_DIR=$3 WORKERS=$4 PROCESSING_GUARANTEE=$guarantee TRANSACTIONS_TOPIC=$6
export VERDICTS_TOPIC=verdicts-$2 ANOMALIES_TOPIC=anomalies-$2
export MODEL_PATH=${MODEL_PATH:-$root/target/peers/model.forest} AUTO_TRAIN=off ROLES=stream HTTP_ADDR=127.0.0.1:0
export RESTORE_LINES=1 # the harness reads the times of a restore from standard output
exec "$root/target/release/mangrove" run

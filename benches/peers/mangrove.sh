#!/usr/bin/env bash
# Mangrove as a peer of the harness (peers/bench.py says what a peer must do): turns its arguments into settings.
#   mangrove.sh BOOTSTRAP APP STATE_DIR WORKERS eos|alo TOPIC
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
[ "$5" = eos ] && guarantee=exactly_once || guarantee=at_least_once
export KAFKA_BOOTSTRAP_SERVERS=$1 APPLICATION_ID=$2 STATE_DIR=$3 WORKERS=$4 PROCESSING_GUARANTEE=$guarantee TRANSACTIONS_TOPIC=$6
export VERDICTS_TOPIC=verdicts-$2 ANOMALIES_TOPIC=anomalies-$2
export MODEL_PATH=${MODEL_PATH:-$root/target/peers/model.forest} AUTO_TRAIN=off ROLES=stream HTTP_ADDR=127.0.0.1:0
export LOG_FORMAT=json INSTANCE_ID=peer
# The harness reads the times of a restore from lines of its own shape.
exec "$root/target/release/mangrove" run 2> >(exec awk '
  function field(name) { return match($0, "\"" name "\":[0-9.]+") ? substr($0, RSTART + length(name) + 3, RLENGTH - length(name) - 3) : 0 }
  { print }
  /"message":"restoring"/ { print field("at_s"), "restore-start remaining", field("remaining") }
  /"message":"task restored and running"/ { total += field("records"); print field("at_s"), "restore-end task total", total }
  { fflush() }')

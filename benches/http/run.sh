#!/usr/bin/env bash
# Questions over HTTP beside a stream, on a real Kafka: profiles from the owner and through another instance, and inference at a rate.
#   run.sh MANGROVE [ROUNDS]
#   STREAM=25000  payments a second of the stream beside it; SECONDS_EACH=10 of each phase
#   WARM=4000000  payments that go through first: Java compiles the broker's code as it runs
# Prints a line of JSON for each phase. Inference is asked at about 5,000 requests a second: 100 connections that each wait 0 to 40 ms
# between two, at random, since with one wait for all they would come in convoys. The forest is trained on payments of the load's shape,
# so that as many are explained as with a model of one's own: about one in a hundred.
set -euo pipefail
mangrove=$(realpath "$1") rounds=${2:-3}
stream=${STREAM:-25000} each=${SECONDS_EACH:-10}
here=$(cd "$(dirname "$0")" && pwd)
kafka=$here/../../scripts/kafka.sh
work=$(mktemp -d)
running=()
trap 'kill "${running[@]}" 2>/dev/null || true; "$kafka" stop "$work/kafka" || true; rm -rf "$work"' EXIT
KAFKA_BOOTSTRAP_SERVERS=$(KAFKA_JVM='' "$kafka" start "$work/kafka" 0)
export KAFKA_BOOTSTRAP_SERVERS
cd "$work"
TOPIC_PREFIX=http-$$- REDIS_URL='' AUTO_TRAIN=off LOG_FORMAT=json HTTP_RATE_LIMIT=0 MODEL_STORE=$work/models MODEL_PATH=$work/model WORKERS=1
export TOPIC_PREFIX REDIS_URL AUTO_TRAIN LOG_FORMAT HTTP_RATE_LIMIT MODEL_STORE MODEL_PATH WORKERS

start() { # NAME
  STATE_DIR=$work/$1 HTTP_ADDR=127.0.0.1:0 "$mangrove" run 2>"$work/$1.log" &
  running+=($!)
  until address=$(grep -o '"address":"[^"]*"' "$work/$1.log" | head -1 | cut -d'"' -f4) && [ -n "$address" ]; do sleep 0.1; done
  until curl -sf -o /dev/null "http://$address/readyz"; do sleep 0.1; done
}
ask() { # PHASE CONNECTIONS SCRIPT ADDRESS
  PHASE=$1 USERS=$work/users wrk -t1 -c"$2" -d"${each}s" --latency -s "$here/$3" "http://$4" | grep '^{'
}
beside() { # PHASE: a stream for the time of one phase; what it had to wait
  "$mangrove" load --rate "$stream" --duration "$((each + 4))s" --users 100000 --stream "$RANDOM" --json >"$work/load" 2>/dev/null &
  loading=$!
  sleep 2
}
streamed() {
  wait "$loading"
  python3 - "$1" "$work/load" <<'END'
import json, sys
phase, path = sys.argv[1:]
report = json.load(open(path))
latency = report.get("latency_ms") or {}
print(json.dumps({"stream": phase, "verdicts": report["verdicts"], "seconds": report["seconds"], "p50_ms": latency.get("p50"), "p99_ms": latency.get("p99"), "lost": report.get("lost")}))
END
}

"$mangrove" load --to "$work/payments.csv" --count 2000000 --users 100000 >/dev/null 2>&1
"$mangrove" train --from "$work/payments.csv" --trees 100 --samples 256 >/dev/null 2>&1
start a
a=$address
"$mangrove" load --count "${WARM:-4000000}" --users 100000 --json >/dev/null 2>&1
curl -s "http://$a/v1/state/users?limit=1000" | python3 -c 'import json, sys; [print(one["user_id"]) for one in json.load(sys.stdin)["users"]]' >"$work/users"
for ((round = 1; round <= rounds; round++)); do
  beside
  sleep "$each"
  streamed "alone"
  beside
  ask "profile of the owner" 4 profile.lua "$a"
  streamed "beside profiles"
  beside
  ask "inference, 5,000/s" 100 inference.lua "$a"
  streamed "beside inference"
done
start b
b=$address
for ((round = 1; round <= rounds; round++)); do
  beside
  ask "profile, half of them through another instance" 4 profile.lua "$b"
  streamed "beside profiles of two instances"
done

#!/usr/bin/env bash
# What a question costs the instance that answers it: CPU time and context switches for each, without a stream. Takes perf and wrk.
#   MANGROVE_TEST_KAFKA=HOST:PORT cost.sh MANGROVE [ROUNDS]
#   SECONDS_EACH=5 of each phase
# Prints a line of JSON for each phase. Unlike latencies these hardly depend on what else the machine does.
set -euo pipefail
mangrove=$(realpath "$1") rounds=${2:-1} each=${SECONDS_EACH:-5}
here=$(cd "$(dirname "$0")" && pwd)
export KAFKA_BOOTSTRAP_SERVERS=${MANGROVE_TEST_KAFKA:?set it to the address of a Kafka broker}
work=$(mktemp -d)
cd "$work"
export TOPIC_PREFIX=cost-$$- REDIS_URL='' AUTO_TRAIN=off LOG_FORMAT=json HTTP_RATE_LIMIT=0 WORKERS=1
export MODEL_STORE=$work/models MODEL_PATH=$work/model STATE_DIR=$work/state HTTP_ADDR=127.0.0.1:0
"$mangrove" train --synthetic 20000 --trees 100 --samples 256 >/dev/null 2>&1
"$mangrove" run 2>"$work/log" &
running=$!
trap 'kill "$running" 2>/dev/null || true; wait; rm -rf "$work"' EXIT
until address=$(grep -o '"address":"[^"]*"' "$work/log" | head -1 | cut -d'"' -f4) && [ -n "$address" ]; do sleep 0.1; done
until curl -sf -o /dev/null "http://$address/readyz"; do sleep 0.1; done
"$mangrove" load --count 30000 --users 3000 --json >/dev/null 2>&1
curl -s "http://$address/v1/state/users?limit=1000" | python3 -c 'import json, sys; [print(one["user_id"]) for one in json.load(sys.stdin)["users"]]' >"$work/users"
ask() { # PHASE CONNECTIONS
  perf stat -x, -e task-clock,context-switches -p "$running" -o "$work/stat" -- sleep "$each" &
  counting=$!
  PHASE=$1 USERS=$work/users wrk -t1 -c"$2" -d"${each}s" --latency -s "$here/$1.lua" "http://$address" | grep '^{' >"$work/asked"
  wait "$counting" || true
  python3 - "$work/asked" "$work/stat" <<'END'
import json, sys
asked = json.load(open(sys.argv[1]))
counted = {row[2].split(":")[0]: float(row[0]) for row in (line.split(",") for line in open(sys.argv[2])) if len(row) > 2}
requests = asked["requests"]
cost = {"cpu_us": round(counted["task-clock"] * 1000 / requests, 1), "switches": round(counted["context-switches"] / requests, 2)}
print(json.dumps({"question": asked["bench"], "requests": requests, **cost}))
END
}
for ((round = 1; round <= rounds; round++)); do
  ask inference 100
  ask profile 4
done

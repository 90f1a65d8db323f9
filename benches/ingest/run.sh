#!/usr/bin/env bash
# Payments over HTTP into the embedded broker, as fast as they are acknowledged: lines (curl) and single requests over keep-alive (wrk).
#   run.sh MANGROVE [ROUNDS] [LINES]
# The instance scores the payments meanwhile, on the same cores; what is measured ends at the acknowledgement.
# EMBEDDED_SYNC=commit: each group is on the disk before it is acknowledged.
set -euo pipefail
mangrove=$1 rounds=${2:-3} lines=${3:-500000}
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'kill "${server:-}" 2>/dev/null || true; rm -rf "$work"' EXIT
awk -v n="$lines" 'BEGIN { srand(7); for (i = 0; i < n; i++)
  printf "{\"user_id\":\"u%07d\",\"amount\":%.2f,\"merchant\":\"m%04d\",\"currency\":\"EUR\",\"tx_id\":\"RUN-%d\"}\n", rand() * 100000, rand() * 500, rand() * 2000, i }' \
  >"$work/payments"
for ((round = 1; round <= rounds; round++)); do
  rm -rf "$work/state" "$work/broker"
  BROKER=embedded EMBEDDED_SYNC=commit STATE_DIR=$work/state EMBEDDED_DIR=$work/broker HTTP_ADDR=127.0.0.1:0 AUTO_TRAIN=off \
    MODEL_PATH=$work/none MODEL_STORE=$work/models HTTP_RATE_LIMIT=0 LOG_FORMAT=json "$mangrove" run 2>"$work/log" &
  server=$!
  until address=$(grep -o '"address":"[^"]*"' "$work/log" | head -1 | cut -d'"' -f4) && [ -n "$address" ]; do sleep 0.1; done
  until [ "$(curl -s -o /dev/null -w '%{http_code}' -H 'Content-Type: application/json' \
    -d '{"user_id":"warm","amount":1,"merchant":"m","tx_id":"warm"}' "http://$address/tx")" = 202 ]; do sleep 0.1; done
  sed "s/RUN-/$round-/" "$work/payments" >"$work/round"
  began=$(date +%s.%N)
  curl -sS -T "$work/round" -X POST -H 'Content-Type: application/x-ndjson' -H 'Expect:' "http://$address/v1/transactions" >"$work/answer"
  awk -v n="$(grep -c '"status":202' "$work/answer")" -v t="$(echo "$(date +%s.%N) - $began" | bc)" \
    'BEGIN { printf "{\"bench\":\"lines\",\"accepted\":%d,\"seconds\":%.2f,\"per_second\":%.0f}\n", n, t, n / t }'
  wrk -t1 -c"${CONNECTIONS:-256}" -d10s -s "$here/payment.lua" "http://$address" | grep '^{'
  kill "$server" 2>/dev/null || true
  wait "$server" || true
done

#!/usr/bin/env bash
# The real parts that tests run against. Each keeps to its own folder under target/testbed.
#   testbed.sh up     start what is not running, empty, and write its addresses to target/testbed/env
#   testbed.sh down   stop everything; the logs stay
#   KAFKA_BOOTSTRAP_SERVERS=HOST:PORT  use that broker instead of starting one
# Tests find a part by its variable (MANGROVE_TEST_KAFKA, MANGROVE_TEST_REDIS and MANGROVE_TEST_POSTGRES, which
# are URLs, MANGROVE_TEST_WEBDRIVER) and skip when it is not set.
set -euo pipefail
cd "$(dirname "$0")/.."
bed=$PWD/target/testbed

kafka_up() {
  local address=${KAFKA_BOOTSTRAP_SERVERS:-}
  if [ -n "$address" ]; then
    scripts/kafka.sh ready "${address%%,*}" || { echo "no Kafka answers at ${address%%,*}"; return 1; }
  elif address=$(cat "$bed/kafka/address" 2>/dev/null) && scripts/kafka.sh ready "$address"; then
    :
  else
    scripts/kafka.sh stop "$bed/kafka"
    rm -rf "$bed/kafka"
    # Nobody kills this one: it is silent only where the machine is busy.
    address=$(KAFKA_SESSION_MS=60000 scripts/kafka.sh start "$bed/kafka" 0) || return 1
    echo "$address" >"$bed/kafka/address"
  fi
  echo "Kafka: $address"
  echo "export MANGROVE_TEST_KAFKA=$address" >>"$bed/env"
}

# The driver starts a Chromium for each test; with port 0 it takes a free one and says which.
browser_up() {
  local pid="$bed/browser/pid" log="$bed/browser/log" port=
  if ! kill -0 "$(cat "$pid" 2>/dev/null)" 2>/dev/null; then
    command -v chromedriver >/dev/null || { echo "no chromedriver: scripts/setup.sh test"; return 1; }
    mkdir -p "$bed/browser"
    setsid chromedriver --port=0 </dev/null >"$log" 2>&1 &
    echo $! >"$pid"
  fi
  for _ in $(seq 600); do
    port=$(sed -n 's/.*started successfully on port \([0-9]*\).*/\1/p' "$log")
    if [ -n "$port" ] || ! kill -0 "$(cat "$pid")" 2>/dev/null; then break; fi
    sleep 0.1
  done
  [ -n "$port" ] || { echo "chromedriver does not start: $log"; return 1; }
  echo "chromedriver: 127.0.0.1:$port"
  echo "export MANGROVE_TEST_WEBDRIVER=127.0.0.1:$port" >>"$bed/env"
}

browser_down() {
  local pid
  pid=$(cat "$bed/browser/pid" 2>/dev/null) || return 0
  # Its group: the browsers that it started end with it.
  kill -- "-$pid" 2>/dev/null || true
  rm -f "$bed/browser/pid"
}

# Begins empty unless it runs; their URLs hold a password and are shown nowhere.
tier_up() { # NAME VARIABLE ACTION-THAT-FORGETS
  local url
  [ -e "$bed/$1/pid" ] || "scripts/$1.sh" "$3" "$bed/$1" || return 1
  url=$("scripts/$1.sh" start "$bed/$1" 0) || return 1
  echo "$1: ${url##*@}"
  echo "export $2=$url" >>"$bed/env"
}

case ${1:-} in
  up)
    mkdir -p "$bed"
    (umask 077 && : >"$bed/env")
    failed=0
    kafka_up || failed=1
    tier_up redis MANGROVE_TEST_REDIS stop || failed=1
    tier_up postgres MANGROVE_TEST_POSTGRES remove || failed=1
    browser_up || failed=1
    exit $failed
    ;;
  down)
    browser_down
    scripts/kafka.sh stop "$bed/kafka"
    scripts/redis.sh stop "$bed/redis"
    scripts/postgres.sh stop "$bed/postgres"
    ;;
  *) sed -n '2,7s/^# \{0,1\}//p' "$0"; exit 2 ;;
esac

#!/usr/bin/env bash
# The real parts that tests run against. Each keeps to its own folder under target/testbed.
#   testbed.sh up     start what is not running, empty, and write its addresses to target/testbed/env
#   testbed.sh down   stop everything; the logs stay
#   KAFKA_BOOTSTRAP_SERVERS=HOST:PORT  use that broker instead of starting one
# Tests find a part by its variable (MANGROVE_TEST_KAFKA) and skip when it is not set.
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
    address=$(scripts/kafka.sh start "$bed/kafka" 0) || return 1
    echo "$address" >"$bed/kafka/address"
  fi
  echo "Kafka: $address"
  echo "export MANGROVE_TEST_KAFKA=$address" >>"$bed/env"
}

case ${1:-} in
  up)
    mkdir -p "$bed"
    : >"$bed/env"
    kafka_up
    ;;
  down) scripts/kafka.sh stop "$bed/kafka" ;;
  *) sed -n '2,6s/^# \{0,1\}//p' "$0"; exit 2 ;;
esac

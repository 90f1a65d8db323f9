#!/usr/bin/env bash
# How Mangrove's cost grows: users, partitions, workers, a hot key, profiles at their largest; one row each, on a broker of its own.
# Rows are added to benches/growth.jsonl. Heavy: the row of ten million users is only run where it is named.
#   ROWS  which, by name, e.g. "users-10k users-10m"; default all but users-10m
#   OUT   default benches/growth.jsonl        ROUNDS  default 1
set -euo pipefail
cd "$(dirname "$0")/.."
export OUT=${OUT:-$PWD/benches/growth.jsonl} ROUNDS=${ROUNDS:-1}

row() { # NAME PEER PARTITIONS SHAPE OPTION...
  local name=$1 peer=$2 partitions=$3 shape=$4
  shift 4
  [[ " ${ROWS:-$default} " == *" $name "* ]] || return 0
  NOTE=$name PEERS=$peer HARNESS="$PWD/benches/peers/growth.py $partitions $shape" BENCH_ARGS="$*" benches/peers/run.sh
}

default="users-10k users-100k users-1m partitions-4 partitions-16 partitions-64 workers-2 hot-key full-profiles"
row users-10k mangrove-eos-1t 8 zipf --n 1000000 --users 10000
row users-100k mangrove-eos-1t 8 zipf --n 1000000 --users 100000
row users-1m mangrove-eos-1t 8 zipf --n 3000000 --users 1000000
row users-10m mangrove-eos-1t 8 zipf --n 30000000 --users 10000000 --limit 1800 --phases throughput
row partitions-4 mangrove-eos-1t 4 zipf --n 1000000
row partitions-16 mangrove-eos-1t 16 zipf --n 1000000
row partitions-64 mangrove-eos-1t 64 zipf --n 1000000
row workers-2 mangrove-eos-2t 8 zipf --n 1000000
row hot-key mangrove-eos-1t 8 hot --n 1000000
row full-profiles mangrove-eos-1t 8 full --n 1000000 --users 2000

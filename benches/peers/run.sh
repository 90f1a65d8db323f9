#!/usr/bin/env bash
# Mangrove beside its peers on one broker: each round runs every peer once, in turn, so that what the machine does meanwhile meets
# all of them alike. Rows are added to benches/peers/results.jsonl; table.py makes medians of them.
#   PEERS       default: mangrove-eos-1t ks-eos-1t mangrove-eos-2t ks-eos-2t mangrove-alo-1t ks-alo-1t limit-eos limit-alo;
#               there are also flink-eos-1t, flink-alo-1t and so on, and limit-eos-best and limit-alo-best: at their lowest latency
#   ROUNDS      default 3           OUT  default benches/peers/results.jsonl
#   BENCH_ARGS  passed to the harness, e.g. "--n 50000 --phases throughput,verify"
#   FLINK_JVM   more flags for Flink's Java, e.g. -Dflink.execution.checkpointing.interval=1s (Flink commits with its checkpoints, here
#               each 100 ms); they are noted in the rows
#   HARNESS     what runs a peer, default bench.py there    NOTE  goes into each row
#   PEERS_DIR   the harness and the peers' sources, default ../shared/peers
#   MODEL_PATH  the forest (100 trees of 256 samples), made when it is not there
set -euo pipefail
cd "$(dirname "$0")/../.."
here=benches/peers
work=$PWD/target/peers
sources=${PEERS_DIR:-../shared/peers}
out=${OUT:-$here/results.jsonl}
export MODEL_PATH=${MODEL_PATH:-$work/model.forest}
peers=${PEERS:-mangrove-eos-1t ks-eos-1t mangrove-eos-2t ks-eos-2t mangrove-alo-1t ks-alo-1t limit-eos limit-alo}
read -ra bench_args <<<"${BENCH_ARGS:-}"
read -ra harness <<<"${HARNESS:-$sources/bench.py}"
timed() { scripts/timed.sh "$@"; }

[ -e "$sources/bench.py" ] || { echo "no harness at $sources (PEERS_DIR names its folder)"; exit 1; }
mkdir -p "$work"

make_venv() {
  [ -e "$work/venv/done" ] && return
  # shellcheck disable=SC2016
  timed "harness" bash -c 'python3 -m venv "$1" && "$1/bin/pip" -q --disable-pip-version-check install confluent-kafka==2.12.1 numpy==2.3.4' _ "$work/venv"
  touch "$work/venv/done"
}

# Trained on payments of the load's shape, as the Kafka Streams peer does it: about 1 % of the load is then anomalous.
make_model() {
  [ -e "$MODEL_PATH" ] && return
  "$work/venv/bin/python" $here/payments.py 60000 >"$work/payments.csv"
  timed "model" target/release/mangrove train --from "$work/payments.csv" --trees 100 --samples 256 --out "$MODEL_PATH"
}

build_mangrove() {
  timed "build of Mangrove" scripts/cargo.sh build --release --locked --workspace
  make_model
}

build_ks() {
  [ ! -e "$work/kstreams/target/kstreams-peer-1.jar" ] || return 0
  mkdir -p "$work/kstreams"
  cp -r "$sources/kstreams/." "$work/kstreams"
  chmod -R u+w "$work/kstreams"
  timed "build of Kafka Streams' peer" mvn -q -B -ntp -Dstyle.color=never -f "$work/kstreams/pom.xml" package
}

# Features, forest and JSON are the Kafka Streams peer's own, so its sources are compiled with Flink's.
build_flink() {
  local jar=$work/flink/target/flink-peer-1.jar
  [ ! -e "$jar" ] || [ -n "$(find $here/flink -type f -newer "$jar")" ] || return 0
  rm -rf "$work/flink"
  mkdir -p "$work/flink"
  cp -r $here/flink/. "$work/flink"
  cp "$sources"/kstreams/src/main/java/peer/*.java "$work/flink/src/main/java/peer"
  timed "build of Flink's peer" mvn -q -B -ntp -Dstyle.color=never -f "$work/flink/pom.xml" package
}

build_limit() {
  timed "build of limit_rs" env CARGO_TARGET_DIR="$work/limit_rs" scripts/cargo.sh build -q --release --locked --manifest-path "$sources/limit_rs/Cargo.toml"
}

command_of() { # PEER: its command line, with the harness's placeholders
  local guarantee threads
  IFS=- read -r _ guarantee threads <<<"$1"
  case $1 in
    mangrove-*) echo "$PWD/$here/mangrove.sh {bootstrap} {app} {state} ${threads%t} $guarantee {topic}" ;;
    ks-*) echo "java -Xms1g -Xmx1g -Dpeer.static=true -Dorg.slf4j.simpleLogger.defaultLogLevel=warn" \
      "-cp $work/kstreams/target/kstreams-peer-1.jar:$work/kstreams/target/lib/* peer.Main {bootstrap} {app} {state} ${threads%t} $guarantee 268435456 {topic}" ;;
    flink-*) echo "java -Xms1g -Xmx1g --add-opens=java.base/java.lang=ALL-UNNAMED --add-opens=java.base/java.nio=ALL-UNNAMED" \
      "--add-opens=java.base/java.util=ALL-UNNAMED -Dorg.slf4j.simpleLogger.defaultLogLevel=error ${FLINK_JVM:-}" \
      "-cp $work/flink/target/flink-peer-1.jar:$work/flink/target/lib/* peer.FlinkMain {bootstrap} {app} {state} ${threads%t} $guarantee {topic}" ;;
    limit-eos-best) echo "$work/limit_rs/release/limit_rs {bootstrap} {app} {topic} eos commit_ms=10 linger.ms=0" ;;
    limit-alo-best) echo "$work/limit_rs/release/limit_rs {bootstrap} {app} {topic} alo linger.ms=0" ;;
    limit-*) echo "$work/limit_rs/release/limit_rs {bootstrap} {app} {topic} $guarantee" ;;
    *) echo "unknown peer: $1" >&2; return 1 ;;
  esac
}

run_peer() { # PEER
  local options=() command
  command=$(command_of "$1")
  [[ $1 != *-eos* ]] || options+=(--eos)
  [[ $1 != limit-* ]] || options+=(--extra '{app}-limit-changelog')
  [[ $1 != limit-* && $1 != mangrove-* ]] || options+=(--drop 1) # no JVM to warm up
  timed "$1, round $round" "$work/venv/bin/python" "${harness[@]}" run --name "$1" --bootstrap "$bootstrap" \
    --broker-dir "$work/kafka/data" --broker-pid "$(cat "$work/kafka/pid")" --work "$work/runs" --out "$out" --note "$note" \
    "${options[@]}" --cmd "$command" "${bench_args[@]}"
}

timed "set-up" scripts/setup.sh build test peers
make_venv
for kind in $(tr ' ' '\n' <<<"$peers" | cut -d- -f1 | sort -u); do "build_$kind"; done
note="$(git describe --always --dirty=+), $(nproc) cores, $(sed -n 's/^model name.*: //p' /proc/cpuinfo | head -n 1)${FLINK_JVM:+, $FLINK_JVM}${NOTE:+, $NOTE}"

trap 'scripts/kafka.sh stop "$work/kafka"' EXIT
rm -rf "$work/kafka" "$work/runs"
bootstrap=$(KAFKA_JVM='' scripts/kafka.sh start "$work/kafka" 0)
for round in $(seq "${ROUNDS:-3}"); do
  for peer in $peers; do run_peer "$peer" || echo "!! $peer failed in round $round"; done
done
"$work/venv/bin/python" $here/table.py "$out"

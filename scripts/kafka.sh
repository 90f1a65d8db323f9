#!/usr/bin/env bash
# A real Apache Kafka (one node, KRaft) for tests and measurements. Needs Java 17 or newer; Maven the first time.
#
#   kafka.sh jars             fetch the broker's jars (once per version; a fresh clone finds them in the cache)
#   kafka.sh start DIR PORT   start a broker, or find it running; PORT 0 takes a free one. Returns when it answers
#                             and prints its address. DIR keeps data, port, pid and log: a restart finds its data
#   kafka.sh stop DIR         stop it in good order (idempotent)
#   kafka.sh kill DIR         kill -9
#   kafka.sh ready HOST:PORT  does a broker answer there?
#
#   KAFKA_VERSION     the broker's version, default 4.1.1
#   KAFKA_HEAP        default 1g
#   KAFKA_SESSION_MS  a broker that is silent for so long loses its partitions, and one that was killed starts again after it,
#                     default 3000
#   KAFKA_JVM         more flags for Java, default -XX:TieredStopAtLevel=1: starts in half the time; empty for measurements
#   KAFKA_PROXY_PORT  adds a listener for clients that come through a proxy on this port; it listens on the port
#                     that DIR/proxied-port names
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
version=${KAFKA_VERSION:-4.1.1}
cache=${XDG_CACHE_HOME:-$HOME/.cache}/mangrove/kafka-$version
archive=$cache/classes.jsa # Java's class data archive: a broker starts in 2 s instead of 6
# shellcheck disable=SC1091
. "$here/servers.sh"

fetch() {
  [ -e "$cache/done" ] && return
  command -v java >/dev/null || die "Java is missing: scripts/setup.sh test installs it"
  command -v mvn >/dev/null || die "Maven is missing: scripts/setup.sh test installs it"
  mkdir -p "$cache"
  (
    flock 9
    [ -e "$cache/done" ] && exit
    rm -rf "${cache:?}/lib" "${cache:?}/first"
    echo "kafka.sh: fetching Kafka $version" >&2
    mvn -q -B -ntp -Dstyle.color=never -f "$here/kafka/pom.xml" -Dkafka.version="$version" dependency:copy-dependencies \
      -DoutputDirectory="$cache/lib" </dev/null >"$cache/mvn.log" 2>&1 || die "Maven failed: $(tail -n 5 "$cache/mvn.log")"
    run "$cache/first" 0 -XX:ArchiveClassesAtExit="$archive" >/dev/null
    end "$cache/first" TERM
    rm -rf "$cache/first"
    touch "$cache/done"
  ) 9>"$cache/lock"
}

# Asks for metadata (version 4, no topics) and looks whether the answer lists a broker.
ready() {
  local answer
  # shellcheck disable=SC2016
  answer=$(timeout 5 bash -c '
    exec 3<>"/dev/tcp/${1%:*}/${1##*:}"
    printf "\0\0\0\x0f\0\x03\0\x04\0\0\0\x01\xff\xff\0\0\0\0\0" >&3
    head -c 16 <&3 | od -An -tu1' _ "$1" 2>/dev/null) || return 1
  read -ra bytes <<<"${answer//$'\n'/ }"
  [ "${#bytes[@]}" -eq 16 ] && [ "${bytes[15]}" -ge 1 ] # length 4, correlation 4, throttle 4, number of brokers 4
}

configure() { # DIR PORT
  local dir=$1 port=$2 proxied
  [ "$port" != 0 ] || port=$(cat "$dir/port" 2>/dev/null || free_port)
  echo "$port" >"$dir/port"
  [ -s "$dir/controller-port" ] || free_port >"$dir/controller-port"
  sed -e "s|@PORT@|$port|g" -e "s|@CONTROLLER_PORT@|$(cat "$dir/controller-port")|g" -e "s|@DIR@|$dir|g" \
    -e "s|@SESSION_MS@|${KAFKA_SESSION_MS:-3000}|g" \
    "$here/kafka/server.properties" >"$dir/server.properties"
  [ -n "${KAFKA_PROXY_PORT:-}" ] || return 0
  [ -s "$dir/proxied-port" ] || free_port >"$dir/proxied-port"
  proxied=$(cat "$dir/proxied-port")
  sed -i -e "s|^listeners=.*|&,PROXIED://127.0.0.1:$proxied|" \
    -e "s|^advertised.listeners=.*|&,PROXIED://127.0.0.1:$KAFKA_PROXY_PORT|" "$dir/server.properties"
}

run() { # DIR PORT JAVA-FLAGS...
  local dir
  mkdir -p "$1" && dir=$(cd "$1" && pwd)
  if ! pid_of "$dir" "$dir/server.properties" >/dev/null; then
    configure "$dir" "$2"
    export CLASSPATH="$cache/lib/*"
    local java=(java -Xlog:disable -Xlog:all=error -Dlog4j2.configurationFile="$here/kafka/log4j2.properties" "${@:3}")
    if [ ! -e "$dir/data/meta.properties" ]; then
      java -XX:TieredStopAtLevel=1 -XX:SharedArchiveFile="$archive" -Xlog:disable kafka.tools.StorageTool format --standalone -c "$dir/server.properties" \
        -t "$(head -c 16 /dev/urandom | base64 | tr '+/' 'AB' | cut -c1-22)" >"$dir/log" 2>&1 ||
        die "formatting failed: $(tail -n 3 "$dir/log")"
    fi
    setsid "${java[@]}" -Xms256m -Xmx"${KAFKA_HEAP:-1g}" kafka.Kafka "$dir/server.properties" >>"$dir/log" 2>&1 </dev/null 9>&- &
    echo $! >"$dir/pid"
  fi
  await "$dir" "$dir/server.properties" ready "127.0.0.1:$(cat "$dir/port")"
  echo "127.0.0.1:$(cat "$dir/port")"
}

start() { # DIR PORT
  fetch
  local flags
  read -ra flags <<<"${KAFKA_JVM--XX:TieredStopAtLevel=1}"
  run "$1" "$2" -XX:SharedArchiveFile="$archive" "${flags[@]}"
}

end() { # DIR SIGNAL
  local dir
  dir=$(cd "$1" 2>/dev/null && pwd) || return 0
  stop "$dir" "$dir/server.properties" "$2"
}

case ${1:-} in
  jars) fetch ;;
  start) start "${2:?kafka.sh start DIR PORT}" "${3:-0}" ;;
  stop) end "${2:?kafka.sh stop DIR}" TERM ;;
  kill) end "${2:?kafka.sh kill DIR}" KILL ;;
  ready) ready "${2:?kafka.sh ready HOST:PORT}" ;;
  *) sed -n '2,18s/^# \{0,1\}//p' "$0"; exit 2 ;;
esac

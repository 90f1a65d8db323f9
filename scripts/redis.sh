#!/usr/bin/env bash
# A real Redis for tests and measurements. Needs redis-server.
#
#   redis.sh start DIR PORT   start a server, or find it running; PORT 0 takes a free one. Returns when it answers and prints
#                             its URL, password included. DIR keeps port, password, pid and log; nothing is saved: it starts empty
#   redis.sh stop DIR         stop it in good order (idempotent)
#   redis.sh kill DIR         kill -9
#
#   REDIS_FLAGS  more flags for redis-server, such as "--appendonly yes" (which keeps its data over a restart)
set -euo pipefail
# shellcheck disable=SC1091
. "$(dirname "$0")/servers.sh"

answers() { # DIR
  [ "$(redis-cli -p "$(cat "$1/port")" -a "$(cat "$1/password")" --no-auth-warning ping 2>/dev/null)" = PONG ]
}

start() { # DIR PORT
  command -v redis-server >/dev/null || die "redis-server is missing: scripts/setup.sh test installs it"
  local dir port
  mkdir -p "$1" && dir=$(cd "$1" && pwd)
  remember "$dir" "$2"
  port=$(cat "$dir/port")
  if ! pid_of "$dir" redis-server >/dev/null; then
    local flags
    read -ra flags <<<"${REDIS_FLAGS:-}"
    # The password comes by a pipe, never by a command line.
    setsid redis-server - --port "$port" --bind 127.0.0.1 --dir "$dir" --save '' --appendonly no "${flags[@]}" \
      >>"$dir/log" 2>&1 <<<"requirepass $(cat "$dir/password")" &
    echo $! >"$dir/pid"
  fi
  await "$dir" redis-server answers "$dir"
  echo "redis://:$(cat "$dir/password")@127.0.0.1:$port/0"
}

case ${1:-} in
  start) start "${2:?redis.sh start DIR PORT}" "${3:-0}" ;;
  stop) stop "${2:?redis.sh stop DIR}" redis-server TERM ;;
  kill) stop "${2:?redis.sh kill DIR}" redis-server KILL ;;
  *) sed -n '2,10s/^# \{0,1\}//p' "$0"; exit 2 ;;
esac

#!/usr/bin/env bash
# A real Postgres for tests and measurements. Needs Debian's postgresql, or initdb and postgres in PATH.
#
#   postgres.sh start DIR PORT   start a server, or find it running; PORT 0 takes a free one. Returns when it answers and
#                                prints a superuser's URL, password included. DIR keeps port, password, log and data:
#                                a restart finds its data
#   postgres.sh stop DIR         stop it in good order, cutting its connections (idempotent)
#   postgres.sh kill DIR         kill -9
#   postgres.sh remove DIR       stop it and forget its data
#
#   POSTGRES_FLAGS  more flags for postgres, such as "-c max_connections=5"
# Postgres refuses to run as root: root runs it as the user `postgres`, and where that one cannot reach DIR the data lie in /tmp.
set -euo pipefail
# shellcheck disable=SC1091
. "$(dirname "$0")/servers.sh"

bin() { # NAME
  command -v "$1" 2>/dev/null && return
  local found
  found=$(compgen -G "/usr/lib/postgresql/*/bin/$1" | sort -V | tail -n 1) && echo "$found"
}

as_postgres() {
  if [ "$(id -u)" = 0 ]; then runuser -u postgres -- "$@"; else "$@"; fi
}

# Where the data lie; made and given to whom the server runs as.
place() { # DIR
  [ -s "$1/place" ] && return
  local at=$1/data
  mkdir -p "$at"
  if [ "$(id -u)" = 0 ]; then
    chown postgres "$at"
    if ! as_postgres test -x "$at" 2>/dev/null; then
      rmdir "$at"
      at=$(as_postgres mktemp -d /tmp/mangrove-postgres-XXXXXX)
    fi
  fi
  echo "$at" >"$1/place"
}

answers() { # DIR
  PGPASSWORD=$(cat "$1/password") "$(bin psql)" -q -h 127.0.0.1 -p "$(cat "$1/port")" -U mangrove -d postgres -c 'SELECT 1' >/dev/null 2>&1
}

start() { # DIR PORT
  [ -n "$(bin initdb)" ] || die "Postgres is missing: scripts/setup.sh test installs it"
  local dir at port
  mkdir -p "$1" && dir=$(cd "$1" && pwd)
  remember "$dir" "$2"
  place "$dir"
  at=$(cat "$dir/place")
  port=$(cat "$dir/port")
  if [ ! -e "$dir/initialised" ]; then
    # The password reaches initdb by a pipe, never by a command line.
    as_postgres "$(bin initdb)" -D "$at" -U mangrove --auth=scram-sha-256 --pwfile=/dev/stdin --encoding=UTF8 --locale=C.UTF-8 \
      <"$dir/password" >"$dir/log" 2>&1 || die "initdb failed: $(tail -n 3 "$dir/log")"
    touch "$dir/initialised"
  fi
  if ! pid_of "$dir" postgres >/dev/null; then
    local flags
    read -ra flags <<<"${POSTGRES_FLAGS:-}"
    (cd / && as_postgres setsid "$(bin postgres)" -D "$at" -p "$port" -c listen_addresses=127.0.0.1 -c unix_socket_directories= \
      -c max_connections=200 "${flags[@]}") >>"$dir/log" 2>&1 </dev/null &
    # Postgres keeps its pid in its data; what stands there may be of a life before.
    local job=$! begun=$SECONDS
    until lives "$(head -n 1 "$at/postmaster.pid" 2>/dev/null)"; do
      if ! lives "$job" || [ $((SECONDS - begun)) -ge "${wait_s:?}" ]; then
        die "the server ended: $(tail -n 5 "$dir/log")"
      fi
      sleep 0.1
    done
    head -n 1 "$at/postmaster.pid" >"$dir/pid"
  fi
  await "$dir" postgres answers "$dir"
  echo "postgres://mangrove:$(cat "$dir/password")@127.0.0.1:$port/postgres"
}

# As a machine that loses power: no process of the server lives on.
crash() { # DIR
  local pid child children
  pid=$(pid_of "$1" postgres) || return 0
  children=$(pgrep -P "$pid") || true
  # shellcheck disable=SC2086
  kill -9 "$pid" $children 2>/dev/null || true
  stop "$1" postgres KILL
  # The next start refuses to share memory with any that is left.
  for child in $children; do
    while lives "$child"; do sleep 0.05; done
  done
}

remove() { # DIR
  stop "$1" postgres INT
  [ ! -s "$1/place" ] || rm -rf "$(cat "$1/place")"
  rm -rf "$1"
}

case ${1:-} in
  start) start "${2:?postgres.sh start DIR PORT}" "${3:-0}" ;;
  stop) stop "${2:?postgres.sh stop DIR}" postgres INT ;;
  kill) crash "${2:?postgres.sh kill DIR}" ;;
  remove) remove "${2:?postgres.sh remove DIR}" ;;
  *) sed -n '2,14s/^# \{0,1\}//p' "$0"; exit 2 ;;
esac

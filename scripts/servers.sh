#!/usr/bin/env bash
# What kafka.sh, redis.sh and postgres.sh share: ports, passwords, pids of a server in a folder of its own. Sourced, not run.
wait_s=60

die() { echo "${0##*/}: $*" >&2; exit 1; }

lives() { # PID (a zombie does not)
  local stat
  [ -n "$1" ] && stat=$(cat "/proc/$1/stat" 2>/dev/null) && [[ ${stat##*) } != Z* ]]
}

pid_of() { # DIR NAME: the pid of its server, if that lives and its number was not given to another process
  local pid
  pid=$(head -n 1 "$1/pid" 2>/dev/null) && lives "$pid" || return 1
  tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null | grep -qF "$2" && echo "$pid"
}

# Nobody else is given it for two hours: its server may be on its way, or killed for a while.
free_port() {
  local port taken=${TMPDIR:-/tmp}/mangrove-ports-$UID
  mkdir -p "$taken"
  find "$taken" -mindepth 1 -mmin +120 -delete 2>/dev/null || true
  while :; do
    port=$((20000 + RANDOM % 12000)) # below the range from which the system takes ports by itself
    (set -o noclobber && : >"$taken/$port") 2>/dev/null || continue
    (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || { echo "$port"; return; }
  done
}

# Chooses the folder's port and password, once.
remember() { # DIR PORT
  if [ ! -s "$1/port" ]; then
    if [ "$2" = 0 ]; then free_port; else echo "$2"; fi >"$1/port"
  fi
  [ -s "$1/password" ] || head -c 18 /dev/urandom | base64 | tr '+/' 'AB' >"$1/password"
}

await() { # DIR NAME CONDITION...
  local dir=$1 name=$2 begun=$SECONDS
  shift 2
  until "$@"; do
    pid_of "$dir" "$name" >/dev/null || die "the server ended: $(tail -n 5 "$dir/log")"
    [ $((SECONDS - begun)) -lt $wait_s ] || die "no answer in $wait_s s; log: $dir/log"
    sleep 0.1
  done
}

stop() { # DIR NAME SIGNAL
  local pid begun=$SECONDS
  pid=$(pid_of "$1" "$2") || return 0
  kill "-$3" "$pid" 2>/dev/null || true
  while pid=$(pid_of "$1" "$2"); do
    [ $((SECONDS - begun)) -lt 20 ] || kill -9 "$pid" 2>/dev/null || true
    sleep 0.1
  done
  rm -f "$1/pid"
}

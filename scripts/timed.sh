#!/usr/bin/env bash
# Runs one step, says what runs and how long it took, and passes its exit code on.
#   timed.sh NAME COMMAND...    with MANGROVE_STEPS=FILE the step is noted there
#   timed.sh --summary FILE     prints the noted steps as a table
set -euo pipefail

if [ "$1" = --summary ]; then
  awk -F'\t' '{ printf "  %6d s  %-7s %s\n", $1, $2, $3; sum += $1 } END { printf "  %6d s  in all\n", sum }' "$2"
  exit
fi

name=$1
shift
echo "== $name: $*"
begun=$SECONDS code=0
"$@" </dev/null || code=$?
took=$((SECONDS - begun))
result="done"
[ "$code" = 0 ] || result=FAILED
echo "== $name $result in $took s"
if [ -n "${MANGROVE_STEPS:-}" ]; then printf '%s\t%s\t%s\n' "$took" "$result" "$name" >>"$MANGROVE_STEPS"; fi
exit "$code"

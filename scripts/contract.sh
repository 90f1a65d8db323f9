#!/usr/bin/env bash
# Holds a live server against its own document: schemathesis runs every operation of /openapi.json with right and with wrong input. It
# fails at a server error, and at a status, type or body that the document does not have.
#   contract.sh [BINARY]   default target/release/mangrove
#   SEED=, EXAMPLES=       which cases, and how many for each operation; default 1 and 30
set -euo pipefail
cd "$(dirname "$0")/.."
binary=${1:-target/release/mangrove}
place=target/contract
tools=$PWD/target/tools/contract
skip() {
  echo "!! SKIPPED contract: $1"
  echo "SKIPPED contract: $1" >>"${MANGROVE_SKIPS:-/dev/null}"
  exit 0
}

[ -x "$binary" ] || { echo "no binary at $binary"; exit 1; }
if ! [ -x "$tools/bin/st" ]; then
  { python3 -m venv "$tools" && "$tools/bin/pip" -q --disable-pip-version-check install -r scripts/contract.txt; } ||
    skip "schemathesis cannot be installed: it comes from PyPI, into a venv"
fi

rm -rf $place
mkdir -p $place
# A payment a second: too few to train on, so that trainings that are ordered end at once.
HTTP_ADDR=127.0.0.1:0 LOG_FORMAT=json AUTO_TRAIN=off REDIS_URL='' DATABASE_URL='' \
  "$binary" demo --dir $place/data --rate 1 >$place/out 2>$place/log &
server=$!
trap 'kill $server 2>/dev/null || true; wait $server 2>/dev/null || true' EXIT
address=
for _ in $(seq 600); do
  address=$(sed -n 's/.*"address":"\([0-9.:]*\)".*HTTP is served.*/\1/p; s/.*HTTP is served.*"address":"\([0-9.:]*\)".*/\1/p' $place/log | head -n 1)
  [ -z "$address" ] || break
  kill -0 $server 2>/dev/null || { tail -n 20 $place/log; exit 1; }
  sleep 0.1
done
url=http://$address
for _ in $(seq 600); do
  ! curl -sf "$url/readyz" >/dev/null || break
  sleep 0.1
done

# An endless answer has no end to wait for: the stream of verdicts has tests of its own.
config=$PWD/scripts/contract.toml
cd $place # Where it leaves what it remembers.
"$tools/bin/st" --config-file "$config" run "$url/openapi.json" --url "$url" \
  --checks not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance,unsupported_method \
  --phases examples,coverage,fuzzing --max-examples "${EXAMPLES:-30}" --seed "${SEED:-1}" --workers 2 \
  --exclude-path-regex '/v1/stream/.*' --suppress-health-check all --request-timeout 30 --generation-database none \
  --report junit --report-dir . --warnings off
kill -0 $server 2>/dev/null || { echo "the server did not live to the end"; tail -n 20 log; exit 1; }

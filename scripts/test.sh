#!/usr/bin/env bash
# Everything that proves the project: set-up, the tests against real parts, the lints; then what each part took and what was
# skipped. With an argument only the tests whose name contains it, and no lints.
#   TEST_MINUTES  the longest that the tests may take, default 30
#   CI=true       a skip is a failure, except RustSec's advisories
set -uo pipefail
cd "$(dirname "$0")/.." || exit
filter=${1:-}
mkdir -p target
export MANGROVE_STEPS=$PWD/target/steps.tsv MANGROVE_SKIPS=$PWD/target/skips.txt
log=target/test.log
: >"$MANGROVE_STEPS"
: >"$MANGROVE_SKIPS"
: >"$log"
failed=0

step() { scripts/timed.sh "$@" || failed=1; }
count() { sed -n "s/^test result: .* \([0-9]*\) $1;.*/\1/p" "$log" | awk '{ n += $1 } END { print n + 0 }'; }
tests=(scripts/cargo.sh test --release --locked --workspace --no-fail-fast)

step "set-up" scripts/setup.sh build test
step "build of the tests" "${tests[@]}" --no-run
if [ "$failed" = 0 ]; then
  trap 'scripts/testbed.sh down' EXIT
  scripts/timed.sh "test bed" scripts/testbed.sh up || echo "test bed: not all of it started" >>"$MANGROVE_SKIPS"
  # shellcheck disable=SC1091
  [ ! -e target/testbed/env ] || . target/testbed/env
  step "tests" timeout -k 10 "${TEST_MINUTES:-30}m" "${tests[@]}" -- --skip chaos_under --skip every_planted ${filter:+"$filter"} > >(tee "$log") 2>&1
  wait $!
  if [[ -z $filter || $filter == chaos* ]]; then
    minutes=${MANGROVE_CHAOS_MINUTES:-4}
    step "chaos" timeout -k 10 "$((${minutes%.*} + 15))m" "${tests[@]}" --test chaos -- --nocapture "${filter:-chaos_under}" \
      > >(tee -a "$log") 2>&1
    wait $!
  fi
  [[ -n $filter && $filter != instructions* ]] || step "instructions" scripts/instructions.sh
  [[ -n $filter && $filter != contract* ]] || step "contract" scripts/contract.sh
  [ -n "$filter" ] || step "simulation" scripts/sim.sh > >(tee -a "$log") 2>&1
  wait $!
  [[ -n $filter && $filter != every_planted* ]] || step "planted bugs" env BUG=all scripts/sim.sh > >(tee -a "$log") 2>&1
  wait $!
fi
[ -n "$filter" ] || step "deployment" scripts/deploy.sh
[ -n "$filter" ] || scripts/lint.sh || failed=1

if [ "${CI:-}" = true ] && [ "$(compgen -G 'target/release/build/librocksdb-sys-*/output' | wc -l)" -gt 1 ]; then
  echo "!! RocksDB was compiled more than once: two cargo calls differ in profile, features or compiler"
  failed=1
fi
echo
echo "== time"
scripts/timed.sh --summary "$MANGROVE_STEPS"
echo "== skipped"
sort -u "$MANGROVE_SKIPS" | sed 's/^/  /'
if [ "${CI:-}" = true ] && grep -qv '^advisories:' "$MANGROVE_SKIPS"; then
  echo "!! in CI nothing but the advisories may be skipped"
  failed=1
fi
skipped=$(sort -u "$MANGROVE_SKIPS" | grep -c '^SKIPPED ')
[ "$failed" = 0 ] || echo "== FAILED"
echo "$(($(count passed) - skipped)) passed, $(count failed) failed, $((skipped + $(count ignored))) skipped"
exit $failed

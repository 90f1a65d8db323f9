#!/usr/bin/env bash
# Everything that is checked without running it: form, shell scripts, dependencies, clippy, docs. Goes on after a failure.
set -uo pipefail
cd "$(dirname "$0")/.." || exit
failed=0
step() { scripts/timed.sh "$@" || failed=1; }
deny() { step "$1" target/tools/bin/cargo-deny --locked -L error check --hide-inclusion-graph "${@:2}"; }

step "lint: set-up" scripts/setup.sh build lint
step "lint: rustfmt" cargo fmt --all --check
step "lint: shellcheck" shellcheck scripts/*.sh benches/peers/*.sh .ci/run
deny "lint: dependencies" bans licenses sources
if timeout 120 target/tools/bin/cargo-deny -L off --locked fetch db </dev/null >/dev/null 2>&1; then
  deny "lint: advisories" --disable-fetch advisories
else
  echo "!! SKIPPED advisories: RustSec's database is out of reach"
  echo "advisories: RustSec's database is out of reach" >>"${MANGROVE_SKIPS:-/dev/null}"
fi
step "lint: clippy" scripts/cargo.sh clippy --release --locked --workspace --all-targets -- -D warnings
RUSTDOCFLAGS="-D warnings" step "lint: rustdoc" scripts/cargo.sh doc --release --locked --workspace --no-deps
exit $failed

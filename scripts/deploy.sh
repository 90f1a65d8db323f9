#!/usr/bin/env bash
# What can be proved of Dockerfile, docker-compose.yml and deploy/ without a container engine:
#   schemas    docker-compose.yml against the compose specification, manifests against Kubernetes' own, strictly
#   unit       systemd's own checkers
#   image      the Dockerfile's build steps run in a clean folder that has only what they copy; the binary that comes of it links
#              nothing but what the image installs, and works for a user who owns nothing but its volumes
#   settings   what each service, manifest and unit gives its instance passes that binary's `check`
# Not proved, for want of an engine: that images are pulled, start and find each other.
#   deploy.sh [SCHEMAS...]   all of it, or the parts named
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
venv=target/tools/deploy
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
chmod 755 "$work"

fail() {
  echo "!! $*"
  exit 1
}

tools() {
  [ -x $venv/bin/pip ] || python3 -m venv $venv
  cmp -s scripts/tools-deploy.txt $venv/installed && return
  $venv/bin/pip -q --disable-pip-version-check install --only-binary :all: --require-hashes -r scripts/tools-deploy.txt
  cp scripts/tools-deploy.txt $venv/installed
}

schemas() {
  $venv/bin/check-jsonschema --builtin-schema vendor.compose-spec docker-compose.yml
  $venv/bin/kubernetes-validate --quiet --strict deploy/kubernetes/*.yaml
}

unit() {
  command -v systemd-analyze >/dev/null || { echo "no systemd here: the unit is not checked"; return; }
  # Exposure is told in tenths of ten: below 2 is what systemd calls OK.
  systemd-analyze security --offline=true --threshold=20 --no-pager deploy/systemd/mangrove.service >"$work/unit" ||
    { cat "$work/unit"; fail "the unit is too exposed"; }
  tail -n 1 "$work/unit"
}

# Compiled dependencies are taken from this clone's target folder, so that RocksDB is not compiled a second time.
image() {
  local line words from
  mkdir "$work/src" "$work/out"
  while read -r line; do
    case $line in
      "COPY "*)
        read -r -a words <<<"${line#COPY }"
        unset 'words[-1]'
        for from in "${words[@]}"; do
          git ls-files -z --error-unmatch -- "$from" | xargs -0 cp --parents -t "$work/src"
        done
        ;;
      "RUN "*)
        echo "$line"
        line=${line#RUN }
        line=${line//target\/release/$root\/target\/release}
        (cd "$work/src" && CARGO_TARGET_DIR=$root/target sh -ec "${line//\/out\//$work/out/}")
        ;;
    esac
  done < <(awk '/^FROM/ { stage++ } stage == 1' Dockerfile)
  [ -x "$work/out/mangrove" ] || fail "no binary came of the Dockerfile's steps"
  echo "the binary: $(($(stat -c %s "$work/out/mangrove") >> 20)) MiB"
  linked
  unprivileged
}

linked() {
  local installs library found package
  # What debian:bookworm-slim has itself, and what the second stage adds.
  installs="libc6 libgcc-s1 $(awk '/^FROM/ { stage++ } stage == 2 && /apt-get/' Dockerfile)"
  while read -r library; do
    # Some files are in several packages' names; the file that is linked may be known under its path before /usr was merged.
    found=$({ dpkg -S "$(readlink -f "$library")" || dpkg -S "$library"; } 2>/dev/null | sed 's/:.*//') || true
    [ -n "$found" ] || fail "no package has $library"
    for package in $found; do
      [[ " $installs " != *" $package "* ]] || continue 2
    done
    fail "the binary links $library of ${found//$'\n'/ }, which the image does not install"
  done < <(ldd "$work/out/mangrove" | awk '/=> \// { print $3 }')
  echo "links nothing but what the image installs"
}

unprivileged() {
  [ "$(id -u)" = 0 ] || { echo "not root: the run as nobody is left out"; return; }
  local at=$work/files/data
  mkdir -p "$at"
  chown nobody "$at"
  (cd "$at" && runuser -u nobody -- env -i PATH=/usr/bin "$work/out/mangrove" demo --records 2000 --http-addr 127.0.0.1:0 >"$work/demo" 2>&1) ||
    { tail -n 20 "$work/demo"; fail "the demo does not work for nobody"; }
  echo "works for a user who owns only its volumes"
}

settings() {
  local binary=$work/out/mangrove file variables failed=0
  [ -x "$binary" ] || binary=$root/target/release/mangrove
  scripts/env.sh "$work/secrets" >/dev/null
  $venv/bin/python scripts/deployed_settings.py "$work/secrets" "$work/settings"
  mkdir -p "$work/files"
  for file in "$work"/settings/*; do
    mapfile -t variables <"$file"
    if (cd "$work/files" && env -i PATH="$PATH" "${variables[@]}" "$binary" check) >"$work/check" 2>&1; then
      echo "settings of ${file##*/}: pass"
    else
      cat "$work/check"
      echo "!! settings of ${file##*/}"
      failed=1
    fi
  done
  return $failed
}

tools
for part in "${@:-schemas unit image settings}"; do
  for each in $part; do $each; done
done

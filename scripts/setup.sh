#!/usr/bin/env bash
# Make .venv from requirements.lock: hash-checked, idempotent, quick when nothing changed.
#
# Needs python3 >= 3.11 (PYTHON=... chooses another). May be interrupted, run twice at once, or
# found in a folder that was moved: the stamp is written last and names everything it stands for.
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."

say() { printf 'setup: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

find_python() {
  local candidate
  for candidate in ${PYTHON:+"$PYTHON"} python3 python3.13 python3.12 python3.11; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      printf '%s\n' "$candidate"
      return
    fi
  done
  die "no Python 3.11 or newer found (tried ${PYTHON:+$PYTHON, }python3, python3.13, python3.12, python3.11)"
}

# Debian keeps ensurepip in a package of its own.
need_venv() {
  "$1" -c 'import ensurepip, venv' 2>/dev/null && return
  if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    die "$1 cannot make virtual environments; install it first: apt-get install python3-venv"
  fi
  say "installing python3-venv"
  export DEBIAN_FRONTEND=noninteractive
  apt-get install -y -qq --no-install-recommends python3-venv >&2 ||
    { apt-get update -qq >&2 && apt-get install -y -qq --no-install-recommends python3-venv >&2; } ||
    die "apt-get could not install python3-venv"
  "$1" -c 'import ensurepip, venv' || die "$1 still cannot make virtual environments"
}

# What a finished environment stands for; another lock, project file, Python or place makes it stale.
wanted_stamp() {
  sha256sum requirements.lock pyproject.toml
  "$1" -c 'import sys; print(sys.version, sys.base_prefix)'
  pwd
}

pip() { .venv/bin/python -m pip --disable-pip-version-check --no-input "$@"; }

# The named packages' entries of the lock file, hashes included.
lock_entries() {
  awk -v names=" $* " '/^[A-Za-z0-9]/ { split($0, part, "=="); keep = index(names, " " part[1] " ") } keep' requirements.lock
}

exec 9<.
flock 9 # one set-up at a time; released when we end

python=$(find_python)
stamp=$(wanted_stamp "$python")
if [ -f .venv/stamp ] && [ "$(cat .venv/stamp)" = "$stamp" ] && .venv/bin/python -c 'import mmd' 2>/dev/null; then
  exit 0
fi
need_venv "$python"

version() { "$1" -c 'import sys; print(sys.version)' 2>/dev/null; }
if [ -d .venv ]; then
  place=$(cat .venv/place 2>/dev/null || pwd)
  if [ "$place" != "$(pwd)" ] || [ "$(version .venv/bin/python)" != "$(version "$python")" ] ||
    ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
    say "removing a .venv that is unfinished, was moved or belongs to another Python"
    rm -rf .venv
  fi
fi
if [ ! -d .venv ]; then
  say "making .venv with $("$python" --version)"
  "$python" -m venv .venv
fi
rm -f .venv/stamp
pwd >.venv/place

say "installing from requirements.lock"
build=$(mktemp)
trap 'rm -f "$build"' EXIT
lock_entries setuptools wheel packaging >"$build"
# The build backend first: what comes as source is then built with the locked one, not with a download.
pip install -qq --require-hashes -r "$build"
pip install -qq --require-hashes --no-build-isolation -r requirements.lock
pip install -qq --no-deps --no-build-isolation --editable .
pip check >/dev/null || { pip check >&2; exit 1; }

printf '%s\n' "$stamp" >.venv/stamp.new
mv .venv/stamp.new .venv/stamp
say "done"

#!/usr/bin/env bash
# Point clients that this project did not write at the sandbox, and Derive's own signing library at ours: in an
# environment of their own.
#
# Its packages are no part of requirements.lock: nothing of mmd runs with them. They have a lock of their own.
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."

python=$PWD/.venv/bin/python
venv=.venv-foreign
lock=tests/foreign/requirements.lock
wanted=$(sha256sum "$lock")
if [ "$(cat "$venv/.wanted" 2>/dev/null)" != "$wanted" ]; then
  rm -rf "$venv"
  "$python" -m venv "$venv"
  said=$(mktemp)
  trap 'rm -f "$said"' EXIT
  if ! "$venv/bin/python" -m pip --disable-pip-version-check install -q --only-binary :all: --require-hashes -r "$lock" \
    2>"$said"; then
    cat "$said" >&2
    if grep -q 'MATCH THE HASHES' "$said"; then
      printf '\n*** foreign: a package is not the one that %s names\n\n' "$lock" >&2
      exit 1
    fi
    printf '\n*** foreign: ccxt and derive-py could not be installed (offline?); their tests are SKIPPED\n\n' >&2
    exit 0
  fi
  printf '%s' "$wanted" >"$venv/.wanted"
fi
MMD_PYTHON=$python "$venv/bin/python" -m pytest -p no:cacheprovider \
  tests/foreign/test_ccxt.py tests/foreign/test_derive_official.py -m slow

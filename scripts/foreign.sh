#!/usr/bin/env bash
# Point clients that this project did not write at the sandbox, and Derive's own signing library at ours: in an
# environment of their own.
#
# Its packages are no part of requirements.lock: nothing of mmd runs with them.
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."

python=$PWD/.venv/bin/python
venv=.venv-foreign
wanted='ccxt==4.5.90 derive-py==0.1.5 pytest==9.2.0 pytest-trio==0.8.0'
if [ "$(cat "$venv/.wanted" 2>/dev/null)" != "$wanted" ]; then
  rm -rf "$venv"
  "$python" -m venv "$venv"
  # shellcheck disable=SC2086  # words on purpose
  if ! "$venv/bin/python" -m pip --disable-pip-version-check install -q $wanted; then
    printf '\n*** foreign: ccxt and derive-py could not be installed (offline?); their tests are SKIPPED\n\n' >&2
    exit 0
  fi
  printf '%s' "$wanted" >"$venv/.wanted"
fi
MMD_PYTHON=$python "$venv/bin/python" -m pytest -p no:cacheprovider \
  tests/foreign/test_ccxt.py tests/foreign/test_derive_official.py -m slow

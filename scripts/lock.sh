#!/usr/bin/env bash
# Write requirements.lock, and that of the foreign clients, anew: newest allowed versions, every file's hash, no address.
#
# One resolution for CPython 3.11 and later on Linux, x86_64 and aarch64: the hashes of all wheels are listed.
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."

tools=$(mktemp -d)
trap 'rm -rf "$tools"' EXIT
.venv/bin/python -m venv "$tools"
"$tools/bin/python" -m pip --disable-pip-version-check install -q uv

backend=$(.venv/bin/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"], sep="\n")')
printf '%s\nwheel\n' "$backend" >"$tools/backend.in"
"$tools/bin/uv" pip compile --quiet --universal --python-version 3.11 --all-extras --generate-hashes \
  --no-header --no-annotate --no-emit-index-url --output-file "$tools/lock" pyproject.toml "$tools/backend.in"
"$tools/bin/uv" pip compile --quiet --universal --python-version 3.11 --generate-hashes \
  --no-header --no-annotate --no-emit-index-url --output-file "$tools/foreign" tests/foreign/requirements.in
{
  printf '# Every package of the environment of foreign clients, by hash. Written by make lock; never edit by hand.\n'
  cat "$tools/foreign"
} >"$tools/foreign.whole"
{
  printf '# Every package mmd is built, run and tested with, by hash. Written by make lock; never edit by hand.\n'
  cat "$tools/lock"
} >"$tools/lock.whole"
if grep -n '://' "$tools/lock.whole" "$tools/foreign.whole"; then
  printf 'lock: an address got into the lock file; nothing was changed\n' >&2
  exit 1
fi
cat "$tools/lock.whole" >requirements.lock
cat "$tools/foreign.whole" >tests/foreign/requirements.lock

# The part of it that an installed daemon needs: names only, the versions stand above.
"$tools/bin/uv" pip compile --quiet --universal --python-version 3.11 --constraints requirements.lock \
  --no-header --no-annotate --no-emit-index-url --output-file "$tools/runtime" pyproject.toml
{
  printf '# Packages of requirements.lock that mmd runs with. Written by make lock.\n'
  sed -n 's/^\([A-Za-z0-9._-]*\)==.*/\1/p' "$tools/runtime"
} >packaging/runtime.txt

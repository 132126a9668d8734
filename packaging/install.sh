#!/usr/bin/env bash
# Install mmd from this checkout: a private Python tree, two launchers, units, /etc/mmd/mmd.yaml.
#
#   DESTDIR=  stage under this folder instead of /      PREFIX=/usr   or /usr/local
#   PYTHON=/usr/bin/python3   the system Python that will run it; the tree works with this minor version only
#
# Safe to repeat: the tree is built beside the old one and swapped in, /etc/mmd/mmd.yaml is never overwritten.
# Nothing is started, enabled or restarted.
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."

destdir=${DESTDIR:-}
prefix=${PREFIX:-/usr}
python=${PYTHON:-/usr/bin/python3}

say() { printf 'install: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

[[ $prefix == /* ]] || die "PREFIX must be absolute: $prefix"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || die "$python is no Python 3.11 or newer"
"$python" -c 'import ensurepip, venv' || die "$python cannot make virtual environments: apt-get install python3-venv"

library=$prefix/lib/mmd
tree=$destdir$library
new=$tree.new

# Entries of the lock file for the packages that mmd runs with, tests and linters left out.
lock_entries() {
  awk -v names=" $* " '/^[A-Za-z0-9]/ { split($0, part, "=="); keep = index(names, " " part[1] " ") } keep' requirements.lock
}

build_tree() {
  local pip=("$new/bin/python3" -m pip --disable-pip-version-check --no-input install -qq --no-compile --require-hashes)
  rm -rf "$new"
  mkdir -p "$(dirname "$new")"
  "$python" -m venv "$new"
  lock_entries setuptools wheel packaging >"$work/backend.lock"
  local names
  mapfile -t names < <(grep -v '^#' packaging/runtime.txt)
  lock_entries "${names[@]}" >"$work/runtime.lock"
  "${pip[@]}" -r "$work/backend.lock"
  "${pip[@]}" --no-build-isolation -r "$work/runtime.lock"
  # A copy is built, so that no build folder appears in the checkout.
  cp -rL pyproject.toml README.md LICENSE mmd "$work/"
  "$new/bin/python3" -m pip --disable-pip-version-check install -qq --no-compile --no-deps --no-build-isolation "$work"
}

# Drop what only building needed, and every trace of where it was built.
settle_tree() {
  local site
  site=$("$new/bin/python3" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
  "$new/bin/python3" -m pip uninstall -qq --yes setuptools wheel 2>/dev/null
  grep -qx packaging packaging/runtime.txt || "$new/bin/python3" -m pip uninstall -qq --yes packaging
  "$new/bin/python3" -m pip uninstall -qq --yes pip
  find "$new/bin" -mindepth 1 ! -name python3 -delete
  ln -sfn "$python" "$new/bin/python3"
  rm -f "$new/lib64" "$site"/mmd-*.dist-info/direct_url.json
  printf 'home = %s\ninclude-system-site-packages = false\n' "$(dirname "$python")" >"$new/pyvenv.cfg"
  "$new/bin/python3" -I -m compileall -q -s "$new" -p "$library" "$site" || die "some module does not compile"
}

launcher() { # path, module
  mkdir -p "$(dirname "$1")"
  printf '#!/bin/sh\nexec %s/bin/python3 -I -m %s "$@"\n' "$library" "$2" >"$1"
  chmod 0755 "$1"
}

place() { # mode, source, target
  mkdir -p "$(dirname "$3")"
  sed "s|=/usr/\(sbin\|bin\)/|=$prefix/\1/|; s|/usr/share/doc|$prefix/share/doc|" "$2" >"$3"
  chmod "$1" "$3"
}

umask 022
work=$(mktemp -d)
trap 'rm -rf "$work" "$new"' EXIT
say "building $library"
build_tree
settle_tree
rm -rf "$tree.old"
[ ! -d "$tree" ] || mv "$tree" "$tree.old"
mv "$new" "$tree"
rm -rf "$tree.old"

launcher "$destdir$prefix/sbin/mmd" mmd.cli.mmd
launcher "$destdir$prefix/bin/mmdctl" mmd.cli.mmdctl
place 0644 systemd/mmd.service "$destdir$prefix/lib/systemd/system/mmd.service"
place 0644 systemd/mmd-reap@.service "$destdir$prefix/lib/systemd/system/mmd-reap@.service"
until_proven=mmd-reap@until-proven.service.d/until-proven.conf
place 0644 "systemd/$until_proven" "$destdir$prefix/lib/systemd/system/$until_proven"
place 0644 systemd/mmd.sysusers "$destdir$prefix/lib/sysusers.d/mmd.conf"
place 0644 systemd/mmd.tmpfiles "$destdir$prefix/lib/tmpfiles.d/mmd.conf"
place 0644 packaging/prometheus-rules.yml "$destdir$prefix/share/mmd/prometheus-rules.yml"
place 0644 schemas/mmd.schema.json "$destdir$prefix/share/mmd/mmd.schema.json"
mkdir -p "$destdir$prefix/share/doc/mmd"
cp -r docs/. "$destdir$prefix/share/doc/mmd/"
[ ! -d etc/examples ] || cp -r etc/examples "$destdir$prefix/share/doc/mmd/"

if [ -e "$destdir/etc/mmd/mmd.yaml" ]; then
  say "kept $destdir/etc/mmd/mmd.yaml; the shipped one is $prefix/share/doc/mmd/mmd.yaml"
else
  place 0640 etc/mmd.yaml "$destdir/etc/mmd/mmd.yaml"
fi
cp etc/mmd.yaml "$destdir$prefix/share/doc/mmd/mmd.yaml"

if [ -z "$destdir" ] && [ -d /run/systemd/system ]; then
  systemd-sysusers "$prefix/lib/sysusers.d/mmd.conf"
  systemd-tmpfiles --create "$prefix/lib/tmpfiles.d/mmd.conf"
  systemctl daemon-reload
  say "done; next: edit /etc/mmd/mmd.yaml, mmd check -c /etc/mmd/mmd.yaml, systemctl enable --now mmd"
else
  say "done"
fi

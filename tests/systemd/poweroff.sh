#!/usr/bin/env bash
# Runs as root inside a freshly booted Debian whose /var/lib/mmd is a mount: start the daemon, then power off.
set -euo pipefail

cp -a "$1/." /
systemd-sysusers /usr/lib/sysusers.d/mmd.conf
systemd-tmpfiles --create /usr/lib/tmpfiles.d/mmd.conf
systemctl daemon-reload
systemctl start mmd
systemctl poweroff
exec sleep infinity

#!/usr/bin/env bash
# Install from Debian what some tests need beyond Python; without it those tests are skipped, loudly.
set -euo pipefail

declare -A package=(
  [promtool]=prometheus
  [mandoc]=mandoc
  [shellcheck]=shellcheck
  [debootstrap]=debootstrap
  [systemd-nspawn]=systemd-container
  [systemd-analyze]=systemd
  [make]=make
)
missing=()
for tool in "${!package[@]}"; do
  command -v "$tool" >/dev/null || missing+=("${package[$tool]}")
done
[ ${#missing[@]} -gt 0 ] || exit 0

loud() { printf '\n*** ci-setup: %s\n*** ci-setup: tests that need %s will be SKIPPED\n\n' "$1" "${missing[*]}" >&2; }
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
  loud "not root on a Debian system"
  exit 0
fi
export DEBIAN_FRONTEND=noninteractive
printf 'ci-setup: installing %s\n' "${missing[*]}" >&2
apt-get update -q >&2 </dev/null || loud "apt-get update failed (offline?)"
apt-get install -y -q --no-install-recommends "${missing[@]}" >&2 </dev/null || loud "apt-get install failed"

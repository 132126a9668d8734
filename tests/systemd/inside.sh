#!/usr/bin/env bash
# Runs as root inside a freshly booted Debian: install the staged tree, then live through a day of the daemon.
# Prints `ok NAME` or `FAILED NAME` for each promise; ends with 1 if one was broken.
# shellcheck disable=SC2317 # every function is called through `check`
set -uo pipefail

stage=$1
failed=0
shown() { systemctl show mmd -P "$1"; }
status() { mmdctl status --json | /usr/bin/python3 -c "import json, sys; s = json.load(sys.stdin); print($1)"; }
metric() { scrape /metrics | sed -n "s/^$1 //p"; }
scrape() {
  /usr/bin/python3 -c 'import sys, urllib.request as u; print(u.urlopen("http://127.0.0.1:9464" + sys.argv[1]).read().decode())' "$1"
}
check() { # name, command...
  local name=$1 said
  shift
  if said=$("$@" 2>&1); then
    printf 'ok %s\n' "$name"
  else
    printf 'FAILED %s\n%s\n' "$name" "$said"
    failed=1
  fi
}
equal() { [ "$1" = "$2" ] || { printf 'is %q, should be %q\n' "$1" "$2"; return 1; }; }
refuses() { ! "$@"; }
until_true() { # seconds, command...: look again every tenth of a second
  local tries=$(($1 * 10))
  shift
  until "$@" >/dev/null 2>&1; do
    ((tries-- > 0)) || { printf 'did not become true: %s\n' "$*"; return 1; }
    read -r -t 0.1 <> <(:) || :
  done
}

cp -a "$stage/." /
systemd-sysusers /usr/lib/sysusers.d/mmd.conf
systemd-tmpfiles --create /usr/lib/tmpfiles.d/mmd.conf
systemctl daemon-reload
config=/etc/mmd/mmd.yaml
cp "$config" /root/good.yaml
# Back into the file itself: a new file would not have its owner and mode.
restore() { cat /root/good.yaml >"$config"; }

# --- the unit
check unit_verifies systemd-analyze verify --man=no mmd.service
check unit_is_hardened systemd-analyze security --threshold=12 mmd.service

# --- start
check start_returns_at_ready systemctl start mmd
check is_active systemctl is-active --quiet mmd
runs_as() { equal "$(ps -o user= -p "$(shown MainPID)")" mmd; }
check runs_as_its_own_user runs_as
check status_is_a_sentence until_true 15 sh -c 'systemctl show mmd -P StatusText | grep -q "^quoting .* symbols"'
first() { equal "$(status "s['config_generation'] >= 1 and len(s['symbols']) > 0")" True; }
check control_socket_answers first
check endpoint_is_ready scrape /-/ready
check endpoint_counts_reloads equal "$(metric mmd_config_last_reload_successful)" 1.0
check process_is_measured test -n "$(metric process_resident_memory_bytes)"
journalled() { journalctl -u mmd -o json | grep -q '"MMD_EVENT"'; }
check journal_has_fields until_true 5 journalled
read_only() { refuses runuser -u mmd -- sh -c 'echo x >>/etc/mmd/mmd.yaml'; }
check daemon_cannot_write_its_config read_only

# --- roles, as the kernel names the callers
useradd -M -G mmd,mmd-admin alice
useradd -M -G mmd bob
useradd -M carol
answers() { # status, user, command...
  local wanted=$1 user=$2
  shift 2
  runuser -u "$user" -- mmdctl "$@"
  equal "$?" "$wanted"
}
check strangers_see_nothing answers 4 carol status
check viewers_may_look answers 0 bob status
check viewers_may_change_nothing answers 4 bob halt all --reason mischief
check viewers_changed_nothing equal "$(status "sum(row['state'] == 'HALTED' for row in s['symbols'])")" 0
check admins_may_resume answers 0 alice resume all --reason test
check the_record_names_the_admin until_true 5 sh -c 'journalctl -u mmd | grep -q alice'

# --- reload
before=$(status "s['config_generation']")
printf 'limits: {portfolio: {max_notional_usd: 123456}}\n' >/etc/mmd/mmd.d/90-test.yaml
check good_reload_succeeds systemctl reload mmd
check good_reload_counts equal "$(status "s['config_generation']")" "$((before + 1))"
hash=$(status "s['config_hash']")
check good_reload_is_in_force grep -q 123456 <(mmdctl show config)
printf 'bogus_key: 1\n' >>"$config"
check bad_reload_fails refuses systemctl reload mmd
check bad_reload_leaves_it_active systemctl is-active --quiet mmd
check bad_reload_keeps_the_old_file_in_force equal "$(status "s['config_hash']")" "$hash"
check bad_reload_is_explained grep -q bogus_key <<<"$(status "s['config_error']")"
check bad_reload_is_measured equal "$(metric mmd_config_last_reload_successful)" 0.0
restore
check next_good_reload_heals systemctl reload mmd
check healed_reload_is_measured equal "$(metric mmd_config_last_reload_successful)" 1.0
check sighup_is_heard systemctl kill --signal=HUP --kill-whom=main mmd
check alive_after_sighup until_true 10 systemctl is-active --quiet mmd

# --- stop
check stop_succeeds systemctl stop mmd
check stop_is_clean equal "$(shown Result) $(shown ExecMainStatus)" "success 0"
check no_process_is_left refuses pgrep -u mmd
check runtime_folder_is_gone test ! -e /run/mmd

# --- watchdog
mkdir -p /run/systemd/system/mmd.service.d
printf '[Service]\nWatchdogSec=2\n' >/run/systemd/system/mmd.service.d/watchdog.conf
systemctl daemon-reload
check start_with_watchdog systemctl start mmd
victim=$(shown MainPID)
kill -STOP "$victim"
restarted() { [ "$(shown NRestarts)" -ge 1 ] && systemctl is-active --quiet mmd && [ "$(shown MainPID)" != "$victim" ]; }
check watchdog_restarts_a_hung_daemon until_true 30 restarted
check watchdog_is_in_the_journal until_true 5 sh -c 'journalctl -u mmd | grep -qi "watchdog timeout"'
kill -KILL "$(shown MainPID)"
revived() { [ "$(shown NRestarts)" -ge 2 ] && systemctl is-active --quiet mmd; }
check killed_daemon_comes_back until_true 30 revived
systemctl stop mmd

# --- a file that cannot be used
printf 'bogus_key: 1\n' >>"$config"
systemctl reset-failed mmd 2>/dev/null # it may be forgotten already
check broken_file_does_not_start refuses systemctl start mmd
check broken_file_is_status_78 equal "$(shown ExecMainStatus)" 78
check broken_file_is_not_tried_again equal "$(shown NRestarts)" 0
restore
check repaired_file_starts systemctl start mmd
systemctl stop mmd
exit "$failed"

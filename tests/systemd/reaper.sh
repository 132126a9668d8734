#!/usr/bin/env bash
# Runs as root inside a freshly booted Debian: the daemon is killed, its exchange is another process, and the reaper
# comes after every end. Prints `ok NAME` or `FAILED NAME` for each promise; ends with 1 if one was broken.
# shellcheck disable=SC2317 # every function is called through `check`
set -uo pipefail

stage=$1
failed=0
shown() { systemctl show "${2:-mmd}" -P "$1"; }
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

# --- an exchange that knows its client, and a daemon whose key is a credential
secret=not-a-real-secret
printf '[{"client_id": "booted", "client_secret": "%s"}]\n' "$secret" >/root/accounts.json
printf '%s\n' "$secret" >/etc/mmd/keys/deribit-secret
chmod 0600 /etc/mmd/keys/deribit-secret
cat >/etc/mmd/mmd.yaml <<'CONFIG'
version: 1
service: {name: booted, mode: live, metrics: {listen: null}}
exchanges:
  deribit:
    type: deribit
    network: {url: "ws://127.0.0.1:8645/ws/api/v2"}
    credentials: {client_id: {env: DERIBIT_CLIENT_ID}, client_secret: {credential: deribit-secret}}
spreads: {wide: {fair: mid, style: around, spread_bps: 200, band_bps: 500, size: 10, tolerance_bps: 100}}
instruments: [{exchange: deribit, symbol: BTC-PERPETUAL, spread: wide}]
limits:
  per_symbol: {max_position: 1000, max_order_size: 100, collar_bps: 500}
  portfolio: {max_exposure: {BTC: 5}, max_notional_usd: 1000000, max_drawdown_usd: 5000}
CONFIG
for unit in mmd mmd-reap@; do
  mkdir -p "/run/systemd/system/$unit.service.d"
  printf '[Service]\nLoadCredential=deribit-secret:/etc/mmd/keys/deribit-secret\nEnvironment=DERIBIT_CLIENT_ID=booted\n' \
    >"/run/systemd/system/$unit.service.d/credentials.conf"
done
systemctl daemon-reload
systemd-run --quiet --unit=exchange /usr/sbin/mmd sandbox --listen 127.0.0.1:8645 --accounts /root/accounts.json
call() { # method, key=value...
  /usr/bin/python3 - "$secret" "$@" <<'PYTHON'
import base64, json, sys, urllib.parse, urllib.request
secret, method, *pairs = sys.argv[1:]
query = urllib.parse.urlencode(dict(pair.split("=", 1) for pair in pairs))
request = urllib.request.Request(f"http://127.0.0.1:8645/api/v2/{method}?{query}")
request.add_header("Authorization", "Basic " + base64.b64encode(f"booted:{secret}".encode()).decode())
print(json.dumps(json.load(urllib.request.urlopen(request))["result"]))
PYTHON
}
field() { /usr/bin/python3 -c "import json, sys; d = json.load(sys.stdin); print($1)"; }
check exchange_is_up until_true 20 call public/get_time
mark=$(call public/ticker instrument_name=BTC-PERPETUAL | field 'round(d["mark_price"] * 0.98)')
place() { # label
  call private/buy instrument_name=BTC-PERPETUAL amount=10 type=limit "price=$((mark--))" "label=$1" post_only=true
}
labels() { call private/get_open_orders | field '" ".join(sorted(o["label"] for o in d if not o["label"].endswith("-own")))'; }
# Orders under our name that no lost link cancels; the daemon is stopped, so that it cannot find them first.
leave_orders() {
  kill -STOP "$(shown MainPID)"
  place mmd-booted-BTC-PERPETUAL-b-abc-1 >/dev/null
  place mmd-booted-BTC-PERPETUAL-b-abc-2 >/dev/null
}
newest() { find /var/lib/mmd/certificates -name 'reap-*.json' | sort | tail -n 1; }
told() { field "$1" <"$(newest)"; }
certificates() { find /var/lib/mmd/certificates -name 'reap-*.json' 2>/dev/null | wc -l; }

# --- a clean stop
check starts systemctl start mmd
check is_active systemctl is-active --quiet mmd
check stops systemctl stop mmd
check clean_stop_is_clean equal "$(shown Result) $(shown ExecMainStatus)" "success 0"
check clean_stop_is_certified equal "$(told '(d["proven"], d["cause"])')" "(True, \"the daemon's end: success-exited-0\")"

# --- killed
check starts_again systemctl start mmd
place by-hand >/dev/null
leave_orders
check orders_are_left equal "$(labels | wc -w)" 3
before=$(certificates)
systemctl kill --signal=KILL mmd
more() { [ "$(certificates)" -gt "$before" ]; }
check kill_is_certified until_true 20 more
check killed_and_proven equal "$(told '(d["proven"], d["cause"])')" "(True, \"the daemon's end: signal-killed-KILL\")"
check killed_and_counted equal "$(told '[(e["account"], e["cancelled"] >= 2, e["after"]) for e in d["exchanges"]]')" "[('booted', True, 0)]"
check the_journals_head_is_named test -n "$(told 'd["journal"]["hash"]')"
revived() { [ "$(shown NRestarts)" -ge 1 ] && systemctl is-active --quiet mmd; }
check killed_daemon_comes_back until_true 30 revived
check ours_are_gone_theirs_are_not equal "$(labels)" by-hand
check the_certificate_is_the_services equal "$(stat -c '%U %a' "$(newest)")" "mmd 600"
check no_secret_in_it refuses grep -rq "$secret" /var/lib/mmd
check nobody_had_to_go_on equal "$(shown InactiveExitTimestampMonotonic mmd-reap@until-proven)" 0
check reaping_by_hand_leaves_a_living_daemon_alone systemctl start mmd-reap@until-proven
check still_active systemctl is-active --quiet mmd

# --- the exchange does not answer when the daemon is stopped
printf '[Service]\nTimeoutStopSec=6\n' >/run/systemd/system/mmd.service.d/quick.conf
printf '[Service]\nRestartSec=1\nExecStart=\nExecStart=%s\n' \
  '/usr/sbin/mmd reap -c /etc/mmd/mmd.yaml --timeout 3 --unless-running --after %i' \
  >'/run/systemd/system/mmd-reap@.service.d/quick.conf'
systemctl daemon-reload
leave_orders
kill -STOP "$(shown MainPID exchange)"
systemctl stop mmd
check not_proven_is_a_failure equal "$(shown ActiveState)" failed
check the_other_unit_goes_on until_true 10 sh -c 'systemctl show mmd-reap@until-proven -P ActiveState | grep -q activating'
check it_is_not_proven_yet equal "$(told 'd["proven"]')" False
again() { [ "$(shown NRestarts mmd-reap@until-proven)" -ge 1 ]; }
check it_tries_again until_true 20 again
kill -CONT "$(shown MainPID exchange)"
finished() { equal "$(shown ActiveState mmd-reap@until-proven) $(shown Result mmd-reap@until-proven)" "inactive success"; }
check it_ends_when_it_is_proven until_true 30 finished
check now_it_is_proven equal "$(told 'd["proven"]')" True
check ours_are_gone_again equal "$(labels)" by-hand

# --- a file that cannot be used
printf 'bogus_key: 1\n' >>/etc/mmd/mmd.yaml
systemctl reset-failed mmd 2>/dev/null
check broken_file_does_not_start refuses systemctl start mmd
check broken_file_is_reaped_all_the_same equal "$(told '(d["proven"], len(d["config"]["problems"]) > 0)')" "(True, True)"
exit "$failed"

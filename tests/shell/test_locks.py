"""One daemon for a state directory, one for an account: who holds what, and what becomes of it."""

import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mmd.config.load import load_text
from mmd.config.model import ExchangeConfig
from mmd.shell.locks import (
    AccountLock,
    AccountLocks,
    AccountName,
    account_holder,
    account_name,
    lock_accounts,
    lock_state,
    state_holder,
)

CONFIG = """\
version: 1
exchanges:
  deribit:
    type: deribit
    network: {network}
    credentials: {{client_id: {{env: LOCK_ID}}, client_secret: {{env: LOCK_SECRET}}}}
spreads: {{wide: {{fair: mid, style: around, spread_bps: 200, size: 10}}}}
instruments: [{{exchange: deribit, symbol: BTC-PERPETUAL, spread: wide}}]
limits:
  per_symbol: {{max_position: 1000, max_order_size: 100, collar_bps: 500}}
  portfolio: {{max_exposure: {{BTC: 5}}, max_notional_usd: 1000000, max_drawdown_usd: 5000}}
"""
HOLD = """\
import sys
from pathlib import Path
from mmd.shell.locks import AccountLock, AccountName, lock_state
lock, account = lock_state(Path(sys.argv[1])), AccountLock(AccountName(*sys.argv[2:6]))
print("held", flush=True)
sys.stdin.read()
"""


def exchange(network: str = "testnet") -> ExchangeConfig:
    return load_text(CONFIG.format(network=network)).exchanges["deribit"]


@pytest.fixture
def name(tmp_path: Path) -> AccountName:
    return AccountName("deribit", "deribit", "exchange.example", tmp_path.name)


def test_asking_who_holds_a_directory_takes_nothing(tmp_path: Path) -> None:
    directory = tmp_path / "state"
    assert state_holder(directory) is None  # and makes nothing
    assert not directory.exists()
    with lock_state(directory) as lock:
        assert state_holder(directory) == os.getpid()
        assert fcntl.fcntl(lock, fcntl.F_GETFD) & fcntl.FD_CLOEXEC
        with pytest.raises(OSError, match=rf"another mmd uses this state directory \(pid {os.getpid()}\)"):
            lock_state(directory)
        assert state_holder(directory) == os.getpid()
        (directory / "mmd.lock").write_text("")
        assert state_holder(directory) == 0  # held, by whom is not told
    assert state_holder(directory) is None
    with lock_state(directory):
        assert state_holder(directory) == os.getpid()


def test_a_directory_that_is_replaced_is_noticed(tmp_path: Path) -> None:
    directory = tmp_path / "state"
    with lock_state(directory) as lock:
        assert lock.lost() == ""
        shutil.rmtree(directory)
        assert "No such file" in lock.lost()
        with pytest.raises(FileNotFoundError):
            lock.renew()
        directory.mkdir()
        assert "No such file" in lock.lost()
        with lock_state(directory) as other:
            assert "replaced" in lock.lost()
            with pytest.raises(OSError, match="is held"):
                lock.renew()
            assert other.lost() == ""
        lock.renew()
        assert lock.lost() == ""
        assert state_holder(directory) == os.getpid()
    assert state_holder(directory) is None


def test_both_locks_end_with_their_process(tmp_path: Path, name: AccountName) -> None:
    directory = tmp_path / "state"
    words = [sys.executable, "-c", HOLD, str(directory), name.exchange, name.type, name.server, name.account]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
        assert (state_holder(directory), account_holder(name)) == (holder.pid, holder.pid)
        with pytest.raises(OSError, match=rf"account {name.account} of exchange deribit .*pid {holder.pid}\)"):
            AccountLock(name)
        holder.kill()
        holder.wait(10)
    assert (state_holder(directory), account_holder(name)) == (None, None)
    AccountLock(name).close()


def test_an_account_is_the_same_whatever_the_exchange_is_called(name: AccountName) -> None:
    other = AccountName("another_name", name.type, name.server, name.account)
    with AccountLocks([name]):
        assert account_holder(other) == os.getpid()
        for changed in (
            AccountName(name.exchange, "other", name.server, name.account),
            AccountName(name.exchange, name.type, "other.example", name.account),
            AccountName(name.exchange, name.type, name.server, "other"),
        ):
            assert account_holder(changed) is None
    with pytest.raises(OSError, match="exchange deribit of this configuration trades on it too"):
        AccountLocks([name, other])
    assert account_holder(name) is None  # what was taken is given back


def test_many_questions_do_not_wear_a_lock_out(name: AccountName) -> None:
    lock = AccountLock(name)
    try:
        answers = {account_holder(name) for _ in range(200)}
        assert answers == {os.getpid(), 0}  # the line became busy, which is an answer
        lock.answer()
        assert account_holder(name) == os.getpid()
    finally:
        lock.close()


def test_names_come_from_the_configuration(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LOCK_ID", tmp_path.name)
    monkeypatch.setenv("LOCK_SECRET", "not-a-real-secret")
    by_url = exchange('{url: "wss://TEST.deribit.com/ws/api/v2/"}')
    assert account_name(exchange(), "x").address == account_name(by_url, "x").address
    assert account_name(exchange(), "x").address != account_name(exchange("mainnet"), "x").address
    assert tmp_path.name.encode() not in account_name(exchange(), tmp_path.name).address
    with lock_accounts([exchange()]):
        assert account_holder(account_name(exchange(), tmp_path.name)) == os.getpid()
        with pytest.raises(OSError, match="is in use"):
            lock_accounts([by_url])


def test_the_sandbox_inside_the_process_needs_no_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCK_ID", "any")
    monkeypatch.setenv("LOCK_SECRET", "not-a-real-secret")
    with lock_accounts([exchange("sandbox")]), lock_accounts([exchange("sandbox")]):
        pass


def test_a_lock_that_cannot_be_written_names_its_file_and_is_not_held(tmp_path: Path) -> None:
    (tmp_path / "mmd.lock").symlink_to("/dev/full")
    for _ in range(2):  # the first left nothing open that could stand in the way of the second
        with pytest.raises(OSError, match=r"mmd\.lock") as full:
            lock_state(tmp_path)
        assert full.value.filename == str(tmp_path / "mmd.lock")

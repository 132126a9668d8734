"""Where orders of ours may rest: a small file that the daemon leaves for the reaper, in case it dies.

It names the exchanges of the configuration in force, which after a crash need not be those of the file
that somebody is editing. Secrets are not in it, only where they are. The daemon writes it before it
connects and when a reload changes it; a reaper that has proven every one of them empty removes it.

A place is an account at a server, under the service's name, which orders carry. Where another configuration
takes the place of the last one, the file keeps the places that it leaves as former ones, until a daemon or a
reaper has proven that nothing rests there. So nobody looks for a name but where this directory has used it.
"""

import fcntl
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec

from mmd.config.model import Config, ExchangeConfig, NetworkKind
from mmd.config.salvage import Salvaged, essentials, revive
from mmd.domain.errors import CredentialError
from mmd.journal.statefile import JournalFailed, StateFile
from mmd.shell import logs
from mmd.shell.exchange_types import TYPES
from mmd.shell.locks import state_holder

FILE = "exchanges.json"
ASIDE = f"{FILE}.unreadable-1"
FORMAT = 1
FORMER_MAX = 8  # former configurations that are remembered, the newest first
SERVER_KEYS = ("type", "network")
# Beside an exchange's own keys: the client id, or wallet and subaccount, that its daemon had; "" where it is not known.
ACCOUNT = "account"
OWNER_KEYS = ("credentials", "wallet", "subaccount")
NAME = re.compile(r"[a-z][a-z0-9_]{0,15}", re.ASCII)  # as the schema has it: no other text becomes part of a label

Raw = dict[str, Any]
Exchanges = dict[str, Raw]
log = logs.get("mmd.whereabouts")


class Former(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A name that this directory had, and where."""

    service: str
    exchanges: Exchanges


class Whereabouts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The file's content. `exchanges`: by name, as the configuration has them. `former`: the newest first.

    `dropped`: former places that were too many to be remembered.
    """

    format: int
    service: str
    sha256: str
    exchanges: Exchanges
    former: tuple[Former, ...] = ()
    dropped: int = 0


class Remembered(msgspec.Struct, frozen=True):
    """A place. `account`: as `account_of` has it. `former`: not the last daemon's."""

    service: str
    config: ExchangeConfig
    account: str
    former: bool


class Recalled(msgspec.Struct, frozen=True):
    """What the last daemon left, its configuration's hash, and every place, its own first.

    `problems`: what could not be read, so that a place may be missing. `content`: for `forget`.
    """

    saved: Salvaged
    sha256: str = ""
    places: tuple[Remembered, ...] = ()
    problems: tuple[str, ...] = ()
    content: Whereabouts | None = None


def account_of(config: ExchangeConfig) -> str:
    """The daemon's client id there, or its wallet and subaccount, read now; "" where they cannot be.

    Also where there is no account.
    """
    if config.network is NetworkKind.SANDBOX:
        return ""
    kind = TYPES[config.type]
    try:
        return kind.account(config)
    except CredentialError:
        with suppress(CredentialError):  # the secret alone may be missing
            return kind.likely_account(config)
    return ""


# --- the daemon's --------------------------------------------------------------------------------


def keep(state: Path, config: Config) -> None:
    """Write it; what the last configuration had and this one has not becomes a former place. Raises JournalFailed.

    A file that cannot be read is moved aside, and stays there for people.
    """
    with ExitStack() as stack:
        with suppress(OSError):  # not every file system locks directories; then the reaper removes nothing
            stack.enter_context(_alone(state))
        try:
            found = _read(state)
        except JournalFailed as error:
            _move_aside(state, error)
            found = None
        exchanges = _described(config, found)
        _write(state, config, exchanges, found, _former(found, config.service.name, exchanges))


def settle(state: Path, config: Config) -> None:
    """Write it without former names on these accounts: nothing rests under them any more. Raises JournalFailed."""
    found = _read(state)
    exchanges = _described(config, found)
    left = []
    for each in _former(found, config.service.name, exchanges):
        kept = {name: raw for name, raw in each.exchanges.items() if not _is_among(raw, exchanges.values())}
        left += [Former(each.service, kept)] if kept else []
    _write(state, config, exchanges, found, left)


def former_names(state: Path, config: Config) -> dict[str, tuple[str, ...]]:
    """By exchange: names other than the present one that this directory had on this account."""
    try:
        found = _read(state)
    except JournalFailed:
        return {}
    exchanges = _described(config, found)
    former = [each for each in _former(found, config.service.name, exchanges) if each.service != config.service.name]
    names = {
        name: tuple(dict.fromkeys(each.service for each in former if _is_among(raw, each.exchanges.values())))
        for name, raw in exchanges.items()
    }
    return {name: them for name, them in names.items() if them}


# --- the reaper's --------------------------------------------------------------------------------


def recall(state: Path) -> Recalled:
    """Nothing where there is no file. Raises nothing: what cannot be read is a problem."""
    aside = state / ASIDE
    problems: list[str] = []
    if os.path.lexists(aside):
        problems.append(f"{aside}: was {FILE} once and could not be read: where else orders may rest is not known")
    try:
        found = _read(state)
    except JournalFailed as error:
        return Recalled(Salvaged(), problems=(*problems, str(error)))
    if found is None:
        return Recalled(Salvaged(), problems=tuple(problems))
    source = str(state / FILE)
    if found.dropped:
        problems.append(f"{source}: {found.dropped} former places were too many to be remembered")
    places: list[Remembered] = []
    saved = revive(found.service, found.exchanges, source)
    for number, each in enumerate((Former(found.service, found.exchanges), *found.former)):
        revived = revive(each.service, each.exchanges, source) if number else saved
        problems += revived.problems
        for config in revived.exchanges:
            account = each.exchanges[config.name].get(ACCOUNT)
            places.append(Remembered(each.service, config, account if isinstance(account, str) else "", number > 0))
    return Recalled(saved, found.sha256, tuple(places), tuple(problems), found)


def forget(state: Path, seen: Whereabouts | None) -> None:
    """Nothing rests anywhere that is named in `seen`: remove that, and nothing newer. Raises OSError, JournalFailed.

    A daemon takes the directory before it writes, and both write and this are done alone: who started
    meanwhile is seen here, or writes the file anew.
    """
    if seen is None or not (state / FILE).exists():
        return
    with _alone(state):
        if state_holder(state) is None and _read(state) == seen:
            (state / FILE).unlink(missing_ok=True)


# --- places --------------------------------------------------------------------------------------


def _described(config: Config, found: Whereabouts | None) -> Exchanges:
    """The configuration's exchanges, each with its account. One whose key cannot be read now is as it was."""
    exchanges = essentials(config)
    for name, raw in exchanges.items():
        before = found.exchanges.get(name, {}) if found is not None and found.service == config.service.name else {}
        known = before.get(ACCOUNT, "") if all(before.get(key) == raw.get(key) for key in raw) else ""
        raw[ACCOUNT] = account_of(config.exchanges[name]) or known
    return exchanges


def _former(found: Whereabouts | None, service: str, exchanges: Exchanges) -> list[Former]:
    """All places that were written down and are none of `service`'s `exchanges`; each once, the newest first."""
    if found is None:
        return []
    seen = {service: list(exchanges.values())}
    left: list[Former] = []
    for each in (Former(found.service, found.exchanges), *found.former):
        known = seen.setdefault(each.service, [])
        kept: Exchanges = {}
        for name, raw in each.exchanges.items():
            gone = each.service == service and raw.get("network") == NetworkKind.SANDBOX  # with its process
            if not gone and not _is_among(raw, known):
                kept[name] = raw
        known += kept.values()
        left += [Former(each.service, kept)] if kept else []
    return left


def _is_among(raw: Raw, others: Iterable[Raw]) -> bool:
    return any(_is_same(raw, other) for other in others)


def _is_same(one: Raw, other: Raw) -> bool:
    """One account at one server. Where either's is not known, what says whose it is must be the same."""
    if any(one.get(key) != other.get(key) for key in SERVER_KEYS):
        return False
    accounts = one.get(ACCOUNT), other.get(ACCOUNT)
    return accounts[0] == accounts[1] if all(accounts) else all(one.get(key) == other.get(key) for key in OWNER_KEYS)


# --- on disk -------------------------------------------------------------------------------------


def _read(state: Path) -> Whereabouts | None:
    """None where there is no file. Raises JournalFailed, also where a later version wrote it or a name can be none."""
    file = _file(state)
    found = file.read()
    if found is None:
        return None
    if found.format != FORMAT:
        raise JournalFailed(f"{file.path}: format {found.format}, this version reads {FORMAT}")
    for each in (found.service, *(one.service for one in found.former)):
        if not NAME.fullmatch(each):
            raise JournalFailed(f"{file.path}: {each!r} can be no service's name")
    return found


def _move_aside(state: Path, error: JournalFailed) -> None:
    """What is in the way there is replaced: one is kept. Raises JournalFailed."""
    try:
        (state / FILE).rename(state / ASIDE)
    except OSError as failed:
        raise JournalFailed(f"{state / FILE}: {failed.strerror}") from failed
    log.error("whereabouts.unreadable", detail=str(error), moved_to=str(state / ASIDE))


def _write(
    state: Path, config: Config, exchanges: Exchanges, found: Whereabouts | None, former: Iterable[Former]
) -> None:
    kept = list(former)
    dropped = sum(len(each.exchanges) for each in kept[FORMER_MAX:]) + (found.dropped if found is not None else 0)
    content = Whereabouts(FORMAT, config.service.name, config.sha256, exchanges, tuple(kept[:FORMER_MAX]), dropped)
    _file(state).write(content)


@contextmanager
def _alone(state: Path) -> Iterator[None]:
    """A daemon and a reaper change the file one after the other. Raises OSError.

    Not by the daemon's own lock: whoever took that would keep a daemon from starting.
    """
    handle = os.open(state, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _file(state: Path) -> StateFile[Whereabouts]:
    return StateFile(state / FILE, Whereabouts)

"""What the last process left: read back from the journal before anything is connected."""

import os
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import msgspec

import mmd
from mmd.config.model import Config
from mmd.config.render import for_the_record
from mmd.core.machine import SymbolMachine
from mmd.core.portfolio import PORTFOLIO, PortfolioMachine
from mmd.domain.ids import parse_label
from mmd.domain.reasons import Mode, Side
from mmd.domain.totals import CarriedLosses, ExchangeAwaited, LeftBehind
from mmd.journal.disk import Disk
from mmd.journal.records import Configured, Note, Started
from mmd.journal.statefile import JournalFailed
from mmd.journal.writer import Journal
from mmd.replay.memory import CODE
from mmd.replay.recover import Recovered, nobody_waits, recover

JOURNAL = "journal"
NS_PER_MS = 1_000_000


class Past(msgspec.Struct, frozen=True, kw_only=True):
    """`machines` by symbol's key, of the accounts that are ours still; `halted`: of any account.

    `doubts`: of which of them something could not be read back. `told`: for people. `number`: of the last
    note. `sha256`: of the last configuration. `at`: the last record's time. `former`: by exchange,
    other names of the service on orders that may be out. `held`: by exchange, what we have there at worst; who is
    not in it, of that nobody knows.
    """

    machines: Mapping[str, SymbolMachine]
    halted: Mapping[str, SymbolMachine]
    doubts: Mapping[str, str]
    carried: CarriedLosses | None
    notes: Sequence[Note]
    number: int
    sha256: str
    at: int
    told: str
    former: Mapping[str, Sequence[str]] = {}
    held: Mapping[str, Sequence[LeftBehind]] = {}

    def awaited(self, exchange: str) -> ExchangeAwaited:
        """What the totals are told of an exchange that does not answer."""
        return ExchangeAwaited(exchange, tuple(self.held.get(exchange, ())), exchange in self.held)

    def may_rest(self, exchange: str) -> list[tuple[str, SymbolMachine]]:
        """Labels of orders that are or may be there, and whose they are."""
        machines = [machine for machine in self.machines.values() if machine.instrument.exchange == exchange]
        return [(label, machine) for machine in machines for label in may_rest(machine)]

    def known_ms(self, exchange: str) -> dict[str, int]:
        """Up to when all fills are known, by symbol: when exchange and journal last agreed on the position."""
        return {
            machine.instrument.symbol: machine.agreed_ns // NS_PER_MS
            for machine in self.machines.values()
            if machine.instrument.exchange == exchange and machine.position.known and machine.agreed_ns
        }

    def from_ms(self, exchange: str) -> dict[str, int]:
        """Since when fills are counted, by symbol: earlier ones are in the position that was adopted then."""
        return {
            machine.instrument.symbol: machine.counts_from_ns // NS_PER_MS
            for machine in self.machines.values()
            if machine.instrument.exchange == exchange and machine.counts_from_ns
        }


NO_PAST = Past(machines={}, halted={}, doubts={}, carried=None, notes=(), number=0, sha256="", at=0, told="")


def open_journal(state: Path, config: Config, now_ns: int, disk: Disk | None) -> Journal:
    """Raises JournalFailed."""
    return Journal(
        state / JOURNAL,
        config.journal,
        service=config.service.name,
        version=mmd.__version__,
        code=CODE,
        now_ns=now_ns,
        disk=disk,
    )


def read_back(
    journal: Journal, disk: Disk | None, accounts: Mapping[str, str], alive: Callable[[], None] = nobody_waits
) -> Past:
    """Replay the end of the journal. Raises JournalFailed where it cannot be read.

    `accounts`: ours, by exchange: what another account held is nothing to this one. `alive` is called all the while.
    """
    directory = journal.directory
    try:
        found = recover(directory, disk=disk, alive=alive)
    except JournalFailed as failed:
        text = f"{directory}: {failed}; look with `mmd verify {directory}`, move {directory} away to start"
        raise JournalFailed(text) from failed.__cause__ or failed
    ours = {key for key, owner in found.owners.items() if owner and accounts.get(key.partition("/")[0]) == owner}
    machines = {key: machine for key, machine in found.machines.items() if key in ours}
    gone = len(found.machines) - len(machines)
    portfolio = found.portfolio
    doubts = dict(found.broken)
    for difference in found.differences:
        doubts.setdefault(difference.key, f"the replay differs from the journal at record {difference.seq}")
    unsure = doubts.pop(PORTFOLIO, "")  # then the losses come from their own file
    held = [key for key, machine in machines.items() if machine.position.lots]
    orders = sum(len(may_rest(machine)) for machine in machines.values())
    end = "stopped" if found.stopped else "crashed"
    told = (
        f"{found.records} records of a process that {end}: {len(machines)} symbols, {len(held)} positions, "
        f"{orders} orders that may be out, {len(doubts)} symbols in doubt"
        + (f", {gone} symbols of another account left out" if gone else "")
    )
    told = told if found.machines else ""
    if journal.torn is not None:
        torn = f"{journal.torn.size} bytes at {journal.torn.offset} of {journal.torn.file} were torn and are cut off"
        told = f"{told}; {torn}" if told else torn
    carried = portfolio.carried() if portfolio is not None and not unsure else None
    if carried is not None:
        same = {name for name, account in found.accounts.items() if accounts.get(name) == account}
        left = tuple(one for one in carried.left if one.instrument.exchange in same)
        carried = msgspec.structs.replace(carried, left=left)
    return Past(
        machines=machines,
        halted={key: machine for key, machine in found.machines.items() if machine.latch is not None},
        doubts={key: doubt for key, doubt in doubts.items() if key in ours},
        carried=carried,
        notes=found.notes,
        number=found.number,
        sha256=found.sha256,
        at=found.at,
        told=told,
        former=other_names(machines.values(), journal.service),
        held=held_at_worst(found, machines, doubts, accounts) if carried is not None and found.told else {},
    )


def held_at_worst(
    found: Recovered, machines: Mapping[str, SymbolMachine], doubts: Iterable[str], accounts: Mapping[str, str]
) -> dict[str, list[LeftBehind]]:
    """By exchange: what we have there if everything filled that may be out.

    Only exchanges of which the last process knew everything, with this account: in no doubt, and no position unknown.
    """
    portfolio = found.portfolio
    assert portfolio is not None, "who has no portfolio knows nothing"
    unsure = {key.partition("/")[0] for key in doubts}
    unsure |= {machine.instrument.exchange for machine in machines.values() if not machine.position.known}
    unsure |= {name for name, known in portfolio.awaited.items() if not known}
    held: dict[str, list[LeftBehind]] = {
        name: [] for name, account in accounts.items() if name not in unsure and found.accounts.get(name) == account
    }
    for machine in machines.values():
        left = at_worst(machine, portfolio)
        if left is not None and machine.instrument.exchange in held:
            held[machine.instrument.exchange].append(left)
    return held


def at_worst(machine: SymbolMachine, portfolio: PortfolioMachine) -> LeftBehind | None:
    """What a machine of the last process, or of one before, may hold by now, None where that is nothing.

    A symbol that had left the configuration was counted by its exchange after its machine had its last word.
    """
    key, own = machine.instrument.key, machine.own
    counted = portfolio.left_behind.get(key)
    lots = machine.position.lots if counted is None else counted.lots
    out = own.worst if machine.mode is Mode.LIVE else own.stray_lots
    bid, ask = out(Side.BID), out(Side.ASK)
    worst = max(max(abs(each + bid), abs(each - ask)) for each in (lots, machine.position.lots))
    coins, usd = portfolio.worth(key)
    if not worst:
        return None
    return LeftBehind(instrument=machine.instrument, lots=lots, coins=coins, usd=usd, worst_lots=worst)


def other_names(machines: Iterable[SymbolMachine], service: str) -> dict[str, tuple[str, ...]]:
    """By exchange: services on the labels of their orders that may be out, but for this one."""
    found: dict[str, set[str]] = {}
    for machine in machines:
        for label in map(parse_label, may_rest(machine)):
            if label is not None and label.service != service:
                found.setdefault(machine.instrument.exchange, set()).add(label.service)
    return {exchange: tuple(sorted(names)) for exchange, names in found.items()}


def may_rest(machine: SymbolMachine) -> list[str]:
    """Labels of its orders that are or may be at the exchange."""
    labels = [state.label for state in machine.own.every() if state.label]
    return [label for label in labels if machine.mode is Mode.LIVE or label in machine.own.strays]


def begin(journal: Journal, config: Config, past: Past, accounts: dict[str, str], now_ns: int) -> None:
    """The first records of this process."""
    host = socket.gethostname()
    journal.put(Started, now_ns, version=mmd.__version__, pid=os.getpid(), host=host, accounts=accounts)
    configured(journal, config, 1, past.sha256, now_ns)


def configured(journal: Journal, config: Config, generation: int, old_sha256: str, now_ns: int, by: str = "") -> None:
    """A configuration takes effect."""
    journal.put(
        Configured,
        now_ns,
        generation=generation,
        sha256=config.sha256,
        old_sha256=old_sha256,
        effective=for_the_record(config),
        by=by,
    )

"""A journal's records fed to fresh machines: the same events must lead to the same actions.

What is compared: the digest of every batch's actions, the text of an error that a machine raised, and
the whole state where a snapshot was written. A symbol that differed is `broken`: its machine is still
fed, because it is the best there is to recover from, but it is compared no more until its state is
known for sure again, by a snapshot or because a new process has begun with it.
"""

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from mmd.core.machine import SymbolMachine
from mmd.core.portfolio import PORTFOLIO, PortfolioMachine
from mmd.domain.actions import Decision
from mmd.domain.totals import PortfolioAction, PortfolioEvent
from mmd.journal import records as rec
from mmd.journal.chain import digest
from mmd.journal.statefile import JournalFailed
from mmd.replay import memory
from mmd.replay.differing import between, first_difference, shortened, words
from mmd.replay.forced import take_out
from mmd.replay.valuing import valued

Machine = SymbolMachine | PortfolioMachine
# Of a machine from a snapshot of another version: what it decides next says nothing about the record.
SALVAGED = "its snapshot is of another version, and part of it had to begin anew"
_encode = msgspec.json.Encoder().encode


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """Where the replay left the record. `key` "": the portfolio machine. `events`: what was fed, for people."""

    seq: int
    at: int
    key: str
    where: str
    recorded: str
    replayed: str
    events: tuple[str, ...] = ()


class Stop(msgspec.Struct, frozen=True, kw_only=True):
    """From this record on a symbol is compared no more; `why` in words."""

    seq: int
    key: str
    why: str


class Replayer:
    """`feed` it every record in order. It may begin with any file of the journal.

    `machines`: of the present process, in the order in which they joined; `past`: those that the processes
    before left and nobody has inherited from yet. `broken`: why a symbol cannot be compared any more.
    `accounts`: of the present process, by exchange. A process that ended before it did anything changes
    nothing of what the ones before it left: whose it was, and what of it is in doubt.
    """

    def __init__(self) -> None:
        self.machines: dict[str, SymbolMachine] = {}
        self.portfolio: PortfolioMachine | None = None
        self.past: dict[str, SymbolMachine] = {}
        self.past_portfolio: PortfolioMachine | None = None
        self.accounts: dict[str, str] = {}
        self.past_accounts: dict[str, str] = {}  # of the process of `past_portfolio`
        self.past_told = False  # whether that one was told anything
        self.past_owners: dict[str, str] = {}  # accounts of `past`, by symbol's key
        self.past_doubts: dict[str, str] = {}  # of `past`, and of `past_portfolio`
        self.past_broken: set[str] = set()  # of `past`: they are not what the record had
        self.broken: dict[str, str] = {}
        self.stops: list[Stop] = []  # every one that ever broke
        self.compared = 0  # digests, errors and states that were held against the record
        self.skipped = 0  # records of machines that are not known yet, or not comparable any more
        self.version = ""  # of the program that wrote what is fed
        self.code = memory.CODE  # what its snapshots can be read by
        self.waiting = False  # for the snapshots of the file with which the replay began
        self.unseen: dict[str, int] = {}  # who is waited for, and the first record that could not be followed
        self.salvaged: dict[str, list[str]] = {}  # what of another version's snapshots did not fit
        self._fed = 0
        self._told = False  # whether the portfolio was told anything in this process
        self._taken_out: set[str] = set()

    @property
    def other_code(self) -> bool:
        """Whether another version wrote this: its snapshots are salvaged, and not compared."""
        return self.code != memory.CODE

    def feed(self, record: rec.AnyRecord) -> Difference | None:
        """Do what the record says was done; the difference if something else came out."""
        self._fed += 1
        handler = HANDLERS.get(type(record))
        return handler(self, record) if handler is not None else None

    # --- what a start may go on with ---------------------------------------------------------------

    def heritage(self) -> dict[str, SymbolMachine]:
        """The last machine of every symbol, whichever process had it."""
        return self.past | self.machines

    def last_portfolio(self) -> tuple[PortfolioMachine | None, dict[str, str]]:
        """With the accounts of its process; one that was told nothing leaves what it found."""
        if self.portfolio is not None and (self._told or self.past_portfolio is None):
            return self.portfolio, self.accounts
        return self.past_portfolio, self.past_accounts

    @property
    def told(self) -> bool:
        """Whether the last portfolio was told anything: before that no exchange was asked what we have there."""
        return self._told or self.past_told

    def owner(self, key: str) -> str:
        """The account under which this symbol's last machine ran, or should have; "" where that is not known."""
        if key in self.past_owners and key not in self.machines:
            return self.past_owners[key]
        return self.accounts.get(key.partition("/")[0], "")

    def doubts(self) -> dict[str, str]:
        """Whose last machine may not be what it was, and why."""
        return self.past_doubts | self._doubts()

    def _doubts(self) -> dict[str, str]:
        """Of the present process."""
        found = {
            key: f"what was before record {seq} is not in the journal any more" for key, seq in self.unseen.items()
        }
        found |= {key: f"written by another version: {'; '.join(lost)}" for key, lost in self.salvaged.items() if lost}
        return found | {key: why for key, why in self.broken.items() if why is not SALVAGED}

    # --- the file ----------------------------------------------------------------------------------

    def _segment(self, record: rec.Segment) -> None:
        self.code, self.version = record.code, record.version
        if self._fed == 1 and record.previous:
            self.waiting = True

    def _snapshots_done(self, record: rec.SnapshotsDone) -> None:
        self.waiting = False
        self.accounts = record.accounts or self.accounts  # the start may be in a file that is not read

    def _lost(self, record: rec.Lost) -> None:
        why = f"{record.records} records before this one could not be written"
        for key in (PORTFOLIO, *self.machines):
            self._break(record, key, why)
        self._told = True  # perhaps
        self.past_doubts = dict.fromkeys(self.past, why) | self.past_doubts  # somebody may have inherited

    def _snapshot(self, record: rec.Snapshot) -> Difference | None:
        key = record.key
        machine: Machine | None = self.machines.get(key) if key else self.portfolio
        if machine is None or key in self.broken or key in self._taken_out:
            self._load(record)
            return None
        if self.other_code:
            return None
        found = self._state_differs(record, machine)
        if found is not None:
            self._break(record, key, f"its state differs: {found.where.removeprefix('state: ')}")
            self._load(record)
        return found

    def _state_differs(self, record: rec.Snapshot | rec.Unclaimed, machine: Machine) -> Difference | None:
        """Its state held against the record's."""
        self.compared += 1
        state = memory.save(machine)
        if state == bytes(record.state):
            return None
        found = first_difference(msgspec.json.decode(record.state), msgspec.json.decode(state))
        if found is None:
            return None
        where, recorded, replayed = found
        return Difference(
            seq=record.seq,
            at=record.at,
            key=record.key,
            where=f"state: {where}",
            recorded=shortened(recorded),
            replayed=shortened(replayed),
        )

    def _unclaimed(self, record: rec.Unclaimed) -> Difference | None:
        """A machine of a process before, as the present one has it: it waits for its heir."""
        key, machine = record.key, self.past.get(record.key)
        found = None
        if machine is not None and not record.doubt and key not in self.past_broken:
            found = None if self.other_code else self._state_differs(record, machine)
            if found is None:
                return None
        self.past_owners[key] = record.account
        self.past_broken.discard(key)
        doubts = [record.doubt] if record.doubt else []
        if record.state != rec.NO_STATE:
            try:
                self.past[key], lost = self._read(record.state)
            except memory.CannotLoad as wrong:
                doubts.append(f"its state cannot be read: {wrong}")
            else:
                doubts += [f"written by another version: {'; '.join(lost)}"] if lost else []
                self.past_broken |= {key} if self.other_code else set()
        if doubts:
            self.past_doubts[key] = "; ".join(doubts)
        return found

    def _read(self, state: msgspec.Raw) -> tuple[SymbolMachine, list[str]]:
        """A symbol's machine, and what of it could not be read. CannotLoad."""
        if self.other_code:
            return memory.salvage(state)
        machine = memory.load(state)
        if not isinstance(machine, SymbolMachine):
            raise memory.CannotLoad("it is no symbol's")
        return machine, []

    def _load(self, record: rec.Snapshot) -> None:
        key = record.key
        machine: Machine
        lost: list[str] = []
        try:
            if self.other_code and key:
                machine, lost = memory.salvage(record.state)
            else:
                machine = memory.load(record.state)
        except memory.CannotLoad as wrong:
            self._break(record, key, f"its snapshot cannot be read: {wrong}")
            return
        if isinstance(machine, PortfolioMachine):
            self.portfolio, self._told = machine, True
        else:
            self.machines[key] = machine
        self._heal(key)
        self.past_doubts.pop(key, None)
        if self.other_code:
            self.salvaged[key] = lost
            self._break(record, key, SALVAGED)

    # --- the daemon's life -------------------------------------------------------------------------

    def _started(self, record: rec.Started) -> None:
        self.version = record.version
        found = self._doubts()
        portfolio, accounts = self.last_portfolio()
        self.past_owners |= {key: self.owner(key) for key in (*self.machines, *found)}
        self.past_doubts |= found
        self.past_broken = self.past_broken - self.machines.keys() | self.broken.keys() | self._taken_out
        self.past.update(self.machines)
        self.past_portfolio, self.past_accounts, self.past_told = portfolio, accounts, self.told
        self.machines, self.portfolio, self._told = {}, None, False
        self.accounts = record.accounts
        self.broken.clear()
        self.unseen.clear()
        self.salvaged.clear()
        self._taken_out.clear()

    def _began(self, record: rec.Began) -> None:
        self.portfolio = PortfolioMachine(record.limits, record.switches, record.at, record.carried)
        self._heal(PORTFOLIO)

    def _joined(self, record: rec.Joined) -> Difference | None:
        key = record.key
        past = self.past.pop(key, None)
        self.past_owners.pop(key, None)
        self.past_broken.discard(key)
        if record.inherits and past is None and self.waiting:
            self._unknown(record, key)
            return None
        self._heal(key)
        try:
            machine = SymbolMachine(record.instrument, record.settings, record.epoch, record.at)
        except ValueError as refused:
            self._break(record, key, f"it cannot be made: {refused}")
            return self._refused(record, refused)
        self.machines[key] = machine
        if not record.inherits:
            return None
        if past is None:
            self._break(record, key, "it inherits from a machine of an earlier process, which is not in this part")
            return None
        try:
            machine.inherit(past, record.at)
        except ValueError as refused:
            self._break(record, key, f"it cannot inherit: {refused}")
            return self._refused(record, refused)
        return None

    @staticmethod
    def _refused(record: rec.Joined, why: ValueError) -> Difference:
        """What another version let pass."""
        joined = "joined and inherited" if record.inherits else "joined"
        return Difference(
            seq=record.seq, at=record.at, key=record.key, where="joining", recorded=joined, replayed=str(why)
        )

    def _left(self, record: rec.Left) -> None:
        self.machines.pop(record.key, None)
        self._heal(record.key)
        self.past_doubts.pop(record.key, None)

    # --- decisions ---------------------------------------------------------------------------------

    def _batch(self, record: rec.Batch) -> Difference | None:
        key = record.key
        machine = self.machines.get(key)
        if machine is None:
            self._unknown(record, key)
            return None
        self.past_doubts.pop(key, None)  # it is told of them in its first batch
        actions: list[Decision] = []
        error = ""
        try:
            actions = machine.handle(record.events, record.at)
        except Exception as bug:  # noqa: BLE001  as the pump, the supervisor whose work is repeated here
            error = error_text(bug)
        if record.called_off:
            self._break(record, key, "it was stopped from outside in the middle of this batch")
        if key in self.broken:
            self.skipped += 1
            return None
        self.compared += 1
        if error == record.error and (error or digest(_encode(actions)) == record.digest):
            return None
        if error != record.error:
            found = ("raising", record.error or "nothing raised", error or "nothing raised")
        else:
            found = between(record.actions, actions)
        return self._differs(record, key, found, record.events)

    def _taken(self, record: rec.TakenOut) -> None:
        machine = self.machines.get(record.key)
        if machine is None:
            self._unknown(record, record.key)
            return
        take_out(machine, record.detail, record.at)
        self._taken_out.add(record.key)

    def _totals(self, record: rec.Totals) -> Difference | None:
        portfolio = self.portfolio
        if portfolio is None:
            self._unknown(record, PORTFOLIO)
            return None
        self._told = True
        self.past_doubts.pop(PORTFOLIO, None)
        keys = record.valued if record.valued is not None else self._in_service()
        events: list[PortfolioEvent] = list(record.told)
        for key in keys:
            machine = self.machines.get(key)
            if machine is None and self.waiting:
                self.portfolio = None  # it comes with its snapshot, after all the others
                self._unknown(record, PORTFOLIO)
                return None
            if machine is None or key in self.broken:
                why = self.broken.get(key, "there is no machine of it")
                self._break(record, PORTFOLIO, f"it hears of {key}: {why}")
            value = valued(machine, record.at) if machine is not None else None
            if value is not None:
                events.append(value)
        actions: list[PortfolioAction] = []
        error = ""
        try:
            actions = portfolio.handle(events, record.at)
        except Exception as bug:  # noqa: BLE001  live the daemon would have stopped, and there were no record
            error = error_text(bug)
        if PORTFOLIO in self.broken:
            self.skipped += 1
            return None
        self.compared += 1
        if not error and digest(_encode(actions)) == record.digest:
            return None
        found = ("raising", "nothing raised", error) if error else between(record.actions, actions)
        return self._differs(record, PORTFOLIO, found, events)

    def _in_service(self) -> tuple[str, ...]:
        """Everybody's key, in the order in which they joined; then those of whom there is no machine here."""
        return tuple(key for key in self.machines | self.unseen | self.broken if key != PORTFOLIO)

    # --- what is not as it should be ---------------------------------------------------------------

    def _differs(
        self, record: rec.Record, key: str, found: tuple[str, str, str], events: Sequence[msgspec.Struct]
    ) -> Difference:
        where, recorded, replayed = found
        self._break(record, key, f"it differs from the record: {where}")
        return Difference(
            seq=record.seq,
            at=record.at,
            key=key,
            where=where,
            recorded=shortened(recorded),
            replayed=shortened(replayed),
            events=tuple(words(event) for event in events),
        )

    def _unknown(self, record: rec.Record, key: str) -> None:
        self.skipped += 1
        if self.waiting:
            self.unseen.setdefault(key, record.seq)
        else:
            self._break(record, key, "there is no machine of it: it neither joined nor was in a snapshot")

    def _break(self, record: rec.Record, key: str, why: str) -> None:
        """The first reason counts."""
        if key not in self.broken:
            self.broken[key] = why
            self.stops.append(Stop(seq=record.seq, key=key, why=why))

    def _heal(self, key: str) -> None:
        self.broken.pop(key, None)
        self.unseen.pop(key, None)
        self.salvaged.pop(key, None)
        self._taken_out.discard(key)


HANDLERS: dict[type, Callable[[Replayer, Any], Difference | None]] = {
    rec.Segment: Replayer._segment,
    rec.Snapshot: Replayer._snapshot,
    rec.Unclaimed: Replayer._unclaimed,
    rec.SnapshotsDone: Replayer._snapshots_done,
    rec.Lost: Replayer._lost,
    rec.Started: Replayer._started,
    rec.Began: Replayer._began,
    rec.Joined: Replayer._joined,
    rec.Left: Replayer._left,
    rec.Batch: Replayer._batch,
    rec.TakenOut: Replayer._taken,
    rec.Totals: Replayer._totals,
}
"""The other kinds of records are about people and move no machine."""


# What begins with one of these moves no machine, and need not be decoded to go on.
PEOPLE = tuple(
    f'{{"kind":"{kind.__name__.lower()}",'.encode()
    for kind in (rec.Note, rec.Commanded, rec.Alerted, rec.Configured, rec.Torn)
)


def moves(body: bytes) -> bool:
    """Whether a record's JSON is of a kind that `feed` does something with."""
    return not body.startswith(PEOPLE)


def decode(body: bytes, seq: int) -> rec.AnyRecord:
    """JournalFailed naming the record where this version does not know it."""
    try:
        record: rec.AnyRecord = rec.DECODER.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise JournalFailed(f"record {seq}: this version cannot read it: {error}") from error
    return record


def error_text(bug: Exception) -> str:
    """What a machine raised, as `Batch.error` has it."""
    return f"{type(bug).__name__}: {bug}"

"""What the journal is made of: one line of JSON for each record, each naming its sequence number and time.

`at` is Unix nanoseconds by the daemon's clock, `key` a symbol as `exchange/symbol`. A line is the
record's JSON with the chain's hash before it (`mmd.journal.chain`). What is not written has its default.
"""

from typing import Any

import msgspec

from mmd.domain.actions import Decision
from mmd.domain.events import Mail
from mmd.domain.instruments import Instrument
from mmd.domain.settings import KillSwitches, PortfolioLimits, SymbolSettings
from mmd.domain.totals import CarriedLosses, PortfolioAction, Told

FORMAT = 1


class Record(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="kind", tag=str.lower):
    """Root of the union; never made itself."""

    seq: int
    at: int


# --- the file ------------------------------------------------------------------------------------


class Segment(Record, frozen=True, kw_only=True):
    """First record of every file. `previous`: the hash of the record before it, "" for the very first.

    `number` counts files from 1. `code`: fingerprint of what snapshots can be read by (`mmd.replay.memory`).
    """

    format: int
    number: int
    previous: str
    service: str
    version: str
    code: str


class Snapshot(Record, frozen=True, kw_only=True):
    """A machine's whole state, as `mmd.replay.memory` writes it. `key` "": the portfolio machine."""

    key: str
    state: msgspec.Raw


class Unclaimed(Record, frozen=True, kw_only=True):
    """The state of a machine of an earlier process, which nobody has inherited from yet: its exchange is absent.

    `account`: whose it was. `state` null: it could not be read back. `doubt`: what of it is not sure.
    """

    key: str
    account: str
    state: msgspec.Raw
    doubt: str = ""


class SnapshotsDone(Record, frozen=True, kw_only=True):
    """Every machine has been written since the segment began: a replay may begin with this file.

    `accounts`: as in `started`, which may be in an earlier file. `note`: number of the last note before this.
    """

    accounts: dict[str, str] = {}
    note: int = 0


class Torn(Record, frozen=True, kw_only=True):
    """The file ended within a line, as after a crash: the piece was cut off. `sha256` of what was cut.

    `kept`: name of the file with the piece, beside the journal's; "" where it was not kept.
    """

    file: str
    offset: int
    size: int
    sha256: str
    kept: str = ""


class Lost(Record, frozen=True, kw_only=True):
    """So many records could not be written while the disk failed, and were given up."""

    records: int


# --- the daemon's life ---------------------------------------------------------------------------


class Started(Record, frozen=True, kw_only=True):
    """A process began. Machines of the process before are what its symbols inherit from.

    `accounts`: by exchange's name, whose orders and positions these are; another account inherits nothing.
    """

    version: str
    pid: int
    host: str
    accounts: dict[str, str] = {}


class Configured(Record, frozen=True, kw_only=True):
    """A configuration took effect; with the same hash twice: it is in force in a new file.

    `effective`: all of it, defaults included; secrets are not in it, and of the receivers of alerts only the hosts.
    """

    generation: int
    sha256: str
    old_sha256: str
    effective: dict[str, Any]
    by: str = ""


class Began(Record, frozen=True, kw_only=True):
    """The portfolio machine was made."""

    limits: PortfolioLimits
    switches: KillSwitches
    carried: CarriedLosses | None = None


class Joined(Record, frozen=True, kw_only=True):
    """A symbol's machine was made. `inherits`: from the machine of this key that the last process left."""

    key: str
    instrument: Instrument
    settings: SymbolSettings
    epoch: str
    inherits: bool = False


class Left(Record, frozen=True, kw_only=True):
    """A symbol's machine is gone."""

    key: str


class Stopped(Record, frozen=True, kw_only=True):
    """An orderly end. `left`: orders of ours at each exchange, null where it could not be asked."""

    left: dict[str, int | None]


# --- decisions -----------------------------------------------------------------------------------


class Batch(Record, frozen=True, kw_only=True):
    """A machine handled these events, all at `at`, and returned these actions.

    `digest` is over the actions' JSON (`mmd.journal.chain.digest`). `error`: it raised instead, and
    returned nothing. `called_off`: it was stopped from outside, at a moment that cannot be repeated.
    `shadow`: its orders stay in the house.
    """

    key: str
    events: tuple[Mail, ...]
    digest: str
    actions: tuple[Decision, ...] = ()
    error: str = ""
    called_off: bool = False
    shadow: bool = False


class TakenOut(Record, frozen=True, kw_only=True):
    """A machine that could not even be halted was put to HALTED by force and is not run any more."""

    key: str
    detail: str


NO_STATE = msgspec.Raw(b"null")


class Totals(Record, frozen=True, kw_only=True):
    """The portfolio machine handled these events, then the value of these symbols, read off their machines.

    `valued` null: of all symbols in service, in the order in which they joined. Those whose position is
    not known are left out.
    """

    told: tuple[Told, ...] = ()
    valued: tuple[str, ...] | None = None
    digest: str
    actions: tuple[PortfolioAction, ...] = ()


# --- people --------------------------------------------------------------------------------------


class Note(Record, frozen=True, kw_only=True):
    """One line of `mmdctl events`. `number` goes on over restarts."""

    number: int
    name: str
    detail: str
    symbol: str | None = None
    exchange: str | None = None
    by: str | None = None


class Commanded(Record, frozen=True, kw_only=True):
    """Somebody asked for a change over the control socket or with a signal; written when it is answered."""

    uid: int
    pid: int
    name: str
    method: str
    params: dict[str, Any]
    outcome: str


class Alerted(Record, frozen=True, kw_only=True):
    """An alert began, changed or ended."""

    name: str
    state: str
    severity: str
    summary: str
    detail: str = ""
    symbol: str | None = None
    exchange: str | None = None


AnyRecord = (
    Segment
    | Snapshot
    | Unclaimed
    | SnapshotsDone
    | Torn
    | Lost
    | Started
    | Configured
    | Began
    | Joined
    | Left
    | Stopped
    | Batch
    | TakenOut
    | Totals
    | Note
    | Commanded
    | Alerted
)
DECODER = msgspec.json.Decoder(AnyRecord)

"""Looking at an exchange before anything is risked: what a look finds, and what every exchange is judged by.

A look changes nothing and logs in nowhere where that could disturb a daemon that trades on the same account:
it asks over HTTP. Each exchange has a `Preflight` of its own; the judgements that need no exchange are here.
"""

from collections.abc import Awaitable, Callable, Mapping
from enum import StrEnum
from typing import Protocol, TypeVar

import msgspec
import trio

from mmd.domain.errors import ExchangeAmbiguous, ExchangeMalformed, ExchangeRefused, LinkLost
from mmd.domain.instruments import Instrument, Kind
from mmd.domain.settings import Profile, Protection, Style
from mmd.exchanges.http_rpc import NO_HEADERS, NO_PARAMS, HttpRpc

FAILURES = (LinkLost, ExchangeRefused, ExchangeAmbiguous, ExchangeMalformed)
MS_IN_SECOND, NS_IN_MS = 1000, 1_000_000
NS_MAX = 2**63
BPS = 10_000
SIDES = 2
HIDDEN = "[secret]"
SHOWN_MAX = 3

T = TypeVar("T")


class Grade(StrEnum):
    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


class Finding(msgspec.Struct, frozen=True):
    """One thing that was looked at. `check` is a stable name; `wanted` is empty where nothing has to be said."""

    check: str
    grade: Grade
    found: str
    wanted: str = ""


class Quoted(msgspec.Struct, frozen=True):
    """An instrument that the configuration quotes, and how."""

    instrument: Instrument
    profile: Profile


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """What the configuration finds in a listing; `problems` and `notes` with their place in the file."""

    quoted: tuple[Quoted, ...] = ()
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


Choose = Callable[[Mapping[str, Instrument], Mapping[str, float], Mapping[str, int]], Choice]
"""Of what is listed by symbol, index prices in USD by coin, and the ends (Unix ns) of what is named and has expired."""


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What a configuration wants of one exchange. `coins`: of its instruments; `named`: symbols that it names."""

    max_skew_ms: float
    coins: tuple[str, ...]
    named: tuple[str, ...]
    protections: tuple[Protection, ...]
    needs_cancel_on_disconnect: bool
    choose: Choose


class Preflight(Protocol):
    """One exchange that can be looked at."""

    name: str
    network: str

    async def look(self, wanted: Wanted) -> list[Finding]:
        """Everything that was looked at, the first thing first. Raises nothing: what fails is a finding."""


# --- noting --------------------------------------------------------------------------------------


class Notebook:
    """Findings, as they come. What an exchange answers may repeat what it was sent: `hide` keeps that out."""

    def __init__(self) -> None:
        self.findings: list[Finding] = []
        self._hidden: list[str] = []

    def hide(self, text: str) -> None:
        """A signature or a token, which is as good as a password."""
        self._hidden.append(text)

    def note(self, check: str, grade: Grade, found: str, wanted: str = "") -> None:
        for text in self._hidden:
            found = found.replace(text, HIDDEN)
        self.findings.append(Finding(check, grade, found, wanted))

    def ok(self, check: str, found: str, wanted: str = "") -> None:
        self.note(check, Grade.OK, found, wanted)

    def warn(self, check: str, found: str, wanted: str = "") -> None:
        self.note(check, Grade.WARN, found, wanted)

    def fail(self, check: str, found: str, wanted: str = "") -> None:
        self.note(check, Grade.FAIL, found, wanted)

    async def ask(self, check: str, question: Awaitable[T], wanted: str = "") -> T | None:
        """The answer; None, and a finding, where there is none."""
        try:
            return await question
        except FAILURES as error:
            self.fail(check, str(error), wanted)
            return None


async def asked(
    rpc: HttpRpc,
    method: str,
    read: Callable[[msgspec.Raw], T],
    params: object = NO_PARAMS,
    headers: Mapping[str, str] = NO_HEADERS,
) -> T:
    """A call, and its result as `read` has it. Raises as `HttpRpc.call` does."""
    return read(await rpc.call(method, params, headers))


# --- reach and clock -----------------------------------------------------------------------------


class Moment(msgspec.Struct, frozen=True):
    """The exchange's clock as one answer tells it: ahead of ours by `ahead_ms`, give or take `doubt_ms`."""

    ahead_ms: float
    doubt_ms: float


async def ask_time(rpc: HttpRpc, read_ns: Callable[[msgspec.Raw], int], wall_ns: Callable[[], int]) -> Moment:
    """`public/get_time`; `read_ns` turns its result into Unix ns. Raises as `HttpRpc.call` does."""
    begun = trio.current_time()
    told_ns = await asked(rpc, "public/get_time", read_ns)
    if not 0 < told_ns < NS_MAX:
        raise ExchangeMalformed("public/get_time: no time of this age")
    doubt_ms = (trio.current_time() - begun) * MS_IN_SECOND / 2
    return Moment((told_ns - wall_ns()) / NS_IN_MS + doubt_ms, doubt_ms)


async def reach(
    book: Notebook, rpc: HttpRpc, read_ns: Callable[[msgspec.Raw], int], wall_ns: Callable[[], int], wanted: Wanted
) -> Moment | None:
    """Whether it answers, and its clock; None where it does not."""
    begun = trio.current_time()
    if await book.ask("reach", ask_time(rpc, read_ns, wall_ns), f"an answer of {rpc.base}") is None:
        return None
    book.ok("reach", f"{rpc.base} answers after {(trio.current_time() - begun) * MS_IN_SECOND:.0f} ms")
    moment = await book.ask("clock", ask_time(rpc, read_ns, wall_ns))  # without names and handshakes in it
    if moment is not None:
        judge_clock(book, moment, wanted.max_skew_ms)
    return moment


def judge_clock(book: Notebook, moment: Moment, max_ms: float) -> None:
    """By the threshold of the kill switch `clock_skew`."""
    off, doubt = abs(moment.ahead_ms), moment.doubt_ms
    way = "behind" if moment.ahead_ms > 0 else "ahead of"
    found = f"ours is {off:.0f} ms {way} the exchange's, give or take {doubt:.0f} ms"
    wanted = f"at most {max_ms:g} ms (kill_switches.clock_skew.max_ms)"
    if off - doubt > max_ms:
        book.fail("clock", found, f"{wanted}: set it (timedatectl)")
    elif off + doubt > max_ms:
        book.warn("clock", found, wanted)
    else:
        book.ok("clock", found, wanted)


# --- instruments ---------------------------------------------------------------------------------


def judge_choice(book: Notebook, choice: Choice, index_prices: Mapping[str, float]) -> None:
    """Whether what is to be quoted is there, is traded, and has a grid and fees that the figures fit."""
    for problem in choice.problems:
        book.fail("instruments", problem)
    for text in choice.notes:
        book.warn("instruments", text)
    symbols = [each.instrument.symbol for each in choice.quoted]
    if symbols:
        book.ok("instruments", f"{len(symbols)} to quote: {listing(symbols)}")
    elif not choice.problems:
        book.warn("instruments", "nothing is quoted here")
    for quoted in _alike(choice.quoted):
        _judge_grid(book, quoted, index_prices)
        _judge_fees(book, quoted)


def _alike(quoted: tuple[Quoted, ...]) -> list[list[Quoted]]:
    """Those with the same profile, grid, sizes and fees together."""
    groups: dict[object, list[Quoted]] = {}
    for each in quoted:
        it = each.instrument
        key = (each.profile.name, it.kind is Kind.PERPETUAL, it.grid, it.lot, it.min_lots, it.maker_fee, it.taker_fee)
        groups.setdefault((*key, each.profile), []).append(each)
    return list(groups.values())


def _judge_grid(book: Notebook, quoted: list[Quoted], index_prices: Mapping[str, float]) -> None:
    """Sizes off the grid are among the problems of the choice already; here are prices."""
    instrument, profile = quoted[0].instrument, quoted[0].profile
    whose = listing([each.instrument.symbol for each in quoted])
    tick = instrument.grid.tick
    least = instrument.amount_text(max(1, instrument.min_lots))
    found = f"tick {tick:f}, lot {instrument.lot:f}, least {least} ({whose})"
    step = profile.improve_by
    if profile.style is Style.IMPROVE and step is not None and step % tick:
        counts = max(tick, step - step % tick)
        book.warn("tick", f"{found}: improve_by {step} counts as {counts:f}", f"multiples of {tick:f}")
        return
    width_bps = width_of(profile)
    price = index_prices.get(instrument.base, 0.0)
    if not instrument.is_option and price > 0 and width_bps * price / BPS < float(tick):
        text = f"{width_bps:g} bps are {width_bps * price / BPS:.6g} at {price:g}, less than a tick"
        book.warn("tick", f"{found}: {text}", "a spread of a tick or more: it will be rounded up to one")
        return
    book.ok("tick", found, f"size {profile.size:f}")


def _judge_fees(book: Notebook, quoted: list[Quoted]) -> None:
    instrument, profile = quoted[0].instrument, quoted[0].profile
    maker_bps, taker_bps = (float(fee * BPS) for fee in (instrument.maker_fee, instrument.taker_fee))
    found = f"maker {maker_bps:g} bps, taker {taker_bps:g} bps of the notional"
    found += f" ({listing([each.instrument.symbol for each in quoted])})"
    width_bps = width_of(profile)
    # An option's fee is of the underlying's price, its spread of its own: they cannot be compared without prices.
    if not instrument.is_option and profile.style is Style.AROUND and width_bps < SIDES * maker_bps:
        text = f"spread {profile.name}: {width_bps:g} bps, wanted {SIDES * maker_bps:g} or more to earn two fees back"
        book.warn("fees", found, text)
    else:
        book.ok("fees", found)


def width_of(profile: Profile) -> float:
    """The least distance from bid to ask that the profile means, bps."""
    return max(profile.min_spread_bps, profile.spread_bps if profile.style is Style.AROUND else 0.0)


# --- budgets -------------------------------------------------------------------------------------


def judge_budget(book: Notebook, rate: float, burst: float, choice: Choice) -> None:
    """Requests per second that the account may send to the matching engine, against what its quotes will want."""
    orders = SIDES * len(choice.quoted)
    needed = sum(SIDES / max(1.0, each.profile.refresh_seconds) for each in choice.quoted)
    found = f"{rate:g} requests a second, {burst:g} at once"
    wanted = f"up to {needed:.3g} a second to follow the market with {orders} orders, {orders} at once to pull all"
    if rate < needed:
        book.warn("budget", found, f"{wanted}: quotes will follow more slowly")
    elif burst < orders:
        seconds = (orders - burst) / rate
        book.warn("budget", found, f"{wanted}: that takes {seconds:.1f} s longer")
    else:
        book.ok("budget", found, wanted)


def listing(names: list[str]) -> str:
    """The first few, and how many more."""
    more = f" and {len(names) - SHOWN_MAX} more" if len(names) > SHOWN_MAX else ""
    return ", ".join(names[:SHOWN_MAX]) + more

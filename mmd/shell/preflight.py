"""`mmd check --online`: every exchange of a configuration is looked at, all at once, and nothing is changed.

It may run beside a daemon with the same accounts: no socket, no order, no setting.
"""

import time
from collections.abc import Callable, Mapping

import httpx
import msgspec
import trio

from mmd.config.model import Config, ExchangeConfig, Named, NetworkKind
from mmd.config.select import resolve
from mmd.domain.errors import ConfigError, CredentialError
from mmd.domain.instruments import Instrument
from mmd.exchanges.preflight import Choice, Finding, Grade, Preflight, Quoted, Wanted
from mmd.shell.exchange_types import TYPES
from mmd.shell.logs import redact

LOOK_SECONDS = 60.0


class Report(msgspec.Struct, frozen=True):
    """What was found at one exchange."""

    exchange: str
    network: str
    findings: tuple[Finding, ...]


def look_online(config: Config) -> list[Report]:
    """In the order of the file. Raises nothing: what fails is a finding."""
    return trio.run(look, config)


async def look(
    config: Config,
    wall_ns: Callable[[], int] = time.time_ns,
    transport: Callable[[], httpx.AsyncBaseTransport] | None = None,
) -> list[Report]:
    """`transport` makes what replaces sockets, one for each exchange."""
    reports: dict[str, Report] = {}

    async def look_at(exchange: ExchangeConfig) -> None:
        room, wrong = make_preflight(exchange, wall_ns, None if transport is None else transport())
        found: list[Finding] = []
        with trio.move_on_after(LOOK_SECONDS) as limit:
            found = await room.look(wanted_of(config, exchange, wall_ns))
        if limit.cancelled_caught:
            found = [Finding("reach", Grade.FAIL, f"not done after {LOOK_SECONDS:g} s", "answers to all questions")]
        reports[exchange.name] = Report(exchange.name, room.network, tuple(map(_redacted, [*wrong, *found])))

    async with trio.open_nursery() as nursery:
        for exchange in config.exchanges.values():
            nursery.start_soon(look_at, exchange)
    return [reports[name] for name in config.exchanges]


def _redacted(finding: Finding) -> Finding:
    return msgspec.structs.replace(finding, found=redact(finding.found), wanted=redact(finding.wanted))


# --- rooms ---------------------------------------------------------------------------------------


class InProcess:
    """Implements Preflight for the sandbox inside the daemon's own process."""

    network = "sandbox"

    def __init__(self, name: str) -> None:
        self.name = name

    async def look(self, wanted: Wanted) -> list[Finding]:
        return [Finding("reach", Grade.OK, "inside the daemon's own process: nobody to ask")]


def make_preflight(
    config: ExchangeConfig, wall_ns: Callable[[], int], transport: httpx.AsyncBaseTransport | None = None
) -> tuple[Preflight, list[Finding]]:
    """The room's, and what is wrong with the key; then only what is public is looked at."""
    if config.network is NetworkKind.SANDBOX:
        return InProcess(config.name), []
    kind, network = TYPES[config.type], config.url or str(config.network)
    try:
        return kind.make_preflight(config, network, wall_ns, transport, known=True), []
    except CredentialError as error:
        wrong = Finding("login", Grade.FAIL, str(error), "a key that can be read here")
        return kind.make_preflight(config, network, wall_ns, transport, known=False), [wrong]


# --- what the configuration wants ----------------------------------------------------------------


def wanted_of(config: Config, exchange: ExchangeConfig, wall_ns: Callable[[], int]) -> Wanted:
    """The part of a configuration that one exchange must meet."""
    targets = [entry.target for entry in config.entries if entry.target.exchange == exchange.name]
    named = [target.symbol for target in targets if isinstance(target, Named)]
    coins = [name.split("-")[0].split("_")[0] for name in named]
    coins += [target.underlying for target in targets if not isinstance(target, Named)]
    here = tuple(entry for entry in config.entries if entry.target.exchange == exchange.name)

    def choose(listed: Mapping[str, Instrument], prices: Mapping[str, float], ends: Mapping[str, int]) -> Choice:
        index_prices = {(exchange.name, coin): price for coin, price in prices.items()}
        ended = {(exchange.name, symbol): at_ns for symbol, at_ns in ends.items()}
        part = msgspec.structs.replace(config, entries=here)
        try:
            found = resolve(part, {exchange.name: listed}, index_prices, wall_ns(), ended)
        except ConfigError as error:
            return Choice(problems=tuple(error.lines))
        quoted = tuple(Quoted(each.instrument, each.settings.profile) for each in found.symbols.values())
        return Choice(quoted=quoted, notes=tuple(found.notes))

    return Wanted(
        max_skew_ms=config.switches.max_skew_ms,
        coins=tuple(dict.fromkeys(coins)),
        named=tuple(named),
        protections=exchange.protections,
        needs_cancel_on_disconnect=any(entry.settings.data.require_cancel_on_disconnect for entry in here),
        choose=choose,
    )

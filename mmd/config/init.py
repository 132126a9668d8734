"""A first configuration from the words that atomizer's market maker understood.

`parse` turns the flags and environment names into an `Order` or says everything that is wrong
with them; `to_yaml` writes the file that does the same, with every figure explained.
"""

import re
from collections.abc import Mapping
from datetime import date
from decimal import Decimal

import msgspec

from mmd.config.loose import parse_date

# A35 asks for 0.10 in quote currency. Deribit's coin-margined options are priced in coin, where
# that is a small part of one tick: one tick is the least improvement there is.
COIN_TICK = Decimal("0.0005")
AMOUNT = re.compile(r"[0-9]{1,15}(\.[0-9]{1,15})?")
WHOLE_BOOK_BPS = 10000
# For anything but options that is added later.
COLLAR_BPS = 200
COMMENT_COLUMN = 36

FLAG_OF_ENVIRONMENT = {
    "EXPIRY": "expiry",
    "STRIKES": "strikes",
    "ALL_STRIKES": "all_strikes",
    "SIZE": "size",
    "SPREAD_BPS": "spread",
    "MAX_POSITION": "max_position",
    "MAX_EXPOSURE": "max_exposure",
    "DRY_RUN": "dry_run",
}
DEFAULTS = {
    "exchange": "deribit",
    "underlying": "ETH",
    "spread": "10",
    "size": "0.1",
    "refresh": "1",
    "min_spread": "1000",
    "max_position": "1.0",
    "max_exposure": "10.0",
    "improvement_reference_size": "0",
    "max_notional_usd": "100000",
    "max_drawdown_usd": "1000",
}
# (least, most); None where there is no bound. The least of a size is exclusive when 0.
RANGES: dict[str, tuple[Decimal, Decimal | None]] = {
    "spread": (Decimal(0), Decimal(20000)),
    "min_spread": (Decimal(0), Decimal(20000)),
    "refresh": (Decimal(0), Decimal(3600)),
    "improvement_reference_size": (Decimal(0), None),
}
POSITIVE = ("size", "max_position", "max_exposure", "max_notional_usd", "max_drawdown_usd")
TRUE = ("true", "1", "yes", "on")
FALSE = ("false", "0", "no", "off", "")
WHERE_SECRETS_GO = (
    "other users can read a command line; put it into the environment variable DERIBIT_CLIENT_SECRET, a systemd "
    "credential ({credential: NAME}) or a file that others cannot read ({file: /PATH})"
)
Words = Mapping[str, str | bool | None]


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What is wanted. `strikes` empty: all of them. `improve_by` None: join the touch. Sizes in coins."""

    network: str
    underlying: str
    expiry: date
    strikes: tuple[Decimal, ...]
    spread_bps: Decimal
    min_spread_bps: Decimal
    size: Decimal
    refresh_seconds: Decimal
    max_position: Decimal
    max_exposure: Decimal
    max_notional_usd: Decimal
    max_drawdown_usd: Decimal
    improve_by: Decimal | None
    improve_min_size: Decimal
    live: bool
    dry_run: bool
    secret_env: str
    notes: tuple[str, ...]


class InitRefused(Exception):
    """The words do not make an order; one line for each reason."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines


def parse(words: Words, environ: Mapping[str, str]) -> Order:
    """Flags first, then the environment, then the defaults. Raises InitRefused."""
    work = _Words(words, environ)
    work.refuse_what_cannot_be()
    expiry = work.expiry()
    strikes = work.strikes()
    improve_by = work.improvement()
    figures = {name: work.figure(name) for name in (*RANGES, *POSITIVE)}
    network = work.network()
    dry_run = work.switch("dry_run")
    underlying = work.text("underlying").upper()
    if underlying not in ("BTC", "ETH"):
        work.errors.append(f"--underlying: is {underlying!r}; allowed: BTC, ETH")
    if figures["size"] > figures["max_position"] and not work.errors:
        work.errors.append(f"--size: is {figures['size']} and above --max-position, {figures['max_position']}")
    if work.errors or expiry is None:
        raise InitRefused(work.errors)
    return Order(
        network=network,
        underlying=underlying,
        expiry=expiry,
        strikes=strikes,
        spread_bps=figures["spread"],
        min_spread_bps=figures["min_spread"],
        size=figures["size"],
        refresh_seconds=figures["refresh"],
        max_position=figures["max_position"],
        max_exposure=figures["max_exposure"],
        max_notional_usd=figures["max_notional_usd"],
        max_drawdown_usd=figures["max_drawdown_usd"],
        improve_by=improve_by,
        improve_min_size=figures["improvement_reference_size"],
        live=words.get("live") is True,
        dry_run=dry_run,
        secret_env="DERIBIT_PRIVATE_KEY" if environ.get("DERIBIT_PRIVATE_KEY") else "DERIBIT_CLIENT_SECRET",
        notes=tuple(work.notes),
    )


class _Words:
    """Reads one word at a time and collects what is wrong."""

    def __init__(self, words: Words, environ: Mapping[str, str]) -> None:
        self.words = words
        self.environ = environ
        self.errors: list[str] = []
        self.notes: list[str] = []

    def given(self, name: str) -> tuple[str, str | None]:
        """(where it was said, what); None where nobody said anything."""
        value = self.words.get(name)
        if isinstance(value, str):
            return f"--{name.replace('_', '-')}", value.strip()
        for variable, flag in FLAG_OF_ENVIRONMENT.items():
            if flag == name and self.environ.get(variable, "").strip():
                return f"${variable}", self.environ[variable].strip()
        return f"--{name.replace('_', '-')}", None

    def text(self, name: str) -> str:
        value = self.given(name)[1]
        return value if value is not None else DEFAULTS[name]

    def switch(self, name: str) -> bool:
        if self.words.get(name) is True:
            return True
        where, value = self.given(name)
        word = (value or "").lower()
        if word not in (*TRUE, *FALSE):
            self.errors.append(f"{where}: is {value!r}; allowed: true, false")
        return word in TRUE

    def number(self, where: str, text: str) -> Decimal | None:
        if AMOUNT.fullmatch(text):
            return Decimal(text)
        self.errors.append(f"{where}: is {text[:40]!r}; allowed: a number, as in 0.1")
        return None

    def figure(self, name: str) -> Decimal:
        where = self.given(name)[0]
        value = self.number(where, self.text(name))
        if value is None:
            return Decimal(DEFAULTS[name])
        if name in POSITIVE and value == 0:
            self.errors.append(f"{where}: is 0; allowed: a number above 0")
        least, most = RANGES.get(name, (Decimal(0), None))
        if value < least or (most is not None and value > most):
            self.errors.append(f"{where}: is {value}; allowed: {least} to {most}")
        return value

    def refuse_what_cannot_be(self) -> None:
        exchange = self.text("exchange").lower()
        if exchange == "derive":
            self.errors.append("--exchange: this version cannot quote derive; allowed: deribit")
        elif exchange != "deribit":
            self.errors.append(f"--exchange: is {exchange!r}; allowed: deribit")
        if self.words.get("private_key") is not None:
            self.errors.append(f"--private-key: is never taken from the command line: {WHERE_SECRETS_GO}")
        if self.given("wallet")[1] is not None:
            self.notes.append("--wallet has no meaning on deribit and was left out")

    def network(self) -> str:
        chosen = self.given("network")[1]
        test = self.words.get("test") is True
        if chosen not in (None, "mainnet", "testnet", "sandbox"):
            self.errors.append(f"--network: is {chosen!r}; allowed: mainnet, testnet, sandbox")
        if test and chosen not in (None, "testnet"):
            self.errors.append(f"--test: stands beside --network {chosen}; allowed: one of the two")
        return chosen or ("testnet" if test else "mainnet")

    def expiry(self) -> date | None:
        where, value = self.given("expiry")
        if value is None:
            self.errors.append("--expiry: is missing; allowed: a date as in 20261225")
            return None
        day = parse_date(value)
        if day is None:
            self.errors.append(f"{where}: is {value[:40]!r}; allowed: a date as in 20261225")
        return day

    def strikes(self) -> tuple[Decimal, ...]:
        """The list, or nothing for all of them. A flag silences the other one's environment name."""
        where, value = self.given("strikes")
        everything = self.switch("all_strikes")
        if self.words.get("all_strikes") is True and self.words.get("strikes") is None:
            value = None
        elif self.words.get("strikes") is not None and self.words.get("all_strikes") is not True:
            everything = False
        if value is not None and everything:
            self.errors.append("--strikes and --all-strikes: allowed: one of the two")
        if value is None:
            if not everything:
                self.errors.append("--strikes: is missing; allowed: a list as in 2800,3000 or --all-strikes")
            return ()
        strikes = [self.number(where, part.strip()) for part in value.split(",")]
        found = {strike for strike in strikes if strike is not None}
        if Decimal(0) in found:
            self.errors.append(f"{where}: 0 is no strike")
        return tuple(sorted(found))

    def improvement(self) -> Decimal | None:
        """In coin, whole ticks; None for joining the touch."""
        where, value = self.given("aggression")
        aggression = self.number(where, value) if value is not None else None
        if aggression is not None and 0 < aggression < 1:
            text = "allowed: 0 (join the best price) or 1 and above (improve it); nothing maps to a part of the way"
            self.errors.append(f"{where}: is {aggression}; {text}")
        if aggression == 0:
            return None
        where, value = self.given("improvement")
        if value is None:
            return COIN_TICK
        usd = self.number(where, value)
        index_where, index_text = self.given("index_price")
        index = self.number(index_where, index_text) if index_text is not None else None
        if usd is None:
            return COIN_TICK
        if not index:
            text = "is in USD and these options are priced in coin: give --index-price too, or neither for one tick"
            self.errors.append(f"{where}: {text}")
            return COIN_TICK
        ticks = max(1, int(usd / index / COIN_TICK))  # never more than was asked, but a tick
        self.notes.append(f"{usd} USD at an index of {index} USD is {ticks} tick{'s'[: ticks > 1]} of {COIN_TICK} coin")
        return ticks * COIN_TICK


def to_yaml(order: Order) -> str:
    """The file, ready for `mmd check`."""
    head = f"# {order.underlying} options of {order.expiry} on deribit ({order.network}). Made by mmd init."
    lines = [head, *(f"# Note: {note}" for note in order.notes)]
    for text, comment in [*_service_rows(order), *_spread_rows(order), *_limit_rows(order)]:
        lines.append(f"{text:<{COMMENT_COLUMN}}  # {comment}" if comment else text)
    return "\n".join(lines) + "\n"


def _service_rows(order: Order) -> list[tuple[str, str]]:
    """(YAML, comment) pairs, also below."""
    means = "orders are sent" if order.live else "everything is decided, nothing is sent; write live to trade"
    return [
        ("version: 1", ""),
        ("", ""),
        ("service:", ""),
        ("  name: mmd", "part of every order's label"),
        (f"  mode: {'live' if order.live else 'shadow'}", means),
        ("", ""),
        ("exchanges:", ""),
        ("  deribit:", ""),
        ("    type: deribit", ""),
        (f"    network: {order.network}", "mainnet, testnet or sandbox"),
        ("    credentials:", "where they are, never what they are"),
        ("      client_id: {env: DERIBIT_CLIENT_ID}", ""),
        (f"      client_secret: {{env: {order.secret_env}}}", ""),
        ("", ""),
    ]


def _spread_rows(order: Order) -> list[tuple[str, str]]:
    coin = order.underlying
    style = [("    style: join", "at the best foreign price")]
    if order.improve_by is not None:
        style = [
            ("    style: improve", "better than the best foreign price"),
            (f'    improve_by: "{order.improve_by}"', f"by this much {coin} per {coin}; one tick is {COIN_TICK}"),
        ]
    return [
        ("spreads:", ""),
        ("  options:", ""),
        ("    fair: mid", ""),
        *style,
        (f"    improve_min_size: {order.improve_min_size}", f"{coin}; thinner foreign levels are looked through"),
        (f"    spread_bps: {order.spread_bps}", "whole distance from bid to ask, 100 bps = 1 %"),
        (f"    min_spread_bps: {order.min_spread_bps}", "never less, evenly around the mid; the wider of both wins"),
        (f"    band_bps: {WHOLE_BOOK_BPS}", "no quote further from the reference than this"),
        (f"    size: {order.size}", f"{coin} on each side"),
        (f"    refresh_seconds: {order.refresh_seconds}", "quotes tighten at most this often, and widen at once"),
        ("    requote: amend", "replace: cancel first, then place anew"),
        ("", ""),
    ]


def _limit_rows(order: Order) -> list[tuple[str, str]]:
    coin = order.underlying
    strikes = f"[{', '.join(str(strike) for strike in order.strikes)}]" if order.strikes else "all"
    return [
        ("instruments:", ""),
        ("  - select:", ""),
        ("      exchange: deribit", ""),
        (f"      underlying: {coin}", ""),
        (f"      expiry: {order.expiry}", "the day (UTC) on which they expire"),
        (f"      strikes: {strikes}", "of those the exchange lists"),
        ("      kinds: [call, put]", ""),
        ("    spread: options", ""),
        ("", ""),
        ("limits:", "only here can a limit be made wider; an instrument may narrow it"),
        ("  per_symbol:", "in the symbol's own amount unit"),
        (f"    max_position: {order.max_position}", f"{coin}, long or short; that side stops there"),
        (f"    max_order_size: {order.size}", f"{coin}"),
        (f"    max_order_value_usd: {order.max_notional_usd}", "for options the worth of the underlying counts"),
        (f"    collar_bps: {COLLAR_BPS}", "an order further from the reference is refused"),
        ("  per_kind:", "wins over per_symbol, key by key"),
        ("    option:", ""),
        (f"      collar_bps: {WHOLE_BOOK_BPS}", "options move more"),
        ("  portfolio:", ""),
        (f"    max_exposure: {{{coin}: {order.max_exposure}}}", f"{coin}, sum of absolute positions"),
        (f"    max_notional_usd: {order.max_notional_usd}", "sum of absolute positions at the index price"),
        (f"    max_drawdown_usd: {order.max_drawdown_usd}", "losing this much from the best moment halts everything"),
    ]

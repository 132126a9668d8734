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
from mmd.domain.addresses import checksum, parse_address

DERIBIT, DERIVE = "deribit", "derive"
# A35 asks for 0.10 in quote currency. Deribit's coin-margined options are priced in coin, where
# that is a small part of one tick: one tick is the least improvement there is.
COIN_TICK = Decimal("0.0005")
QUOTE_STEP = Decimal("0.10")
AMOUNT = re.compile(r"[0-9]{1,15}(\.[0-9]{1,15})?")
WHOLE_BOOK_BPS = 10000
# For anything but options that is added later.
COLLAR_BPS = 200
# Of a perpetual, whose books are tight.
PERPETUAL_SPREAD_BPS, PERPETUAL_MIN_SPREAD_BPS, PERPETUAL_BAND_BPS = 10, 5, 100
ORDER_LIFE_SECONDS, ORDER_VALID_MS = 600, 1000
PROTECTION_INTERVAL_MS, PROTECTION_FROZEN_MS = 5000, 60000
COMMENT_COLUMN = 42

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
# What Derive's perpetuals take is 1 at the least.
DERIVE_DEFAULTS = DEFAULTS | {"size": "1", "max_position": "3", "max_exposure": "25"}
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
    "other users can read a command line; put it into the environment variable {variable}, a systemd "
    "credential ({{credential: NAME}}) or a file that others cannot read ({{file: /PATH}})"
)
SECRET_VARIABLE = {DERIBIT: "DERIBIT_CLIENT_SECRET", DERIVE: "DERIVE_PRIVATE_KEY"}
WALLET_VARIABLE = "DERIVE_WALLET_ADDRESS"
WHOLE = re.compile(r"[1-9][0-9]{0,17}")
COIN = re.compile(r"[A-Z0-9]{1,16}")
Words = Mapping[str, str | bool | None]


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What is wanted. `strikes` empty: all of them. `improve_by` None: join the touch. Sizes in coins.

    `wallet` ("": it is in the environment) and `subaccount` are of Derive.
    """

    exchange: str
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
    wallet: str = ""
    subaccount: int = 0


class InitRefused(Exception):
    """The words do not make an order; one line for each reason."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines


def parse(words: Words, environ: Mapping[str, str]) -> Order:
    """Flags first, then the environment, then the defaults. Raises InitRefused."""
    work = _Words(words, environ)
    exchange = work.exchange()
    work.defaults = DERIVE_DEFAULTS if exchange == DERIVE else DEFAULTS
    work.refuse_what_cannot_be(exchange)
    expiry = work.expiry()
    strikes = work.strikes()
    improve_by = work.improvement(exchange)
    figures = {name: work.figure(name) for name in (*RANGES, *POSITIVE)}
    network = work.network()
    dry_run = work.switch("dry_run")
    underlying = work.underlying(exchange)
    wallet, subaccount = work.account() if exchange == DERIVE else ("", 0)
    if figures["size"] > figures["max_position"] and not work.errors:
        work.errors.append(f"--size: is {figures['size']} and above --max-position, {figures['max_position']}")
    if work.errors or expiry is None:
        raise InitRefused(work.errors)
    return Order(
        exchange=exchange,
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
        secret_env=_secret_variable(exchange, environ),
        notes=tuple(work.notes),
        wallet=wallet,
        subaccount=subaccount,
    )


def _secret_variable(exchange: str, environ: Mapping[str, str]) -> str:
    """Where the secret is looked for; Deribit's has an old name too."""
    is_old = exchange == DERIBIT and environ.get("DERIBIT_PRIVATE_KEY")
    return "DERIBIT_PRIVATE_KEY" if is_old else SECRET_VARIABLE[exchange]


class _Words:
    """Reads one word at a time and collects what is wrong."""

    def __init__(self, words: Words, environ: Mapping[str, str]) -> None:
        self.words = words
        self.environ = environ
        self.defaults = DEFAULTS
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
        return value if value is not None else self.defaults[name]

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
            return Decimal(self.defaults[name])
        if name in POSITIVE and value == 0:
            self.errors.append(f"{where}: is 0; allowed: a number above 0")
        least, most = RANGES.get(name, (Decimal(0), None))
        if value < least or (most is not None and value > most):
            self.errors.append(f"{where}: is {value}; allowed: {least} to {most}")
        return value

    def exchange(self) -> str:
        chosen = self.text("exchange").lower()
        if chosen in SECRET_VARIABLE:
            return chosen
        self.errors.append(f"--exchange: is {chosen!r}; allowed: {', '.join(SECRET_VARIABLE)}")
        return DERIBIT

    def refuse_what_cannot_be(self, exchange: str) -> None:
        if self.words.get("private_key") is not None:
            where = WHERE_SECRETS_GO.format(variable=SECRET_VARIABLE[exchange])
            self.errors.append(f"--private-key: is never taken from the command line: {where}")
        if exchange == DERIBIT:
            for name in ("wallet", "subaccount"):
                if self.given(name)[1] is not None:
                    self.notes.append(f"--{name} has no meaning on deribit and was left out")

    def account(self) -> tuple[str, int]:
        """The wallet as it is written, or nothing where the environment will have it; the subaccount."""
        wallet = self.given("wallet")[1] or ""
        try:
            wallet = checksum(parse_address(wallet)) if wallet else ""
        except ValueError as error:
            self.errors.append(f"--wallet: {error}")
        subaccount = self.given("subaccount")[1]
        if subaccount is None:
            self.errors.append("--subaccount: is missing; allowed: the number of a subaccount, as in 30769")
        elif not WHOLE.fullmatch(subaccount):
            self.errors.append(f"--subaccount: is {subaccount[:40]!r}; allowed: a whole number from 1")
        else:
            return wallet, int(subaccount)
        return wallet, 0

    def underlying(self, exchange: str) -> str:
        coin = self.text("underlying").upper()
        if exchange == DERIBIT and coin not in ("BTC", "ETH"):
            self.errors.append(f"--underlying: is {coin!r}; allowed: BTC, ETH")
        elif not COIN.fullmatch(coin):
            self.errors.append(f"--underlying: is {coin[:40]!r}; allowed: a coin, as in ETH")
        return coin

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

    def improvement(self, exchange: str) -> Decimal | None:
        """In the options' price unit (coin: whole ticks); None for joining the touch."""
        where, value = self.given("aggression")
        aggression = self.number(where, value) if value is not None else None
        if aggression is not None and 0 < aggression < 1:
            text = "allowed: 0 (join the best price) or 1 and above (improve it); nothing maps to a part of the way"
            self.errors.append(f"{where}: is {aggression}; {text}")
        if aggression == 0:
            return None
        where, value = self.given("improvement")
        if exchange == DERIVE:  # priced in dollars
            step = QUOTE_STEP if value is None else self.number(where, value)
            if step == 0:
                self.errors.append(
                    f"{where}: is 0; allowed: a number above 0, or --aggression 0 to join the best price"
                )
            return step
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
    what = f"{order.underlying} options of {order.expiry}"
    if order.exchange == DERIVE:
        what += f" and {_perpetual(order)}"
    head = f"# {what} on {order.exchange} ({order.network}). Made by mmd init."
    lines = [head, *(f"# Note: {note}" for note in order.notes)]
    exchange = _derive_rows if order.exchange == DERIVE else _deribit_rows
    for text, comment in [
        *_service_rows(order),
        *exchange(order),
        *_spread_rows(order),
        *_instrument_rows(order),
        *_limit_rows(order),
    ]:
        lines.append(f"{text:<{COMMENT_COLUMN}}  # {comment}" if comment else text)
    return "\n".join(lines) + "\n"


Rows = list[tuple[str, str]]
"""(YAML, comment) pairs."""


def _perpetual(order: Order) -> str:
    return f"{order.underlying}-PERP"


def _service_rows(order: Order) -> Rows:
    means = "orders are sent" if order.live else "everything is decided, nothing is sent; write live to trade"
    return [
        ("version: 1", ""),
        ("", ""),
        ("service:", ""),
        ("  name: mmd", "part of every order's label"),
        (f"  mode: {'live' if order.live else 'shadow'}", means),
        ("", ""),
        ("exchanges:", ""),
        (f"  {order.exchange}:", ""),
        (f"    type: {order.exchange}", ""),
        (f"    network: {order.network}", "mainnet, testnet or sandbox"),
    ]


def _deribit_rows(order: Order) -> Rows:
    return [
        ("    credentials:", "where they are, never what they are"),
        ("      client_id: {env: DERIBIT_CLIENT_ID}", ""),
        (f"      client_secret: {{env: {order.secret_env}}}", ""),
        ("", ""),
    ]


def _derive_rows(order: Order) -> Rows:
    coin = order.underlying
    return [
        (
            f'    wallet: "{order.wallet}"' if order.wallet else f"    wallet: {{env: {WALLET_VARIABLE}}}",
            "the owner's address, or where that is",
        ),
        (f"    session_key: {{env: {order.secret_env}}}", "where it is, never what it is; or {credential: NAME}"),
        (f"    subaccount: {order.subaccount}", "of the wallet; the whole wallet is mmd's alone"),
        (f"    order_valid_ms: {ORDER_VALID_MS}", "a request that takes longer to get there is refused there"),
        (f"    order_life_seconds: {ORDER_LIFE_SECONDS}", "an order's signature ends then; renewed before"),
        ("    maker_protection:", "the exchange pulls all our quotes of the coin"),
        (f"      - currency: {coin}", "options and perpetual together"),
        (f"        interval_ms: {PROTECTION_INTERVAL_MS}", "once within this time"),
        (f"        max_amount: {order.max_exposure}", f"more than this much {coin} was bought and sold"),
        (f"        max_delta: {order.max_position}", f"or the net delta moved by more than this much {coin};"),
        (f"        frozen_ms: {PROTECTION_FROZEN_MS}", "it takes no quotes for so long then; 0: until a reset"),
        ("        reset: manual", "and a person ends that, with mmdctl protection"),
        ("", ""),
    ]


def _spread_rows(order: Order) -> Rows:
    coin = order.underlying
    style = [("    style: join", "at the best foreign price")]
    if order.improve_by is not None:
        step = f"by this much {coin} per {coin}; one tick is {COIN_TICK}"
        if order.exchange == DERIVE:
            step = f"by this many USDC per {coin}"
        style = [
            ("    style: improve", "better than the best foreign price"),
            (f'    improve_by: "{order.improve_by}"', step),
        ]
    options = [
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
    ]
    return [*options, *(_perpetual_rows(order) if order.exchange == DERIVE else []), ("", "")]


def _perpetual_rows(order: Order) -> Rows:
    return [
        ("  perpetual:", ""),
        ("    fair: microprice", "the mid, drawn to the side with less on it"),
        ("    style: around", "half the spread on each side of it"),
        (f"    spread_bps: {PERPETUAL_SPREAD_BPS}", "the fee of a maker is paid twice out of this"),
        (f"    min_spread_bps: {PERPETUAL_MIN_SPREAD_BPS}", "never less"),
        (f"    band_bps: {PERPETUAL_BAND_BPS}", "no quote further from the reference than this"),
        (f"    size: {order.size}", f"{order.underlying} on each side"),
        (f"    refresh_seconds: {order.refresh_seconds}", "as above"),
    ]


def _instrument_rows(order: Order) -> Rows:
    strikes = f"[{', '.join(str(strike) for strike in order.strikes)}]" if order.strikes else "all"
    is_derive = order.exchange == DERIVE
    perpetual = [
        (f"  - exchange: {order.exchange}", ""),
        (f"    symbol: {_perpetual(order)}", "the exchange's own name"),
        ("    spread: perpetual", ""),
    ]
    return [
        ("instruments:", ""),
        ("  - select:", ""),
        (f"      exchange: {order.exchange}", ""),
        (f"      underlying: {order.underlying}", ""),
        *([("      contract: linear", "settled in USDC, as all is there")] if is_derive else []),
        (f"      expiry: {order.expiry}", "the day (UTC) on which they expire"),
        (f"      strikes: {strikes}", "of those the exchange lists"),
        ("      kinds: [call, put]", ""),
        ("    spread: options", ""),
        *(perpetual if is_derive else []),
        ("", ""),
    ]


def _limit_rows(order: Order) -> Rows:
    coin = order.underlying
    return [
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

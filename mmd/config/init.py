"""A first configuration from the words that atomizer's market maker understood.

`parse` turns the flags and environment names into an `Order` or says everything that is wrong
with them; `mmd.config.init_file` writes the file that does the same.
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
# Coins that Derive's perpetual takes at the least, as every listing of it that was seen has it.
PERPETUAL_LEAST = {"ETH": Decimal(1)}

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
    "exchange": DERIVE,
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
    "other users can read a command line; put it into the environment variable {variable}, a systemd "
    "credential ({{credential: NAME}}) or a file that others cannot read ({{file: /PATH}})"
)
SECRET_VARIABLE = {DERIVE: "DERIVE_PRIVATE_KEY", DERIBIT: "DERIBIT_CLIENT_SECRET"}
SUBACCOUNT_ALLOWED = (
    "allowed: the number of the wallet's subaccount that is to trade on derive, as in 30769; "
    "--network sandbox and --exchange deribit need none"
)
WHOLE = re.compile(r"[1-9][0-9]{0,17}")
COIN = re.compile(r"[A-Z0-9]{1,16}")
Words = Mapping[str, str | bool | None]


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What is wanted. `strikes` empty: all of them. `improve_by` None: join the touch. Sizes in coins.

    `wallet` ("": it is in the environment), `subaccount` (0: the sandbox's own account, no wallet either) and
    `perpetual_size` (None: options only) are of Derive.
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
    perpetual_size: Decimal | None = None


class InitRefused(Exception):
    """The words do not make an order; one line for each reason."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines


def parse(words: Words, environ: Mapping[str, str]) -> Order:
    """Flags first, then the environment, then the defaults. Raises InitRefused."""
    work = _Words(words, environ)
    exchange = work.exchange()
    work.refuse_what_cannot_be(exchange)
    expiry = work.expiry()
    strikes = work.strikes()
    improve_by = work.improvement(exchange)
    figures = {name: work.figure(name) for name in (*RANGES, *POSITIVE)}
    network = work.network()
    dry_run = work.switch("dry_run")
    underlying = work.underlying(exchange)
    wallet, subaccount = work.account(network) if exchange == DERIVE else ("", 0)
    if figures["size"] > figures["max_position"] and not work.errors:
        work.errors.append(f"--size: is {figures['size']} and above --max-position, {figures['max_position']}")
    if work.errors or expiry is None:
        raise InitRefused(work.errors)
    perpetual_size = None
    if exchange == DERIVE:
        perpetual_size = work.perpetual_size(underlying, figures["size"], figures["max_position"])
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
        perpetual_size=perpetual_size,
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

    def exchange(self) -> str:
        chosen = self.text("exchange").lower()
        if chosen in SECRET_VARIABLE:
            return chosen
        self.errors.append(f"--exchange: is {chosen!r}; allowed: {', '.join(SECRET_VARIABLE)}")
        return DERIBIT  # which asks for no more words than these

    def refuse_what_cannot_be(self, exchange: str) -> None:
        if self.words.get("private_key") is not None:
            where = WHERE_SECRETS_GO.format(variable=SECRET_VARIABLE[exchange])
            self.errors.append(f"--private-key: is never taken from the command line: {where}")
        if exchange == DERIBIT:
            for name in ("wallet", "subaccount"):
                if self.given(name)[1] is not None:
                    self.notes.append(f"--{name} has no meaning on deribit and was left out")

    def account(self, network: str) -> tuple[str, int]:
        """The wallet as it is written, or nothing where the environment will have it; the subaccount.

        Both nothing for the sandbox's own account.
        """
        wallet, subaccount = self.given("wallet")[1] or "", self.given("subaccount")[1]
        try:
            wallet = checksum(parse_address(wallet)) if wallet else ""
        except ValueError as error:
            self.errors.append(f"--wallet: {error}")
        if subaccount is None and network == "sandbox":
            if wallet:
                self.notes.append("--wallet has no meaning in the sandbox without --subaccount and was left out")
            return "", 0
        if subaccount is None:
            self.errors.append(f"--subaccount: is missing; {SUBACCOUNT_ALLOWED}")
        elif not WHOLE.fullmatch(subaccount):
            self.errors.append(f"--subaccount: is {subaccount[:40]!r}; allowed: a whole number from 1")
        else:
            return wallet, int(subaccount)
        return wallet, 0

    def perpetual_size(self, coin: str, size: Decimal, max_position: Decimal) -> Decimal | None:
        """As much as the options, or the least that is taken; nothing where that is more than may be held."""
        least = max(size, PERPETUAL_LEAST.get(coin, size))
        if least <= max_position:
            return least
        self.notes.append(f"{coin}-PERP takes no less than {least}, more than --max-position {max_position}: left out")
        return None

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

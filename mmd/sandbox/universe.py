"""Which instruments are listed: read from a `public/get_instruments` answer and moved to today, or made up.

A recorded list is years old. It is moved as one block, by whole days, so that expiry times stay
at 08:00 UTC and all distances between expiries stay true; names follow their new dates. Fields
that the exchange of 2021 did not have are filled in as it sends them today.
"""

import math
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import msgspec

from mmd.domain.errors import ConfigError
from mmd.sandbox.model import SandboxInstrument, TickStep

DAY_MS = 86_400_000
YEAR_MS = 365 * DAY_MS
EXPIRY_HOUR_UTC = 8
PERPETUAL_EXPIRY_MS = 32_503_708_800_000
FRIDAY = 4
MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
FIRST_FILLED_ID = 300_000
STABLE_COINS = ("USDC", "USDT", "EURR")


class ListedInstrument(msgspec.Struct, kw_only=True):
    """One row of the exchange's answer, of any year: what 2021 lacks is optional."""

    instrument_name: str
    kind: str
    base_currency: str
    quote_currency: str
    settlement_period: str = ""
    tick_size: Decimal
    tick_size_steps: tuple[TickStep, ...] = ()
    min_trade_amount: Decimal
    contract_size: Decimal
    maker_commission: Decimal
    taker_commission: Decimal
    creation_timestamp: int
    expiration_timestamp: int = PERPETUAL_EXPIRY_MS
    strike: Decimal | None = None
    option_type: str | None = None
    max_leverage: int | None = None
    instrument_id: int | None = None
    instrument_type: str | None = None
    future_type: str | None = None
    counter_currency: str | None = None
    settlement_currency: str | None = None
    price_index: str | None = None


class Listing(msgspec.Struct):
    """The whole answer; only `result` matters."""

    result: list[ListedInstrument]


def read_instruments(path: Path) -> list[SandboxInstrument]:
    """Futures, perpetuals and options of a `public/get_instruments` answer, or of its bare result, as listed then.

    Raises ConfigError if the file cannot be read, is not such an answer, or lists a name twice.
    """
    try:
        data = path.read_bytes()
        bare = data.lstrip()[:1] == b"["
        rows = msgspec.json.decode(data, type=list[ListedInstrument]) if bare else decode_listing(data).result
    except (OSError, msgspec.DecodeError) as error:
        raise ConfigError([f"{path}: not a public/get_instruments answer: {error}"]) from error
    rows = [row for row in rows if row.kind in ("future", "option")]
    counts = Counter(row.instrument_name for row in rows)
    doubled = [name for name, count in counts.items() if count > 1]
    if doubled:
        raise ConfigError([f"{path}: {name} is listed twice" for name in doubled])
    if not rows:
        raise ConfigError([f"{path}: no future, perpetual or option is listed"])
    taken = max((row.instrument_id or 0 for row in rows), default=0)
    first = max(taken + 1, FIRST_FILLED_ID)
    return [filled(row, first + place) for place, row in enumerate(rows)]


def decode_listing(data: bytes) -> Listing:
    return msgspec.json.decode(data, type=Listing)


def filled(row: ListedInstrument, instrument_id: int) -> SandboxInstrument:
    """The row with the fields of today; `instrument_id` is used where it has none."""
    kind = row.instrument_type or row.future_type
    linear = kind == "linear" if kind else row.quote_currency in STABLE_COINS
    counter = row.counter_currency or (row.quote_currency if linear else "USD")
    return SandboxInstrument(
        instrument_name=row.instrument_name,
        instrument_id=row.instrument_id or instrument_id,
        kind=row.kind,
        instrument_type="linear" if linear else "reversed",
        base_currency=row.base_currency,
        quote_currency=row.quote_currency,
        counter_currency=counter,
        settlement_currency=row.settlement_currency or (counter if linear else row.base_currency),
        settlement_period=row.settlement_period,
        price_index=row.price_index or f"{row.base_currency}_{counter}".lower(),
        tick_size=row.tick_size,
        tick_size_steps=row.tick_size_steps,
        min_trade_amount=row.min_trade_amount,
        contract_size=row.contract_size,
        maker_commission=row.maker_commission,
        taker_commission=row.taker_commission,
        creation_timestamp=row.creation_timestamp,
        expiration_timestamp=row.expiration_timestamp,
        strike=row.strike,
        option_type=row.option_type,
        max_leverage=row.max_leverage,
    )


# --- moving to today -----------------------------------------------------------------------------


def days_until(then_ms: int, now_ms: int) -> int:
    """The smallest number of whole days that brings `then_ms` to `now_ms` or later; negative if it is more than a
    day ahead."""
    return -((then_ms - now_ms) // DAY_MS)


def moved(instruments: Iterable[SandboxInstrument], days: int, now_ms: int) -> dict[str, SandboxInstrument]:
    """Every instrument `days` later, by its old name. Perpetuals stay; nothing is created after `now_ms`."""
    if days == 0:
        return {instrument.instrument_name: instrument for instrument in instruments}
    return {instrument.instrument_name: moved_one(instrument, days, now_ms) for instrument in instruments}


def moved_one(instrument: SandboxInstrument, days: int, now_ms: int) -> SandboxInstrument:
    created = min(instrument.creation_timestamp + days * DAY_MS, now_ms)
    if instrument.is_perpetual:
        return msgspec.structs.replace(instrument, creation_timestamp=created)
    expiry = instrument.expiration_timestamp + days * DAY_MS
    return msgspec.structs.replace(
        instrument,
        instrument_name=redated(instrument.instrument_name, instrument.expiration_timestamp, expiry),
        creation_timestamp=created,
        expiration_timestamp=expiry,
    )


def redated(name: str, old_ms: int, new_ms: int) -> str:
    """The name with its date part (also of a `SYN.` index) moved: BTC-24SEP21-40000-P."""
    old, new = date_code(old_ms), date_code(new_ms)
    return "-".join(new if part == old else part for part in name.split("-"))


def date_code(expiry_ms: int) -> str:
    """DMMMYY in UTC, the day without a leading zero: 5JUN26."""
    date = datetime.fromtimestamp(expiry_ms / 1000, UTC)
    return f"{date.day}{MONTHS[date.month - 1]}{date.year % 100:02d}"


# --- made up -------------------------------------------------------------------------------------


def expiry_calendar(now_ms: int) -> dict[int, str]:
    """Expiry time (ms) to settlement period: two dailies, two weeklies, two monthlies, three quarterlies from now.

    All at 08:00 UTC; weeklies on Fridays, monthlies and quarterlies on a month's last Friday. One
    date carries its longest period; sorted.
    """
    now = datetime.fromtimestamp(now_ms / 1000, UTC)
    today = now.replace(hour=EXPIRY_HOUR_UTC, minute=0, second=0, microsecond=0)
    first = today if today > now else today + timedelta(days=1)
    fridays = [day for day in (first + timedelta(days=n) for n in range(400)) if day.weekday() == FRIDAY]
    month_ends = [day for day in fridays if (day + timedelta(days=7)).month != day.month]
    quarters = [day for day in month_ends if day.month % 3 == 0]
    periods: dict[int, str] = {}
    for period, days in (
        ("month", [*month_ends[:2], *quarters[:3]]),
        ("week", fridays[:2]),
        ("day", [first, first + timedelta(days=1)]),
    ):
        for day in days:
            periods.setdefault(int(day.timestamp()) * 1000, period)
    return dict(sorted(periods.items()))


def strikes(price: float, deviation: float) -> list[Decimal]:
    """A ladder of round strikes around `price`, about 3 standard deviations (`deviation`, fraction) each way."""
    raw = price * deviation * 0.2
    size = 10.0 ** math.floor(math.log10(raw))
    step = next(nice * size for nice in (1.0, 2.0, 2.5, 5.0, 10.0) if nice * size >= raw)
    low, high = (
        math.ceil(price * math.exp(-3.0 * deviation) / step),
        math.floor(price * math.exp(3.0 * deviation) / step),
    )
    exact = Decimal(str(step))
    return [Decimal(f"{(exact * n).normalize():f}") for n in range(max(low, 1), high + 1)]


class Family(msgspec.Struct, frozen=True, kw_only=True):
    """What one underlying's instruments have in common; the numbers of the exchange's listing."""

    base: str
    linear: bool
    future_tick: str
    future_lot: str
    option_tick: str
    option_steps: tuple[TickStep, ...]
    option_lot: str
    option_contract: str
    dated_futures: bool
    options: bool


INVERSE_STEPS = (TickStep(above_price=Decimal("0.005"), tick_size=Decimal("0.0005")),)
FAMILIES = (
    Family(
        base="BTC", linear=False, future_tick="0.5", future_lot="10", option_tick="0.0001", option_steps=INVERSE_STEPS,
        option_lot="0.1", option_contract="1", dated_futures=True, options=True,
    ),
    Family(
        base="ETH", linear=False, future_tick="0.05", future_lot="1", option_tick="0.0001", option_steps=INVERSE_STEPS,
        option_lot="1", option_contract="1", dated_futures=True, options=True,
    ),
    Family(
        base="BTC", linear=True, future_tick="1", future_lot="0.001", option_tick="5", option_steps=(),
        option_lot="0.01", option_contract="0.01", dated_futures=False, options=True,
    ),
    Family(
        base="ETH", linear=True, future_tick="0.1", future_lot="0.01", option_tick="0.5", option_steps=(),
        option_lot="0.1", option_contract="0.1", dated_futures=False, options=False,
    ),
)  # fmt: skip


def built_in(now_ms: int, prices: dict[str, float], volatilities: dict[str, float]) -> list[SandboxInstrument]:
    """Perpetuals, futures and option chains of BTC and ETH (inverse and USDC) for the expiries after `now_ms`.

    Strikes are set around `prices` (USD) by `volatilities` (annual fractions).
    """
    calendar = expiry_calendar(now_ms)
    made: list[SandboxInstrument] = []
    for family in FAMILIES:
        next_id = FIRST_FILLED_ID + len(made)
        made += family_instruments(family, calendar, prices[family.base], volatilities[family.base], now_ms, next_id)
    return made


def family_instruments(
    family: Family, calendar: dict[int, str], price: float, volatility: float, now_ms: int, first_id: int
) -> list[SandboxInstrument]:
    stem = f"{family.base}_USDC" if family.linear else family.base
    made = [future(family, f"{stem}-PERPETUAL", "perpetual", PERPETUAL_EXPIRY_MS, now_ms)]
    for expiry, period in calendar.items():
        dated = f"{stem}-{date_code(expiry)}"
        if family.dated_futures and period != "day":
            made.append(future(family, dated, period, expiry, now_ms))
        if family.options:
            deviation = max(volatility * math.sqrt((expiry - now_ms) / YEAR_MS), 0.015)
            made += [
                option(family, dated, period, expiry, now_ms, strike, kind)
                for strike in strikes(price, deviation)
                for kind in ("call", "put")
            ]
    return [msgspec.structs.replace(one, instrument_id=first_id + place) for place, one in enumerate(made)]


def future(family: Family, name: str, period: str, expiry_ms: int, now_ms: int) -> SandboxInstrument:
    counter = "USDC" if family.linear else "USD"
    weekly = period == "week"
    return SandboxInstrument(
        instrument_name=name,
        instrument_id=0,
        kind="future",
        instrument_type="linear" if family.linear else "reversed",
        base_currency=family.base,
        quote_currency=counter,
        counter_currency=counter,
        settlement_currency=counter if family.linear else family.base,
        settlement_period=period,
        price_index=f"{family.base}_{counter}".lower(),
        tick_size=Decimal(family.future_tick),
        min_trade_amount=Decimal(family.future_lot),
        contract_size=Decimal(family.future_lot),
        maker_commission=Decimal("-0.0001") if weekly else Decimal(0),
        taker_commission=Decimal("0.0005"),
        creation_timestamp=now_ms - 30 * DAY_MS,
        expiration_timestamp=expiry_ms,
        max_leverage=50,
    )


def option(
    family: Family, dated: str, period: str, expiry_ms: int, now_ms: int, strike: Decimal, kind: str
) -> SandboxInstrument:
    counter = "USDC" if family.linear else "USD"
    return SandboxInstrument(
        instrument_name=f"{dated}-{strike_code(strike)}-{kind[0].upper()}",
        instrument_id=0,
        kind="option",
        instrument_type="linear" if family.linear else "reversed",
        base_currency=family.base,
        quote_currency=counter if family.linear else family.base,
        counter_currency=counter,
        settlement_currency=counter if family.linear else family.base,
        settlement_period=period,
        price_index=f"{family.base}_{counter}".lower(),
        tick_size=Decimal(family.option_tick),
        tick_size_steps=family.option_steps,
        min_trade_amount=Decimal(family.option_lot),
        contract_size=Decimal(family.option_contract),
        maker_commission=Decimal("0.0001") if family.linear else Decimal("0.0003"),
        taker_commission=Decimal("0.0005") if family.linear else Decimal("0.0003"),
        creation_timestamp=now_ms - 7 * DAY_MS,
        expiration_timestamp=expiry_ms,
        strike=strike,
        option_type=kind,
    )


def strike_code(strike: Decimal) -> str:
    """As in names: `d` is the decimal point (0d625)."""
    return f"{strike:f}".replace(".", "d")

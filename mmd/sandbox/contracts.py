"""What a contract is worth: ticks and steps, fees, profit and loss, payoffs. Pure formulas over Decimal.

Source: Deribit's product pages. Inverse = paid in the coin ("reversed"), linear = paid in the quote currency.
"""

from decimal import ROUND_CEILING, Decimal

from mmd.sandbox.model import Direction, SandboxInstrument

CENT_OF_A_SATOSHI = Decimal("1e-10")
SATOSHI = Decimal("1e-8")
ZERO = Decimal(0)
OPTION_FEE_CAP = Decimal("0.125")  # of the option's price


def tick_at(instrument: SandboxInstrument, price: Decimal) -> Decimal:
    """The tick that is valid at this price."""
    tick = instrument.tick_size
    for step in instrument.tick_size_steps:
        if step.above_price <= price:
            tick = step.tick_size
    return tick


def is_on_tick(instrument: SandboxInstrument, price: Decimal) -> bool:
    return not price % tick_at(instrument, price)


def next_below(instrument: SandboxInstrument, price: Decimal) -> Decimal:
    """The highest valid price strictly below; not positive where there is none."""
    lower = price - instrument.tick_size
    tick = tick_at(instrument, lower)
    return (lower // tick) * tick


def next_above(instrument: SandboxInstrument, price: Decimal) -> Decimal:
    """The lowest valid price strictly above."""
    upper = price + instrument.tick_size
    tick = tick_at(instrument, upper)
    return (upper / tick).to_integral_value(ROUND_CEILING) * tick


def amount_step(instrument: SandboxInstrument) -> Decimal:
    """Amounts are multiples of this."""
    return min(instrument.contract_size, instrument.min_trade_amount)


def is_inverse(instrument: SandboxInstrument) -> bool:
    return instrument.instrument_type == "reversed"


def is_option(instrument: SandboxInstrument) -> bool:
    return instrument.kind == "option"


def currency_group(instrument: SandboxInstrument) -> str:
    """The `currency` of channels and queries: what the instrument settles in."""
    return instrument.settlement_currency


def signed(direction: Direction, amount: Decimal) -> Decimal:
    return amount if direction is Direction.BUY else -amount


def trade_fee(
    instrument: SandboxInstrument, price: Decimal, amount: Decimal, index_price: Decimal, *, maker: bool
) -> Decimal:
    """The fee of one execution in the settlement currency; negative = rebate."""
    rate = instrument.maker_commission if maker else instrument.taker_commission
    base = ZERO if maker else instrument.base_fee
    if is_option(instrument):
        unit = rate if is_inverse(instrument) else rate * index_price
        return min(unit, OPTION_FEE_CAP * price) * amount + base
    if is_inverse(instrument):
        return (rate * amount / price).quantize(CENT_OF_A_SATOSHI)
    value = amount * (index_price if instrument.fee_on_index else price)
    return (rate * value).quantize(CENT_OF_A_SATOSHI) + base


def profit(instrument: SandboxInstrument, size: Decimal, entry: Decimal, exit_price: Decimal) -> Decimal:
    """Gain of a signed position from entry to exit in the settlement currency."""
    if not size or not entry or not exit_price:
        return Decimal(0)
    if is_inverse(instrument) and not is_option(instrument):
        return (size / entry - size / exit_price).quantize(CENT_OF_A_SATOSHI)
    return (size * (exit_price - entry)).quantize(CENT_OF_A_SATOSHI)


def blend(instrument: SandboxInstrument, size: Decimal, price: Decimal, more: Decimal, at: Decimal) -> Decimal:
    """The average price of a position of `size` at `price` after adding `more` (same sign) at `at`.

    Harmonic for inverse futures, so that the profit of the whole is the sum of the profits of its parts.
    """
    if not size:
        return at
    total = size + more
    if is_inverse(instrument) and not is_option(instrument):
        return total / (size / price + more / at)
    return (size * price + more * at) / total


def payoff(instrument: SandboxInstrument, delivery_price: Decimal) -> Decimal:
    """What one coin of an expired option pays, in the settlement currency."""
    strike = instrument.strike or Decimal(0)
    call = instrument.option_type == "call"
    inner = max(Decimal(0), delivery_price - strike if call else strike - delivery_price)
    return inner / delivery_price if is_inverse(instrument) else inner


def coins(instrument: SandboxInstrument, size: Decimal, price: Decimal) -> Decimal:
    """A size in coins of the underlying; `price` of the future turns dollars into coins."""
    if is_inverse(instrument) and not is_option(instrument):
        return size / price if price else Decimal(0)
    return size

"""Quoting: a pipeline of pure steps from fair value to one bid and one ask, each a price or a reason to withhold.

fair -> half-width -> inventory shift -> style -> minimum width -> band -> post-only -> grid -> size.
Prices are float ticks until the grid step; own orders are already out of `touch`. Bids only
ever round down and asks up, away from the market. docs/quoting.md states every formula.
"""

import msgspec

from mmd.core.book import Touch
from mmd.core.rules import Rules
from mmd.domain.reasons import Missing
from mmd.domain.settings import Style


class Wanted(msgspec.Struct, frozen=True, gc=False):
    """A quote to have in the market. `rounded_ticks`: how far the grid took it away from the market, 0 or more."""

    price_ticks: int
    size_lots: int
    rounded_ticks: float = 0.0


class Withheld(msgspec.Struct, frozen=True, gc=False):
    """No quote on this side, and why."""

    why: Missing


Quoted = Wanted | Withheld


class Quote(msgspec.Struct, frozen=True):
    """At most one bid and one ask; where both are wanted, bid < ask by at least the minimum width."""

    bid: Quoted
    ask: Quoted


class View(msgspec.Struct, frozen=True, gc=False):
    """What the pipeline looks at. Ticks as floats; `reference_ticks` is what the band is measured from.

    `fair` may be a reason instead. Rooms are lots that may still be bought or sold inside the
    bounds; `inventory` is position over maximum position, signed. `sigma_bps` over the profile's
    horizon, None while too little was seen. `min_ticks`, `max_ticks`: exchange's band, 0 = none.
    """

    touch: Touch
    fair: float | Missing
    reference_ticks: float
    sigma_bps: float | None
    inventory: float
    bid_room_lots: int
    ask_room_lots: int
    min_ticks: float
    max_ticks: float


class Step(msgspec.Struct, frozen=True):
    """One line of `explain`: the step's numbers and the prices after it, in ticks."""

    name: str
    detail: str
    bid: float
    ask: float


Trace = list[Step]


def both(why: Missing) -> Quote:
    """Nothing on either side."""
    withheld = Withheld(why)
    return Quote(withheld, withheld)


def quote(view: View, rules: Rules, trace: Trace | None = None) -> Quote:
    """The quote to have now. With a `trace`, each step leaves its numbers there; the result is the same."""
    fair = view.fair
    if not isinstance(fair, float):
        return both(fair)
    width_bps = rules.spread_bps
    if rules.volatility is not None:
        if view.sigma_bps is None:
            return both(Missing.NO_VOLATILITY)
        width_bps = max(width_bps, min(rules.volatility.max_bps, rules.volatility.multiplier * view.sigma_bps))
    half = fair * width_bps / 20_000.0
    min_width = max(1.0, fair * max(width_bps, rules.min_spread_bps) / 10_000.0)
    tick = rules.tick
    if trace is not None:
        trace.append(Step("fair", f"{rules.fair} {fair * tick:.8g}", fair, fair))
        detail = f"{width_bps:.6g} bps in full, {half * tick:.6g} a side"
        trace.append(Step("half_width", detail, fair - half, fair + half))
    styled = style_prices(view, rules, fair, half, trace)
    if not isinstance(styled, tuple):
        return styled
    bid, ask = widen(styled[0], styled[1], min_width, tick, trace)
    low, high = band(view, rules, fair)
    clamped_bid, clamped_ask = bid, ask
    if not low <= bid <= ask <= high:
        clamped_bid, clamped_ask = min(max(bid, low), high), min(max(ask, low), high)
    if trace is not None:
        trace.append(Step("band", f"{low * tick:.8g} .. {high * tick:.8g}", clamped_bid, clamped_ask))
    touch = view.touch
    grid = rules.grid
    bid_ticks, ask_ticks = grid.floor(clamped_bid), grid.ceil(clamped_ask)
    bid_rounded, ask_rounded = max(0.0, clamped_bid - bid_ticks), max(0.0, ask_ticks - clamped_ask)
    if touch.ask_lots and bid_ticks >= touch.ask_ticks:
        bid_ticks, bid_rounded = grid.below(touch.ask_ticks), 0.0
    if touch.bid_lots and ask_ticks <= touch.bid_ticks:
        ask_ticks, ask_rounded = grid.above(touch.bid_ticks), 0.0
    if trace is not None:
        trace.append(Step("post_only_and_grid", f"grid of {grid.step_at(fair) * tick:.8g} here", bid_ticks, ask_ticks))
    bid_side = finish_side(bid_ticks, bid_rounded, view.bid_room_lots, low, high, view, rules)
    ask_side = finish_side(ask_ticks, ask_rounded, view.ask_room_lots, low, high, view, rules)
    if ask_ticks - bid_ticks < min_width - 1e-6:
        # The band left less than the minimum width: the side it moved is not worth having.
        if clamped_bid != bid:
            bid_side = Withheld(Missing.OUTSIDE_BAND)
        if clamped_ask != ask:
            ask_side = Withheld(Missing.OUTSIDE_BAND)
    if trace is not None:
        room = f"room {view.bid_room_lots} / {view.ask_room_lots} lots, size {rules.size_lots}, min {rules.min_lots}"
        trace.append(Step("size", room, bid_ticks, ask_ticks))
    return Quote(bid_side, ask_side)


def style_prices(
    view: View, rules: Rules, fair: float, half: float, trace: Trace | None
) -> tuple[float, float] | Quote:
    """Bid and ask by style, shifted against the inventory; both move alike, the width stays (T62)."""
    touch = view.touch
    inventory = min(1.0, max(-1.0, view.inventory))
    wanted_shift = -inventory * fair * rules.skew_bps / 10_000.0
    if rules.style is Style.AROUND:
        bid, ask = fair - half, fair + half
        limit = half
    else:
        if touch.bid_lots <= 0 or touch.ask_lots <= 0:
            empty = touch.bid_lots <= 0 and touch.ask_lots <= 0
            return both(Missing.NO_BOOK if empty else Missing.NO_BID if touch.bid_lots <= 0 else Missing.NO_ASK)
        bid, ask = float(touch.bid_ticks), float(touch.ask_ticks)
        if rules.style is Style.IMPROVE:
            # At least one step of the grid here, or rounding would undo it.
            bid = max(bid + rules.improve_ticks, rules.grid.above(touch.bid_ticks))
            ask = min(ask - rules.improve_ticks, rules.grid.below(touch.ask_ticks))
        limit = (touch.ask_ticks - touch.bid_ticks) * 0.5
    # A shift beyond the half-width would sell below, or buy above, our own fair value.
    shift = wanted_shift if -limit <= wanted_shift <= limit else min(limit, max(-limit, wanted_shift))
    if trace is not None:
        trace.append(Step("style", str(rules.style), bid, ask))
        tick = rules.tick
        detail = f"inventory {inventory:+.4f} of maximum, shift {shift * tick:+.6g} (at most {limit * tick:.6g})"
        trace.append(Step("inventory_shift", detail, bid + shift, ask + shift))
    return (bid + shift, ask + shift)


def widen(bid: float, ask: float, min_width: float, tick: float, trace: Trace | None) -> tuple[float, float]:
    """Too tight or crossed: the same centre, the minimum width (A38, A39)."""
    if ask - bid < min_width:
        centre = (bid + ask) * 0.5
        bid, ask = centre - min_width * 0.5, centre + min_width * 0.5
    if trace is not None:
        trace.append(Step("minimum_width", f"at least {min_width * tick:.6g}", bid, ask))
    return (bid, ask)


def band(view: View, rules: Rules, fair: float) -> tuple[float, float]:
    """Lowest and highest price to quote, in ticks: our own band inside the exchange's."""
    reference = view.reference_ticks if view.reference_ticks > 0.0 else fair
    low = reference * (1.0 - rules.band_bps / 10_000.0)
    high = reference * (1.0 + rules.band_bps / 10_000.0)
    if view.min_ticks > 0.0:
        low = max(low, view.min_ticks)
    if view.max_ticks > 0.0:
        high = min(high, view.max_ticks)
    return (low, high)


def finish_side(
    price_ticks: int, rounded_ticks: float, room_lots: int, low: float, high: float, view: View, rules: Rules
) -> Quoted:
    """Size and last checks of one side. Rounding may leave the band by less than one step, never more."""
    if price_ticks < 1:
        return Withheld(Missing.BELOW_TICK)
    if not low <= price_ticks <= high:
        step = rules.grid.step_at(price_ticks)
        lowest = max(low - step, view.min_ticks - 1e-6) if view.min_ticks else low - step
        highest = min(high + step, view.max_ticks + 1e-6) if view.max_ticks else high + step
        if not lowest <= price_ticks <= highest:
            return Withheld(Missing.OUTSIDE_BAND)
    size_lots = min(rules.size_lots, rules.max_order_lots, room_lots)
    if size_lots < rules.min_lots:
        return Withheld(Missing.NO_ROOM)
    return Wanted(price_ticks, size_lots, rounded_ticks)

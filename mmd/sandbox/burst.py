"""A market for load tests: best bid and ask of a few instruments change so many times a second, nothing else."""

from decimal import Decimal

from mmd.sandbox.model import Reference, SandboxInstrument, Venue
from mmd.sandbox.universe import PERPETUAL_EXPIRY_MS

TICK = Decimal("0.5")
START_TICKS = 100_000
AMOUNT = Decimal(10_000)
DEPTH = 5
# The price walks so many changes up, then as many down.
TURN = 50
REFERENCE_MS = 500


class BurstMarket:
    """A `Market` of inverse perpetuals with these names, whose both best prices move with every change.

    `rate_per_second` is the total over all names, round robin; `step_ticks` how far one change
    moves bid and ask together. The same at every run.
    """

    def __init__(self, names: list[str], rate_per_second: float, step_ticks: int = 1) -> None:
        if not names or not rate_per_second > 0 or step_ticks < 1:
            raise ValueError("need a name, a rate above 0 and a step of at least 1 tick")
        self._names = names
        self._rate = rate_per_second
        self._step_ticks = step_ticks
        self._ticks = dict.fromkeys(names, START_TICKS)
        self._done = 0

    def instruments(self) -> list[SandboxInstrument]:
        return [perpetual(name, place) for place, name in enumerate(self._names, start=1)]

    def start(self, venue: Venue, now_ms: int) -> None:
        self._venue = venue
        self._started_ms = now_ms
        self._reference_due_ms = now_ms + REFERENCE_MS
        self._publish(now_ms)

    def want(self, name: str, now_ms: int) -> None:
        bids, asks = self._ladder(self._ticks[name])
        self._venue.set_levels(name, bids, asks, now_ms, snapshot=True)

    def step(self, now_ms: int) -> int:
        if now_ms >= self._reference_due_ms:
            self._reference_due_ms = now_ms + REFERENCE_MS
            self._publish(now_ms)
        due = int((now_ms - self._started_ms) * self._rate / 1000)
        while self._done < due:
            name = self._names[self._done % len(self._names)]
            round_number = self._done // len(self._names)
            self._move(name, self._step_ticks if round_number // TURN % 2 == 0 else -self._step_ticks, now_ms)
            self._done += 1
        upcoming_ms = self._started_ms + int((self._done + 1) * 1000 / self._rate)
        return min(max(upcoming_ms, now_ms + 1), self._reference_due_ms)

    def _move(self, name: str, shift_ticks: int, now_ms: int) -> None:
        """The levels that leave go to 0, the ones that come are new."""
        old_bids, old_asks = self._ladder(self._ticks[name])
        self._ticks[name] += shift_ticks
        bids, asks = self._ladder(self._ticks[name])
        bid_changes = {price: Decimal(0) for price in old_bids if price not in bids}
        ask_changes = {price: Decimal(0) for price in old_asks if price not in asks}
        bid_changes.update((price, amount) for price, amount in bids.items() if price not in old_bids)
        ask_changes.update((price, amount) for price, amount in asks.items() if price not in old_asks)
        self._venue.set_levels(name, bid_changes, ask_changes, now_ms, snapshot=False)

    def _ladder(self, ticks: int) -> tuple[dict[Decimal, Decimal], dict[Decimal, Decimal]]:
        bids = {TICK * (ticks - depth): AMOUNT for depth in range(1, DEPTH + 1)}
        asks = {TICK * (ticks + depth): AMOUNT for depth in range(1, DEPTH + 1)}
        return bids, asks

    def _publish(self, now_ms: int) -> None:
        for name in self._names:
            mark = TICK * self._ticks[name]
            self._venue.set_index(index_of(name), mark, now_ms)
            reference = Reference(
                mark_price=mark,
                index_price=mark,
                min_price=mark / 2,
                max_price=mark * 2,
                current_funding=0.0,
                funding_8h=0.0,
            )
            self._venue.set_reference(name, reference, now_ms)


def index_of(name: str) -> str:
    return f"{name.split('-')[0]}_usd".lower()


def perpetual(name: str, instrument_id: int) -> SandboxInstrument:
    coin = name.split("-")[0]
    return SandboxInstrument(
        instrument_name=name,
        instrument_id=instrument_id,
        kind="future",
        instrument_type="reversed",
        base_currency=coin,
        quote_currency="USD",
        counter_currency="USD",
        settlement_currency=coin,
        settlement_period="perpetual",
        price_index=index_of(name),
        tick_size=TICK,
        min_trade_amount=Decimal(10),
        contract_size=Decimal(10),
        maker_commission=Decimal(0),
        taker_commission=Decimal("0.0005"),
        creation_timestamp=0,
        expiration_timestamp=PERPETUAL_EXPIRY_MS,
        max_leverage=50,
    )

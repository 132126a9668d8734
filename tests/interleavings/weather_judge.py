"""The judge: reads the engine's own books, what is under way to it, and the limits in force; trusts nobody else.

Exactly what is held:

- Worst case of a symbol: the engine's position and everything of ours on one side that may still fill:
  resting orders, and requests under way that the engine could still carry out. An amend under way counts
  with the larger total.
- A limit in force is the configured one. Lowering it cannot undo what is there: from then on, what is
  above it may only shrink. A total that was lowered is in force once every symbol has acknowledged its bounds.
- Totals weigh the larger worst case of both sides at the engine's prices of this moment.
- At the moment a request leaves: its symbol is ACTIVE and live, its size and its price are within the limits.
"""

from decimal import Decimal

from weather_market import ACCOUNT, EXCHANGE, INSTRUMENTS, SYMBOLS
from weather_wire import Wire
from weather_words import lots_of, shown

from mmd.domain.actions import AmendOrder, CancelOrder, PlaceOrder, QueryOrder, QueryState, ReduceOrder, Request
from mmd.domain.reasons import Mode, Side, State
from mmd.domain.settings import PortfolioLimits, SymbolSettings
from mmd.sandbox.model import Direction
from mmd.shell.pump import Pump

COINS, USD, CONTRACTS = "coins", "USD", "contracts"
NOISE = 1e-9
NEAR = 0.9985  # grants leave 2 % of a total, prices go 0.9 % either way: 1.009 / 0.991 / 1.02


class Total:
    """One total of the configuration; `allowed` above `limit` while what is there may only shrink."""

    def __init__(self, name: str, unit: str, limit: float) -> None:
        self.name = name
        self.unit = unit
        self.limit = self.allowed = limit


def totals_of(limits: PortfolioLimits) -> list[Total]:
    """All symbols are of one coin on one exchange: every total covers all of them."""
    found = [Total("max_exposure", COINS, float(limits.max_exposure["BTC"]))]
    found.append(Total("max_notional_usd", USD, float(limits.max_notional_usd)))
    if limits.max_contracts is not None:
        found.append(Total("max_contracts", CONTRACTS, float(limits.max_contracts)))
    for name, scopes, target in (
        ("per_exchange", limits.per_exchange, EXCHANGE),
        ("per_underlying", limits.per_underlying, "BTC"),
    ):
        scope = scopes.get(target)
        if scope is not None and scope.max_notional_usd is not None:
            found.append(Total(f"{name}.max_notional_usd", USD, float(scope.max_notional_usd)))
        if scope is not None and scope.max_contracts is not None:
            found.append(Total(f"{name}.max_contracts", CONTRACTS, float(scope.max_contracts)))
    return found


def most_orders(limits: PortfolioLimits) -> int:
    scopes = (limits.per_exchange.get(EXCHANGE), limits.per_underlying.get("BTC"))
    given = [scope.max_open_orders for scope in scopes if scope is not None and scope.max_open_orders is not None]
    return min([limits.max_open_orders, *given])


class Worst:
    """One symbol at the engine: position, and what it may become on either side; lots."""

    __slots__ = ("ask_orders", "bid_orders", "high", "low", "orders", "position")

    def __init__(self, position: int) -> None:
        self.position = self.high = self.low = position
        self.bid_orders = self.ask_orders = 0
        self.orders = 0  # resting or to be placed

    @property
    def size(self) -> int:
        return max(abs(self.position), abs(self.high), abs(self.low))


class Judge:
    """`look` after everything that happens; `leaving` for every request; AssertionError says what was broken."""

    def __init__(self, wire: Wire, pump: Pump, limits: PortfolioLimits, given: dict[str, SymbolSettings]) -> None:
        self.wire = wire
        self.pump = pump
        self.marks: dict[str, float] = {}
        self.looks = 0
        self.settings: dict[str, SymbolSettings] = {}
        self.allowed: dict[str, tuple[int, int]] = {}
        for symbol, settings in given.items():
            self.settings[symbol] = settings
            self.allowed[symbol] = (self.position_limit(symbol), self.position_limit(symbol))
        # Lots that no accounting could see coming: an order that was told as closed has filled after all.
        self.surprises = dict.fromkeys(SYMBOLS, 0)
        self.used: dict[str, float] = {}  # of each unit, at the last look
        self.older: list[list[Total]] = []  # totals that were lowered, until everybody has acknowledged
        self.totals = totals_of(limits)
        self.max_orders = self.allowed_orders = most_orders(limits)

    # --- limits ----------------------------------------------------------------------------------

    def position_limit(self, symbol: str) -> int:
        return int(self.settings[symbol].limits.max_position / INSTRUMENTS[symbol].lot)

    def set_settings(self, symbol: str, settings: SymbolSettings) -> None:
        """In force from now on."""
        self.settings[symbol] = settings
        worst, limit = self.worst()[symbol], self.position_limit(symbol)
        self.allowed[symbol] = (max(limit, worst.high), max(limit, -worst.low))

    def set_limits(self, limits: PortfolioLimits) -> None:
        self.older.append(self.totals)
        self.totals = totals_of(limits)
        worst = self.worst()
        self.max_orders = most_orders(limits)
        self.allowed_orders = max(self.max_orders, sum(one.orders for one in worst.values()))

    def _acknowledged(self) -> bool:
        return all(
            worker.machine.bounds_acked == worker.machine.bounds_version and not worker.depth
            for worker in self.pump.workers.values()
        )

    # --- the engine's books ----------------------------------------------------------------------

    def worst(self) -> dict[str, Worst]:
        wire = self.wire
        account = wire.engine.floor.account(ACCOUNT, wire.now_ms)
        found: dict[str, Worst] = {}
        for symbol in SYMBOLS:
            held = account.positions.get(symbol)
            found[symbol] = Worst(lots_of(symbol, held.size) if held is not None else 0)
        amends: dict[str, Decimal] = {}
        now_ms = wire.now_ms
        for link in wire.lanes():
            for sent in link.orders:
                order = sent.order
                if now_ms > sent.valid_ms:
                    continue
                if isinstance(order, PlaceOrder):
                    one = found[sent.symbol]
                    one.orders += 1
                    if order.side is Side.BID:
                        one.high += order.size_lots
                    else:
                        one.low -= order.size_lots
                elif isinstance(order, AmendOrder):
                    total = INSTRUMENTS[sent.symbol].amount(order.total_lots)
                    amends[order.order_id] = max(total, amends.get(order.order_id, total))
        for order in account.open_orders.values():
            name = order.instrument_name
            one = found[name]
            amount = max(order.amount, amends.get(order.order_id, order.amount)) if amends else order.amount
            lots = lots_of(name, amount - order.filled)
            one.orders += 1
            if order.direction is Direction.BUY:
                one.high += lots
                one.bid_orders += 1
            else:
                one.low -= lots
                one.ask_orders += 1
        return found

    def weights(self, symbol: str) -> dict[str, float]:
        """Of one lot, at the engine's prices."""
        ours = INSTRUMENTS[symbol]
        listing = self.wire.engine.floor.listing(symbol)
        index = self.wire.engine.floor.index_price(listing.instrument.price_index)
        usd = ours.lot if ours.amount_is_usd else ours.lot * index
        coins = ours.lot / listing.mark_price if ours.amount_is_usd else ours.lot
        return {USD: float(usd), COINS: float(coins), CONTRACTS: float(ours.lot / ours.contract_size)}

    # --- after everything that happens -----------------------------------------------------------

    def look(self) -> None:
        self.looks += 1
        worst = self.worst()
        for symbol, one in worst.items():
            assert one.bid_orders <= 1, f"{one.bid_orders} bids of ours rest on {symbol}"
            assert one.ask_orders <= 1, f"{one.ask_orders} asks of ours rest on {symbol}"
            self._position(symbol, one)
        self._totals(worst)
        orders, most = sum(one.orders for one in worst.values()), self.allowed_orders
        assert orders <= most, f"{orders} open orders, {most} allowed"
        self.allowed_orders = max(self.max_orders, orders)
        for worker in self.pump.workers.values():
            machine = worker.machine
            assert worker.fault is None, f"{worker.symbol}: {worker.fault}"
            assert machine.position.balanced, f"{worker.symbol}: ledger off by {machine.position.imbalance}"
            assert machine.imagined.pessimistic.balanced and machine.imagined.optimistic.balanced
            if machine.state is State.GONE or (machine.state is State.HALTED and worker.proven):
                left = worst[worker.symbol].orders
                assert not left, f"{worker.symbol} is {machine.state} and proven empty, and {left} orders are there"

    def _position(self, symbol: str, one: Worst) -> None:
        limit = self.position_limit(symbol)
        high, low = self.allowed[symbol]
        surprise = self.surprises[symbol]
        if surprise:
            high, low = high + surprise, low + surprise
        assert max(one.high, one.position) <= high, f"{symbol}: could become {one.high} lots, {high} allowed"
        assert min(one.low, one.position) >= -low, f"{symbol}: could become {one.low} lots, {-low} allowed"
        self.allowed[symbol] = (max(limit, min(high, one.high)), max(limit, min(low, -one.low)))

    def _totals(self, worst: dict[str, Worst]) -> None:
        weights = {symbol: self.weights(symbol) for symbol in SYMBOLS}
        self.used = used = {
            unit: sum(one.size * weights[s][unit] for s, one in worst.items()) for unit in (COINS, USD, CONTRACTS)
        }
        if self.older and self._acknowledged():
            self.older.clear()
            for total in self.totals:
                total.allowed = max(total.limit, used[total.unit])
        for total in self.totals:
            now = used[total.unit]
            before = [old.allowed for group in self.older for old in group if old.name == total.name]
            # A total that was not there before, and is not acknowledged yet, holds nobody.
            missing = any(all(old.name != total.name for old in group) for group in self.older)
            if missing:
                continue
            surprise = sum(lots * weights[symbol][total.unit] for symbol, lots in self.surprises.items() if lots)
            allowed = max([total.allowed, *before]) * (1.0 + NOISE) + surprise
            assert now <= allowed, f"{total.name}: could become {now:.6g} {total.unit}, {allowed:.6g} allowed"
            if not self.older:
                total.allowed = max(total.limit, min(total.allowed, now))

    def repriced(self) -> None:
        """The engine's prices moved: what stood at a limit, or above, may be worth more now.

        Only a lowered limit leaves it there: what is granted keeps more room than prices move here.
        """
        worst = self.worst()
        for total in (*self.totals, *(old for group in self.older for old in group)):
            if self.used.get(total.unit, 0.0) > total.limit * NEAR:
                now = sum(one.size * self.weights(symbol)[total.unit] for symbol, one in worst.items())
                total.allowed = max(total.limit, total.allowed, now)

    # --- what leaves the outbox ------------------------------------------------------------------

    def leaving(self, symbol: str, request: Request) -> None:
        if isinstance(request, QueryOrder | QueryState):
            return
        worker = next(worker for worker in self.pump.workers.values() if worker.symbol == symbol)
        machine, told = worker.machine, shown(request)
        self.wire.tell(f"leaves: {told}")
        if isinstance(request, CancelOrder):
            return
        assert machine.mode is Mode.LIVE, f"{told} left while {symbol} is in shadow mode"
        limits, ours = self.settings[symbol].limits, INSTRUMENTS[symbol]
        if isinstance(request, ReduceOrder):
            assert machine.state in (State.PAUSED, State.HALTED), f"{told} left while {symbol} is {machine.state}"
            lots = request.size_lots
        else:
            assert machine.state is State.ACTIVE, f"{told} left while {symbol} is {machine.state} ({machine.why})"
            lots = request.remaining_lots if isinstance(request, AmendOrder) else request.size_lots
        assert ours.amount(lots) <= limits.max_order_size, f"{told}: more than {limits.max_order_size}"
        assert 0 < lots * self.weights(symbol)[USD] <= float(limits.max_order_value_usd) * (1 + NOISE), told
        mark = self.marks[symbol]
        off_bps = abs(float(ours.grid.price(request.price_ticks)) / mark - 1.0) * 1e4
        assert off_bps <= limits.collar_bps * (1 + NOISE), f"{told}: {off_bps:.1f} bps from the mark"

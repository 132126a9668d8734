"""All that one symbol's machine holds, and what can be read off it without changing anything."""

from decimal import Decimal
from typing import Any

import msgspec

from mmd.core.fair import fair_value
from mmd.core.gate import Exposure
from mmd.core.imagined import Imagined
from mmd.core.market import NO_TOUCH, MarketState
from mmd.core.orders import worst_lots
from mmd.core.own import OwnOrders
from mmd.core.pnl import Position
from mmd.core.quoting import View
from mmd.core.rules import NS, rules_for
from mmd.core.volatility import Volatility
from mmd.core.window import PriceRange, Window
from mmd.domain.actions import AmendOrder, Check, Decision, PlaceOrder, ReduceOrder
from mmd.domain.events import GateRefused
from mmd.domain.ids import label_prefix
from mmd.domain.instruments import Instrument
from mmd.domain.reasons import CaseKind, Missing, Mode, Side, State, Switch, Why
from mmd.domain.settings import SymbolSettings

VANISHED_NS = 60 * NS


class Closing(msgspec.Struct, frozen=True, gc=False):
    """A position that an operator closes: one order at a time, each immediate-or-cancel.

    `left_lots` still to ask for, the order that is out included; `order_lots` of that order, `before_lots`
    the position when it was sent; 0 while none is out.
    """

    request_id: int
    by: str
    side: Side
    limit_ticks: int
    asked_lots: int
    left_lots: int
    order_lots: int
    before_lots: int
    label: str


class Latch(msgspec.Struct, frozen=True, gc=False):
    """A halt, kept until it is reset, also while the symbol leaves."""

    why: Why
    detail: str
    by: str
    since_ns: int


class Difference(msgspec.Struct, frozen=True, gc=False):
    """What we say and what the exchange says, for people, and since when."""

    ours: str
    theirs: str
    since_ns: int


class SymbolState:
    """The state, whole: `snapshot()` prints it, and two equal ones decide alike."""

    def __init__(self, instrument: Instrument, settings: SymbolSettings, epoch: str, now_ns: int) -> None:
        """`epoch`: base 36 ms of when the symbol came into service, part of every label. ValueError: off the grid."""
        self.instrument = instrument
        self.settings = settings
        self.rules = rules_for(instrument, settings)
        self.mode = self.rules.mode
        self.state = State.PAUSED
        self.why = Why.STARTUP
        self.detail = "waiting for resume"
        self.by = "mmd"
        self.since_ns = now_ns
        self.latch: Latch | None = None  # it is HALTED, or was when it left
        self.market = MarketState(instrument)
        self.position = Position(instrument)
        self.own = OwnOrders(self.rules.ack_timeout_ns)
        self.min_lots = 0
        self.max_lots = 0
        self.bounds_version = 0
        self.bounds_acked = 0
        self.touch = NO_TOUCH
        self.reconciled = False
        self.state_asked_ns = 0  # when the exchange was last asked for orders and position
        self.orders_seen = False  # whether an earlier run's orders have been looked for, ever
        self.drift: int | None = None
        self.drift_sure = False  # whether the exchange has reported this difference twice in a row
        self.drift_since_ns = 0  # when the positions began to differ; kept while they do, whatever they differ by
        self.reported_lots: int | None = None
        self.reported_average = Decimal(0)
        self.reported_fills = 0  # of ours that were counted when the exchange last reported the position
        self.told_here = False  # whether the exchange has reported the position to this machine, ever
        self.told_ns = 0  # when it last did, by its clock where it says so
        self.agreed_ns = 0  # when it last said the same as we: all fills until then are counted
        self.counts_from_ns = 0  # when its position was last adopted: fills before that are in it
        self.cases: dict[tuple[CaseKind, str], Difference] = {}  # by kind and order's label
        self.doubts: dict[tuple[CaseKind, str], tuple[str, str]] = {}  # differences that were seen once
        self.heir = False  # an earlier process's machine left position and orders to this one
        self.heirlooms: set[str] = set()  # labels of the orders that came from it
        self.healthy_since_ns = 0
        self.timer_ns = 0
        self.volatility = self._new_volatility()
        self._label_prefix = f"{label_prefix(settings.service)}{instrument.symbol}-"
        self.epoch = epoch
        self._orders_made = 0
        self.imagined = Imagined(instrument)  # what shadow orders would have done
        self.held: dict[Switch, str] = {}  # switches of the exchange whose cause lasts
        self.protection: tuple[bool, str] = (False, "not read yet")
        self.closing: Closing | None = None
        self.refusal: GateRefused | None = None  # the gate's last no
        self.rejects = Window(self.rules.reject_window_ns)
        self.fills = Window(self.rules.fill_window_ns)
        self.timeouts = Window(self.rules.ack_window_ns)
        self.vanished = Window(VANISHED_NS)  # orders of ours that somebody else cancelled
        self.drifts = PriceRange(self.rules.drift_window_ns)
        self.marked_ns = 0  # when the ledger was last marked
        self._dirty = True
        self._out: list[Decision] = []

    def _new_volatility(self) -> Volatility:
        width = self.rules.volatility
        return Volatility(width.fast_seconds, width.slow_seconds) if width else Volatility(30.0, 300.0)

    @property
    def fair(self) -> float | Missing:
        """The fair value now, in ticks, or which input is missing."""
        return fair_value(self.rules.fair, self.touch, self.market.mark_ticks, self.market.index_ticks)

    @property
    def reference_ticks(self) -> float:
        """What the collar is measured from: the exchange's mark, else our fair value; 0.0 = neither."""
        if self.market.mark_ticks > 0.0:
            return self.market.mark_ticks
        fair = self.fair
        return fair if isinstance(fair, float) else 0.0

    @property
    def mark_price(self) -> float:
        """The exchange's mark, else our fair value, in the price unit; 0.0 = neither."""
        market = self.market
        if market.mark > 0.0:
            return market.mark
        fair = self.fair
        return fair * market.tick if isinstance(fair, float) else 0.0

    @property
    def inventory_lots(self) -> int:
        """What quotes lean against: the position, in shadow mode with what shadow orders surely did."""
        if self.mode is Mode.SHADOW:
            return self.position.lots + self.imagined.pessimistic.lots
        return self.position.lots

    def view(self) -> View:
        """What the pipeline sees now."""
        market = self.market
        fair = self.fair
        width = self.rules.volatility
        sigma = self.volatility.sigma_bps(width.horizon_seconds) if width and self.volatility.ready else None
        lots = self.inventory_lots
        maximum = max(1, self.rules.max_position_lots)
        low, high = self.bounds()
        return View(
            self.touch,
            fair,
            market.reference_ticks(fair if isinstance(fair, float) else 0.0),
            sigma,
            lots / maximum,
            high - lots - self.own.stray_lots(Side.BID),
            lots - low - self.own.stray_lots(Side.ASK),
            market.min_ticks,
            market.max_ticks,
        )

    def bounds(self) -> tuple[int, int]:
        """The tighter of the portfolio's grant and the symbol's own limit, signed lots."""
        maximum = self.rules.max_position_lots
        low = self.min_lots if self.min_lots > -maximum else -maximum
        return (low, self.max_lots if self.max_lots < maximum else maximum)

    def exposure(self, order: PlaceOrder | AmendOrder | ReduceOrder) -> Exposure:
        """What the gate needs to judge this order."""
        own, label, market = self.own, order.label, self.market
        state = own.bid if order.side is Side.BID else own.ask
        others = other_lots = 0
        if state.label != label or own.strays:
            others, other_lots = own.others_on_side(order.side, label), own.worst(order.side, besides=label)
        low, high = self.bounds()
        rules = self.rules
        vol_low = vol_high = 0.0
        if rules.collar_vol_points:
            vol_low, vol_high = market.vol_collar(rules.collar_vol_points)
        return Exposure(
            self.state,
            rules,
            self.inventory_lots,
            self.position.known,
            low,
            high,
            other_lots,
            others,
            worst_lots(state.slot) if state.label == label else 0,
            self.reference_ticks,
            self.drifts.low,
            self.drifts.high,
            market.lot_usd,
            vol_low,
            vol_high,
        )

    def checks(self, now_ns: int) -> tuple[Check, ...]:
        """What must hold before this symbol may quote."""
        market, rules = self.market, self.rules
        inherited = "known from the journal only: the exchange has not told it since the start"
        position = inherited if not self.told_here and self.position.known else "known" if self.told_here else "unknown"
        trouble = market.trouble(now_ns, rules)
        age = f"{(now_ns - market.data_ns) / NS:.1f} s" if market.data_ns else "never"
        cod = market.cod_armed or not rules.require_cod
        low, high = self.bounds()
        amount = self.instrument.amount_text
        inside = low <= self.inventory_lots <= high
        armed, protection = self.protection
        held = "; ".join(f"{switch}: {detail}" for switch, detail in self.held.items())
        return (
            Check("data_link", market.data_link, "up" if market.data_link else market.link_detail, "up"),
            Check("trade_link", market.trade_link, "up" if market.trade_link else market.link_detail, "up"),
            Check("cancel_on_disconnect", cod, "armed" if market.cod_armed else "not armed", "armed"),
            Check("maker_protection", armed, protection, "armed")
            if rules.protected
            else Check("maker_protection", True, "not configured", "as configured"),
            Check("kill_switches", not self.held, held or "none tripped", "none tripped"),
            Check("allowed", rules.allowed, "yes" if rules.allowed else "not in limits.allowed", "yes"),
            Check("market_data", trouble is None, trouble[1] if trouble else f"{age} old", "good and fresh"),
            Check("instrument", market.tradable, market.instrument_state, "open"),
            Check("orders_known", self.reconciled, "reconciled" if self.reconciled else "not asked yet", "reconciled"),
            Check("no_unknown_orders", self.own.unknown == 0, f"{self.own.unknown} unknown", "0 unknown"),
            Check("no_stray_orders", not self.own.strays, f"{len(self.own.strays)} strays", "0 strays"),
            Check("position_known", self.position.known and self.told_here, position, "known"),
            Check("no_drift", self.drift is None, f"off by {self.drift} lots" if self.drift else "none", "none"),
            Check("no_open_cases", not self.cases, f"{len(self.cases)} open", "0 open: mmdctl cases"),
            Check(
                "bounds",
                self.bounds_version > 0 and inside,
                amount(self.inventory_lots) if self.bounds_version else "no bounds granted",
                f"{amount(low)} .. {amount(high)}",
            ),
        )

    def snapshot(self) -> dict[str, Any]:
        """The whole state, for printing and comparing."""
        return {
            "key": self.instrument.key,
            "state": self.state,
            "why": self.why,
            "detail": self.detail,
            "mode": self.mode,
            "bounds": [self.min_lots, self.max_lots, self.bounds_version, self.bounds_acked],
            "touch": self.touch,
            "bid": self.own.bid.slot,
            "ask": self.own.ask.slot,
            "strays": [stray.slot for stray in self.own.strays.values()],
            "wanted": [self.own.bid.wanted, self.own.ask.wanted],
            "position": self.position.snapshot(),
            "imagined": self.imagined.snapshot(),
            "held": sorted(self.held),
            "protection": self.protection,
            "closing": self.closing,
            "volatility": self.volatility.snapshot(),
            "reconciled": self.reconciled,
            "drift": self.drift,
            "cases": sorted(f"{kind} {label}".strip() for kind, label in self.cases),
            "timer_ns": self.timer_ns,
            "orders_made": self._orders_made,
        }

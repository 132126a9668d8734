"""The life of an order as rows: what machines decided, what exchanges answered, what was executed. Pure."""

from typing import Any

import msgspec

from mmd.domain import actions as do
from mmd.domain import events as ev
from mmd.domain.ids import parse_label
from mmd.domain.reasons import Side
from mmd.journal.context import IMAGINED, TOLD_KEPT, AssumedFee, Order, Recent, Symbol
from mmd.journal.rows import FillRow, OrderRow, Row, plain, utc

POST_ONLY = "post-only limit"
REDUCE = "immediate-or-cancel reduce-only limit"
REAL = "real"


class OrderLife:
    """What is known of all orders, and the rows of the record at hand."""

    def __init__(self, fee: AssumedFee) -> None:
        self._fee = fee
        self._told: Recent[tuple[str, str, Side]] = Recent(TOLD_KEPT)
        self._entries: Recent[tuple[str, str]] = Recent(TOLD_KEPT)
        self._stamp: dict[str, Any] = {"service": "", "version": "", "config_sha256": ""}
        self._rows: list[Row] = []
        self._at = self._seq = 0
        self._hash = ""
        self._shadow = False

    # --- events ----------------------------------------------------------------------------------

    def on_acked(self, symbol: Symbol, event: ev.OrderAcked) -> None:
        known = symbol.orders.get(event.label)
        self._learn(symbol, event.label, event.order_id, event.price_ticks, event.total_lots)
        self._order(
            "acked",
            symbol,
            event.label,
            known,
            order_id=event.order_id,
            price=symbol.price(event.price_ticks),
            size=symbol.size(event.total_lots),
            remaining=symbol.size(event.remaining_lots),
            received_time=utc(event.received_ns),
        )

    def on_reported(self, symbol: Symbol, event: ev.OrdersReported) -> None:
        listed = {order.label for order in event.orders}
        for label, before in list(symbol.orders.items()):
            if label not in listed and before.stands != (0, 0) and not before.shadow:
                self._over(symbol, label, before)
        for order in event.orders:
            known = symbol.orders.get(order.label)
            self._learn(symbol, order.label, order.order_id, order.price_ticks, order.total_lots, order.side)
            self._order(
                "reported",
                symbol,
                order.label,
                known,
                order_id=order.order_id,
                side=order.side,
                price=symbol.price(order.price_ticks),
                size=symbol.size(order.total_lots),
                remaining=symbol.size(order.remaining_lots),
                received_time=utc(event.received_ns),
            )

    def on_refused(self, symbol: Symbol, event: ev.OrderRefused) -> None:
        known = symbol.orders.get(event.label)
        self._order(
            "refused",
            symbol,
            event.label,
            known,
            fault=event.fault,
            code=event.code,
            detail=event.detail,
            received_time=utc(event.received_ns),
        )
        self._fell_back(symbol, event.label, known, over=event.gone)

    def on_withheld(self, symbol: Symbol, event: ev.GateRefused) -> None:
        known = symbol.orders.get(event.label)
        self._order(
            "withheld",
            symbol,
            event.label,
            known,
            side=event.side,
            rule=event.rule,
            found=event.number,
            limit=event.limit,
            key=event.key,
            received_time=utc(event.received_ns),
        )
        self._fell_back(symbol, event.label, known)

    def on_closed(self, symbol: Symbol, event: ev.OrderClosed) -> None:
        known = symbol.orders.get(event.label)
        self._order(
            "closed",
            symbol,
            event.label,
            known,
            order_id=event.order_id,
            detail=f"{event.cause}, {symbol.size(event.filled_lots) or 0} filled",
            received_time=utc(event.received_ns),
        )
        self._over(symbol, event.label, known)

    def on_absent(self, symbol: Symbol, event: ev.OrderAbsent) -> None:
        known = symbol.orders.get(event.label)
        self._order("absent", symbol, event.label, known, received_time=utc(event.received_ns))
        self._over(symbol, event.label, known)

    def on_lost(self, symbol: Symbol, event: ev.RequestLost) -> None:
        known = symbol.orders.get(event.label)
        self._order("lost", symbol, event.label, known, detail=event.detail, received_time=utc(event.received_ns))

    def on_link_down(self, symbol: Symbol, event: ev.TradeLinkDown) -> None:
        """Of every order that may be out, nothing is known for sure any more."""
        for label, known in list(symbol.orders.items()):
            if not known.over and not known.shadow:
                self._order(
                    "lost",
                    symbol,
                    label,
                    known,
                    detail=f"the trading link is down: {event.detail}",
                    received_time=utc(event.received_ns),
                )

    def on_filled(self, symbol: Symbol, event: ev.OrderFilled) -> None:
        if not self._told.add((symbol.key, event.trade_id, event.side)):
            return
        symbol.filled(event)
        known = symbol.orders.get(event.label)
        common: dict[str, Any] = {
            "order_id": event.order_id,
            "side": event.side,
            "price": plain(event.price),
            "size": symbol.size(event.size_lots),
            "trade_id": event.trade_id,
            "fee": plain(event.fee),
            "fee_currency": event.fee_currency,
            "liquidity": "maker" if event.maker else "taker",
            "exchange_time": utc(event.exchange_ns),
            "received_time": utc(event.received_ns),
        }
        self._order("filled", symbol, event.label, known, **common, ledger=REAL, mode="live")
        self._executed(symbol, event.label, known, event.size_lots)
        self._fill(symbol, event.label, known, **common, ledger=REAL, position_after=symbol.size(symbol.lots))

    def on_shadow_filled(self, symbol: Symbol, event: ev.ShadowFilled) -> None:
        known = symbol.orders.get(event.label)
        instrument, price = symbol.instrument, event.price
        lots = symbol.imagined_fill(event.bound, event.side, event.size_lots)
        fee = self._fee(instrument, price, event.size_lots, symbol.index) if instrument and price > 0 else None
        common: dict[str, Any] = {
            "order_id": IMAGINED + event.label.removeprefix("mmd-"),
            "side": event.side,
            "price": plain(price),
            "size": symbol.size(event.size_lots),
            "trade_id": f"{IMAGINED}{event.number}",
            "fee": "" if fee is None else plain(fee),
            "fee_currency": instrument.settlement if instrument else "",
            "liquidity": "maker",
            "received_time": utc(event.received_ns),
        }
        ledger = f"shadow {event.bound}"
        self._order("filled", symbol, event.label, known, **common, ledger=ledger, mode="shadow")
        if event.bound is ev.Bound.PESSIMISTIC:
            self._executed(symbol, event.label, known, event.size_lots)
        self._fill(symbol, event.label, known, **common, ledger=ledger, position_after=symbol.size(lots))

    def on_cash(self, symbol: Symbol, event: ev.CashMoved) -> None:
        if self._entries.add((symbol.key, event.entry_id)):
            symbol.delivered(event)

    def on_position(self, symbol: Symbol, event: ev.PositionReported) -> None:
        symbol.reported(event)

    def on_ticker(self, symbol: Symbol, event: ev.Ticker) -> None:
        symbol.index = event.index

    def on_flatten(self, symbol: Symbol, event: ev.FlattenRequested) -> None:
        symbol.closing_by = event.by

    # --- actions ---------------------------------------------------------------------------------

    def do_place(self, symbol: Symbol, action: do.PlaceOrder) -> None:
        self._begin("place", symbol, action, POST_ONLY, symbol.resumed_by)

    def do_reduce(self, symbol: Symbol, action: do.ReduceOrder) -> None:
        self._begin("reduce", symbol, action, REDUCE, symbol.closing_by)

    def _begin(
        self, event: str, symbol: Symbol, action: do.PlaceOrder | do.ReduceOrder, order_type: str, by: str
    ) -> None:
        known = Order(
            action.side, action.price_ticks, action.size_lots, shadow=self._shadow, kind=order_type, authorised_by=by
        )
        symbol.remember(action.label, known)
        self._order(event, symbol, action.label, known)

    def do_amend(self, symbol: Symbol, action: do.AmendOrder) -> None:
        known = symbol.orders.get(action.label) or Order(action.side, 0, 0, shadow=self._shadow)
        known = msgspec.structs.replace(known, price_ticks=action.price_ticks, total_lots=action.total_lots)
        symbol.remember(action.label, known)
        self._order(
            "amend",
            symbol,
            action.label,
            known,
            order_id=action.order_id,
            remaining=symbol.size(action.remaining_lots),
        )

    def do_cancel(self, symbol: Symbol, action: do.CancelOrder) -> None:
        known = symbol.orders.get(action.label)
        self._order("cancel", symbol, action.label, known, order_id=action.order_id, side=action.side)

    def do_ask(self, symbol: Symbol, action: do.QueryOrder) -> None:
        known = symbol.orders.get(action.label)
        self._order("asked", symbol, action.label, known, order_id=action.order_id)

    def do_note(self, symbol: Symbol, action: do.Noted) -> None:
        """Two of a machine's notes are of an order's life and no event says the same."""
        if action.name in ("order.unknown", "order.vanished"):
            label, _, detail = action.detail.partition(": ")
            known = symbol.orders.get(label)
            self._order(action.name.removeprefix("order."), symbol, label, known, detail=detail)

    # --- what is known of an order ---------------------------------------------------------------

    def _learn(
        self, symbol: Symbol, label: str, order_id: str, price: int, lots: int, side: Side | None = None
    ) -> None:
        """It rests there at this price with this size."""
        known = symbol.orders.get(label)
        if known is None:
            parsed = parse_label(label)
            side = side or (parsed.side if parsed else None)
            if side is None:
                return
            known = Order(side, price, lots, shadow=order_id.startswith(IMAGINED))
        known = msgspec.structs.replace(
            known,
            price_ticks=price,
            total_lots=lots,
            stands=(price, lots),
            shadow=order_id.startswith(IMAGINED),
            over=False,
        )
        symbol.remember(label, known)

    def _fell_back(self, symbol: Symbol, label: str, known: Order | None, *, over: bool = False) -> None:
        """The last request had no effect: the order is as it was before, or there is none."""
        if known is None:
            return
        price, lots = known.stands
        if over or not lots:
            self._over(symbol, label, known)
        else:
            symbol.remember(label, msgspec.structs.replace(known, price_ticks=price, total_lots=lots))

    def _executed(self, symbol: Symbol, label: str, known: Order | None, lots: int) -> None:
        """It is over when all of it is."""
        if known is not None:
            filled = known.filled_lots + lots
            over = known.over or 0 < known.total_lots <= filled
            symbol.remember(label, msgspec.structs.replace(known, filled_lots=filled, over=over))

    def _over(self, symbol: Symbol, label: str, known: Order | None) -> None:
        if known is not None:
            symbol.remember(label, msgspec.structs.replace(known, over=True))

    # --- rows ------------------------------------------------------------------------------------

    def _head(self, exchange: str | None, symbol: str | None) -> dict[str, Any]:
        return {
            "time": utc(self._at),
            "seq": self._seq,
            "hash": self._hash,
            "exchange": exchange or "",
            "symbol": symbol or "",
        }

    def _order(self, event: str, symbol: Symbol, label: str, known: Order | None, **more: str) -> None:
        order_id = more.get("order_id", "")
        imagined = order_id.startswith(IMAGINED) or (not order_id and (known.shadow if known else self._shadow))
        price_unit, size_unit = symbol.units
        fields: dict[str, Any] = {
            "mode": "shadow" if imagined else "live",
            "side": known.side if known else _side_of(label),
            "order_type": known.kind if known else "",
            "price": symbol.price(known.price_ticks) if known else "",
            "size": symbol.size(known.total_lots or None) if known else "",
            "price_unit": price_unit,
            "size_unit": size_unit,
            "authorised_by": known.authorised_by if known else "",
            **self._stamp,
            **more,
        }
        self._rows.append(OrderRow(**self._head(symbol.exchange, symbol.name), event=event, label=label, **fields))

    def _fill(self, symbol: Symbol, label: str, known: Order | None, **more: str) -> None:
        price_unit, size_unit = symbol.units
        fields: dict[str, Any] = {
            "price_unit": price_unit,
            "size_unit": size_unit,
            "authorised_by": known.authorised_by if known else "",
            **self._stamp,
            **more,
        }
        self._rows.append(FillRow(**self._head(symbol.exchange, symbol.name), label=label, **fields))


def _side_of(label: str) -> str:
    found = parse_label(label)
    return found.side if found else ""

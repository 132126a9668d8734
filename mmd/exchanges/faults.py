"""An exchange's error codes as data: what each means for the order it answers. Pure.

AMBIGUOUS: the request may have had its effect. `gone`: the order is not open there any more.
"""

from collections.abc import Sequence

import msgspec

from mmd.domain.actions import Order, PlaceOrder, ReduceOrder
from mmd.domain.events import OrderRefused, RequestLost
from mmd.domain.reasons import Fault
from mmd.exchanges.jsonrpc import RpcError

FOR_NOW = (Fault.RETRY, Fault.RATE_LIMIT, Fault.MARKET, Fault.AMBIGUOUS)


class Meaning(msgspec.Struct, frozen=True):
    name: str
    fault: Fault
    gone: bool = False


class ErrorTable:
    """One exchange's codes. `throttled`: too much was asked; `queue_full`: its engine takes no more just now;
    `timed_out`: an order came later than it was valid, and is not carried out; `not_live`: its instrument takes none.

    `rows`: class, then "code name" pairs. `ranges`: (first, last, class) of codes that are in no row.
    """

    def __init__(
        self,
        rows: Sequence[tuple[Fault, str]],
        *,
        gone: frozenset[int],
        throttled: frozenset[int],
        timed_out: int,
        queue_full: frozenset[int] = frozenset(),
        not_live: frozenset[int] = frozenset(),
        ranges: Sequence[tuple[int, int, Fault]] = (),
    ) -> None:
        self.throttled = throttled
        self.timed_out = timed_out
        self.queue_full = queue_full
        self.not_live = not_live
        self._ranges = tuple(ranges)
        self.known: dict[int, Meaning] = {}
        for fault, row in rows:
            for entry in row.split(", "):
                code, name = entry.split(" ")
                assert int(code) not in self.known, f"error code {code} stands twice"
                self.known[int(code)] = Meaning(name, fault, int(code) in gone)

    def meaning(self, code: int) -> Meaning:
        """What a code means; by its range where it has no row, and else AMBIGUOUS: looked up, not assumed."""
        known = self.known.get(code)
        if known is not None:
            return known
        for first, last, fault in self._ranges:
            if first <= code <= last:
                return Meaning(f"code_{code}", fault)
        return Meaning(f"code_{code}", Fault.AMBIGUOUS)

    def is_for_now(self, code: int) -> bool:
        """A refusal that time may cure."""
        return self.meaning(code).fault in FOR_NOW

    def refused(self, order: Order, error: RpcError, received_ns: int, remark: str = "") -> OrderRefused | RequestLost:
        """An error answer: a definite no, or, where the table says so, an outcome to look up. `remark`: for people."""
        told = self.meaning(error.code)
        if told.fault is Fault.AMBIGUOUS:
            return RequestLost(order.label, f"{told.name} ({error.code}): {error.text}", received_ns)
        gone = told.gone and not isinstance(order, PlaceOrder | ReduceOrder)
        detail = f"{error.text} ({error.code})" + (f": {remark}" if remark else "")
        return OrderRefused(order.label, told.fault, told.name, detail, gone, received_ns)

"""Shadow mode: orders that stay in the house. They are acknowledged at once, rest, and never fill."""

from mmd.domain.actions import AmendOrder, CancelOrder, Order, PlaceOrder
from mmd.domain.events import Mail, OrderAbsent, OrderAcked, OrderClosed


class ShadowBook:
    """One symbol's imagined orders, by label."""

    def __init__(self) -> None:
        self._orders: dict[str, OrderAcked] = {}

    def __len__(self) -> int:
        return len(self._orders)

    def send(self, order: Order, now_ns: int) -> Mail:
        """What the exchange would answer if nothing went wrong."""
        match order:
            case PlaceOrder(label=label, price_ticks=price, size_lots=size):
                answer = OrderAcked(label, f"shadow-{label.removeprefix('mmd-')}", price, size, size, now_ns)
                self._orders[label] = answer
                return answer
            case AmendOrder(label=label, order_id=order_id, price_ticks=price, total_lots=total, remaining_lots=rest):
                if label not in self._orders:
                    return OrderAbsent(label, now_ns)
                answer = OrderAcked(label, order_id, price, rest, total, now_ns)
                self._orders[label] = answer
                return answer
            case CancelOrder(label=label, order_id=order_id):
                self._orders.pop(label, None)
                return OrderClosed(label, order_id, "cancelled", 0, now_ns)

    def look_up(self, label: str, now_ns: int) -> Mail:
        """The answer to QueryOrder."""
        found = self._orders.get(label)
        return found if found is not None else OrderAbsent(label, now_ns)

    def drop(self) -> None:
        """The link is gone: as with cancel-on-disconnect, nothing rests any more."""
        self._orders.clear()

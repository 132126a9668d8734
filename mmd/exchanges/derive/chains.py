"""Orders that took each other's place: to everybody else they are one, under their label. Pure.

A replace makes a new order with an id and a nonce of its own, and cancels the one before it. A label's orders are
its chain. What there is to tell of a chain:

| the newest order | no request may yet add one | one may (no answer, or lost) |
| --- | --- | --- |
| rests | it rests | it rests, for now |
| has ended, fills of all before it known | it is closed, with all fills | nothing yet: our replace may have ended it |
| has ended, fills of one before it not known | nothing: ask | nothing |

Who is a member, by who placed the first order of the label:

| | this process: `complete` | an earlier one |
| --- | --- | --- |
| order | its nonce was issued here under this label | any with the label, but one that rests beside one that does |
| trade | its order's id; any while a request is in flight | any, but that of an order which is none |

All others with the label are twins: somebody else made them, and they are shown as what they are. A request that was
lost counts as one that may come until it cannot any more (`Flight.until_ms`) and somebody has looked after that; so
does the last one of an earlier process, which nobody here knows.
"""

from collections.abc import Callable
from typing import Any

import msgspec

LABELS = 2000  # chains that are remembered: those that may fill yet, and the latest used
MEMBERS = 32  # orders of a chain that are remembered one by one
REMEMBERED = 256  # nonces and twins of a label, and orders that were folded
NO_NONCE = -1
MARGIN_MS = 200  # so much later it is looked: for the clock as we know it, and until lists show what was made (assumed)


class Ending(msgspec.Struct, frozen=True):
    """Why an order is over, in the exchange's words, and since when by its clock, Unix ms."""

    cause: str
    at_ms: int


class Sighting(msgspec.Struct, frozen=True, kw_only=True):
    """One order as it was listed, told or answered, in lots. `ending`: None = it rests."""

    order_id: str
    nonce: int
    created_ms: int
    filled_lots: int
    ending: Ending | None


class Member(msgspec.Struct):
    """One order of a chain: its latest sighting, but for fills, which only grow, and an end, which stays."""

    order_id: str
    nonce: int
    created_ms: int
    filled_lots: int = 0
    ending: Ending | None = None


class Flight(msgspec.Struct):
    """A request that makes an order, without its answer. `order`: the very object that was to be sent.

    `accounted`: what became of it is known, from elsewhere. `lost`: nobody waits for the answer any more.
    """

    order: object
    nonce: int
    old_id: str
    sent_ms: int
    until_ms: int
    accounted: bool = False
    lost: bool = False


def _bound(known: dict[Any, Any]) -> None:
    """Forget the oldest of what is full."""
    if len(known) > REMEMBERED:
        del known[next(iter(known))]


class Chain:
    """The orders of one label.

    `base_lots`: filled by orders before those that are members; None = not known. `current`: the newest order; None
    where none was seen. `began_ms`: when the first was made, by the exchange's clock; 0 = not known.
    """

    def __init__(self, label: str, *, complete: bool) -> None:
        self.label = label
        self.complete = complete
        self.base_lots: int | None = 0 if complete else None
        self.current: Member | None = None
        self.began_ms = 0
        self.members: dict[str, Member] = {}
        self.twins: dict[str, None] = {}
        self.flights: list[Flight] = []
        self._nonces: dict[int, None] = {}
        self._folded: dict[str, int] = {}  # lots of orders that are over and members no more: they are in `base_lots`

    # --- what is known ---

    @property
    def unsettled(self) -> bool:
        """A request may yet add an order, and end the one before it."""
        return any(not flight.accounted for flight in self.flights)

    @property
    def is_over(self) -> bool:
        """Nothing of it rests, as far as is known, and nothing may come."""
        return not self.flights and (self.current is None or self.current.ending is not None)

    @property
    def may_come_until_ms(self) -> int:
        """Until when (the exchange's clock); 0: none may."""
        return max((flight.until_ms for flight in self.flights if not flight.accounted), default=0)

    @property
    def asked_from_ms(self) -> int:
        """Since when (the exchange's clock) an order may have come that nobody saw; 0: none may."""
        return min((flight.sent_ms for flight in self.flights if not flight.accounted), default=0)

    @property
    def before_lots(self) -> int | None:
        """Filled by all orders before the newest; None = not known."""
        current = self.current
        if self.base_lots is None or self.unfinished:
            return None
        return self.base_lots + sum(one.filled_lots for one in self.members.values() if one is not current)

    @property
    def unfinished(self) -> list[str]:
        """Orders before the newest whose end nobody told."""
        current = self.current
        return [one.order_id for one in self.members.values() if one is not current and one.ending is None]

    @property
    def total_filled_lots(self) -> int | None:
        """Filled by all of it, once it is over; None = it is not, or that is not known."""
        current, before = self.current, self.before_lots
        if current is None or current.ending is None or before is None or self.unsettled:
            return None
        return before + current.filled_lots

    def shows(self, order_id: str) -> bool:
        """Whether a trade of this order is one of the chain."""
        if order_id in self.members or order_id in self._folded:
            return True
        return order_id not in self.twins and (not self.complete or bool(self.flights))

    def has_ended(self, order_id: str) -> bool:
        """Whether the end of this order of the chain is known."""
        member = self.members.get(order_id)
        return order_id in self._folded if member is None else member.ending is not None

    # --- requests ---

    def sent(self, order: object, nonce: int, old_id: str, sent_ms: int, until_ms: int) -> None:
        """A request leaves that makes an order; `old_id`: of the one that it replaces."""
        self.flights.append(Flight(order, nonce, old_id, sent_ms, until_ms))
        self._nonces[nonce] = None
        _bound(self._nonces)

    def flight(self, order: object) -> Flight | None:
        """The request for this order, if what became of it is not told yet."""
        return next((flight for flight in self.flights if flight.order is order), None)

    def answered(self, order: object) -> None:
        """What became of it was told for good."""
        self.flights = [flight for flight in self.flights if flight.order is not order]

    def lost(self, order: object) -> None:
        """There is no answer, or none that says what became of it."""
        for flight in self.flights:
            if flight.order is order:
                flight.lost = True
        self._forget_accounted()

    def settle(self, asked_ms: int) -> None:
        """Requests that can come no more by this time (the exchange's clock): whoever looked then saw what they did."""
        for flight in self.flights:
            flight.accounted |= flight.until_ms + MARGIN_MS < asked_ms
        self._forget_accounted()

    def _forget_accounted(self) -> None:
        self.flights = [flight for flight in self.flights if not (flight.lost and flight.accounted)]

    # --- orders ---

    def take(self, seen: Sighting, *, alone: bool = True) -> Member | None:
        """An order with the label: the member that it is, or None for a twin.

        `alone`: as far as the one knows who shows it, none of the chain rests beside it.
        """
        member = self.members.get(seen.order_id)
        if member is None:
            if seen.order_id in self._folded:
                return self._again(seen)
            if seen.order_id in self.twins:
                return None
            if (seen.nonce not in self._nonces) if self.complete else not alone:
                self.twins[seen.order_id] = None
                _bound(self.twins)
                return None
            member = self._join(seen)
        member.filled_lots = max(member.filled_lots, seen.filled_lots)
        member.ending = member.ending or seen.ending
        return member

    def _join(self, seen: Sighting) -> Member:
        if not self.complete:
            self.base_lots = None  # who came between those that are known and this one, nobody knows
        member = Member(seen.order_id, seen.nonce, seen.created_ms)
        self.members[seen.order_id] = member
        if self.complete and not self.began_ms:
            self.began_ms = seen.created_ms
        if self.current is None or (member.nonce, member.created_ms) > (self.current.nonce, self.current.created_ms):
            self.current = member
        for flight in self.flights:
            flight.accounted |= flight.nonce == seen.nonce
        self._forget_accounted()
        if len(self.members) > MEMBERS:
            self._fold()
        return member

    def _fold(self) -> None:
        """The oldest that is over is counted, and forgotten."""
        for order_id, member in self.members.items():
            if member.ending is not None and member is not self.current:
                del self.members[order_id]
                self._folded[order_id] = member.filled_lots
                _bound(self._folded)
                if self.base_lots is not None:
                    self.base_lots += member.filled_lots
                return

    def _again(self, seen: Sighting) -> Member:
        """One that was folded: only what it filled beyond that is news."""
        more = max(0, seen.filled_lots - self._folded[seen.order_id])
        self._folded[seen.order_id] += more
        if self.base_lots is not None:
            self.base_lots += more
        return Member(seen.order_id, seen.nonce, seen.created_ms, self._folded[seen.order_id], seen.ending)

    def end(self, order_id: str, ending: Ending) -> None:
        """This one is over, whatever its record says."""
        member = self.members[order_id]
        member.ending = member.ending or ending

    def count(self, filled: dict[str, int]) -> None:
        """All that orders with the label have filled, by order id: what those before the members have is known now."""
        known = self.members.keys() | self.twins.keys()
        self._folded = {order_id: filled.get(order_id, 0) for order_id in self._folded}
        self.base_lots = sum(lots for order_id, lots in filled.items() if order_id not in known)


class Chains:
    """Of all labels of ours; those that are over, and were not used for the longest, are forgotten.

    `heritage`: when an earlier process may have sent its last request, and until when that may come, both Unix ms by
    the exchange's clock.
    """

    def __init__(self, heritage: Callable[[], tuple[int, int]]) -> None:
        self._heritage = heritage
        self._chains: dict[str, Chain] = {}

    def get(self, label: str) -> Chain | None:
        return self._chains.get(label)

    def begin(self, label: str) -> Chain:
        """The first order of this label is placed here."""
        return self._keep(Chain(label, complete=True))

    def of(self, label: str) -> Chain:
        """The label's chain; one that nobody began here is an earlier process's."""
        chain = self._chains.get(label)
        if chain is None:
            chain = Chain(label, complete=False)
            sent_ms, until_ms = self._heritage()
            chain.flights.append(Flight(None, NO_NONCE, "", sent_ms, until_ms, lost=True))
        return self._keep(chain)

    def _keep(self, chain: Chain) -> Chain:
        self._chains.pop(chain.label, None)
        if len(self._chains) >= LABELS:
            self._forget()
        self._chains[chain.label] = chain
        return chain

    def _forget(self) -> None:
        """The one that was not used for the longest, of those that are over; if none is, of all."""
        for _ in range(len(self._chains)):
            label, oldest = next(iter(self._chains.items()))
            del self._chains[label]
            if oldest.is_over:
                return
            self._chains[label] = oldest
        del self._chains[next(iter(self._chains))]

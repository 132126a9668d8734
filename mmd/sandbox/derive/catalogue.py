"""Channel names: from the text a client subscribes to, to the channel behind it."""

from collections.abc import Callable
from functools import partial

from mmd.sandbox.channels import Channel, LatestChannel, Topic
from mmd.sandbox.derive import channels
from mmd.sandbox.derive.link import Link
from mmd.sandbox.derive.render import spot_json, ticker_json
from mmd.sandbox.derive.rpc import TAIL, encode, notification_head
from mmd.sandbox.derive.tickets import Tickets
from mmd.sandbox.derive.universe import kind_of
from mmd.sandbox.floor import Floor
from mmd.sandbox.listing import Listing

GROUPS = frozenset({"1", "10", "100"})
DEPTHS = frozenset({"1", "10", "20", "100"})
TICKER_MS = {"100": 100, "1000": 1000}
KINDS = frozenset({"perp", "option", "erc20"})
ALL = ("all", "all")


class Catalogue:
    """Opens channels over a floor. None = there is no such channel for this caller."""

    tail = TAIL
    head = staticmethod(notification_head)
    encode = staticmethod(encode)

    def __init__(self, floor: Floor, tickets: Tickets, books_late_ms: Callable[[], int]) -> None:
        """`books_late_ms`: how much too old the times of books are."""
        self.floor = floor
        self._books_late_ms = books_late_ms
        self._tickets = tickets
        self._publish_ids: dict[str, int] = {}

    def is_private(self, name: str) -> bool:
        """Those of a subaccount begin with its number, those of a wallet with its address."""
        return name[:1].isdecimal()

    def is_guarded(self, name: str) -> bool:
        return self.is_private(name)

    def owner(self, name: str, link: Link) -> str:
        return name.partition(".")[0] if link.caller is not None and self.is_private(name) else ""

    def groups(self, listing: Listing) -> tuple[Topic, ...]:
        instrument = listing.instrument
        return ((kind_of(instrument), instrument.base_currency), ALL)

    def open(self, name: str, link: Link) -> Channel | None:
        parts = name.split(".")
        if self.is_private(name):
            return self._private(name, parts, link)
        match parts:
            case ["orderbook", instrument, group, depth] if group in GROUPS and depth in DEPTHS:
                listing = self.floor.listings.get(instrument)
                return None if listing is None else self._book(name, listing, int(group), int(depth))
            case ["ticker_slim", instrument, interval] if interval in TICKER_MS:
                listing = self.floor.listings.get(instrument)
                return None if listing is None else self._ticker(name, listing, TICKER_MS[interval])
            case ["trades", instrument] if instrument in self.floor.listings:
                channel = channels.TradesChannel(name, self.floor, [("trades", instrument)], 0)
                channel.instrument_name = instrument
                return channel
            case ["trades", kind, currency] if kind in KINDS and f"{currency.lower()}_usd" in self.floor.indexes:
                return channels.TradesChannel(name, self.floor, [("trades", kind, currency)], 0)
            case ["spot_feed", currency] if (index := f"{currency.lower()}_usd") in self.floor.indexes:
                return LatestChannel(
                    name,
                    self.floor,
                    [("index", index)],
                    1000,
                    lambda now_ms: spot_json(currency, self.floor.indexes[index], now_ms),
                )
        return None

    def _book(self, name: str, listing: Listing, group: int, depth: int) -> Channel:
        number = partial(self._publish_id, listing)
        return channels.BookChannel(name, self.floor, listing, group, depth, number, self._books_late_ms)

    def _publish_id(self, listing: Listing) -> int:
        """Rises with every book of an instrument that is sent, whatever the channel."""
        name = listing.instrument.instrument_name
        last = self._publish_ids.get(name, listing.book.change_id)
        self._publish_ids[name] = last + 1
        return last + 1

    def _ticker(self, name: str, listing: Listing, interval_ms: int) -> Channel:
        instrument = listing.instrument.instrument_name

        def look(now_ms: int) -> object:
            index = self.floor.index_price(listing.instrument.price_index)
            return {"timestamp": now_ms, "instrument_ticker": ticker_json(listing, index, now_ms)}

        watched: list[Topic] = [("top", instrument), ("reference", instrument), ("trades", instrument)]
        channel = LatestChannel(name, self.floor, watched, interval_ms, look)
        channel.instrument_name = instrument
        return channel

    def _private(self, name: str, parts: list[str], link: Link) -> Channel | None:
        if link.caller is None or parts[0] not in map(str, link.caller.subaccounts):
            return None
        account = parts[0]
        topics: list[Topic] = [("account", account, *ALL)]
        match parts[1:]:
            case ["orders"]:
                return channels.OrdersChannel(name, self.floor, topics, self._tickets)
            case ["trades"]:
                return channels.UserTradesChannel(name, self.floor, topics, 0)
            case ["balances"]:
                return channels.BalancesChannel(name, self.floor, [*topics, ("wallet", account)], account)
        return None

"""Channel names: from the text a client subscribes to, to the channel behind it."""

from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from typing import Any

from mmd.sandbox.channels import Channel, LatestChannel, TimedChannel, Topic
from mmd.sandbox.deribit import channels, render
from mmd.sandbox.deribit.auth import READ, Grant
from mmd.sandbox.deribit.link import Link
from mmd.sandbox.deribit.rpc import TAIL, encode, notification_head
from mmd.sandbox.floor import Floor
from mmd.sandbox.listing import AVERAGING_MS, Listing, next_settlement
from mmd.sandbox.model import InstrumentState
from mmd.sandbox.rpc import RpcError

INTERVALS = {"raw": 0, "100ms": 100, "agg2": 1000}
KINDS = frozenset({"future", "option", "spot", "future_combo", "option_combo", "combo", "any"})
CURRENCIES = frozenset({"BTC", "ETH", "SOL", "USDC", "USDT", "EURR", "any"})
GROUPS = frozenset({"none", "1", "2", "5", "10", "25", "100", "250"})
DEPTHS = frozenset({"1", "10", "20"})
RESOLUTIONS = {"1", "3", "5", "10", "15", "30", "60", "120", "180", "360", "720", "1D"}


def resolution_ms(text: str) -> int:
    """The width of a chart bar; 1D or minutes."""
    return 86_400_000 if text == "1D" else int(text) * 60_000


class Catalogue:
    """Opens channels over a floor. None = there is no such channel for this caller."""

    tail = TAIL
    head = staticmethod(notification_head)
    encode = staticmethod(encode)

    def __init__(self, floor: Floor) -> None:
        self.floor = floor

    def is_private(self, name: str) -> bool:
        return name.startswith("user.")

    def owner(self, name: str, link: Link) -> str:
        return link.grant.account if link.grant is not None and self.is_private(name) else ""

    def is_guarded(self, name: str) -> bool:
        return self.is_private(name) or name.endswith(".raw")

    def groups(self, listing: Listing) -> tuple[Topic, ...]:
        return channels.instrument_topics(listing)

    def open(self, name: str, link: Link) -> Channel | None:
        """Raises 13778 for a raw public channel without a login."""
        parts = name.split(".")
        if parts[0] == "user":
            return self._user(name, parts, link.grant)
        if parts[-1] == "raw" and link.grant is None:
            raise RpcError(13778, "raw_subscriptions_not_available_for_unauthorized")
        match parts:
            case ["book" | "ticker" | "quote" | "incremental_ticker" | "perpetual", instrument, *rest]:
                listing = self.floor.listings.get(instrument)
                return None if listing is None else self._market(name, parts[0], listing, rest)
            case ["trades", *where, interval] if interval in INTERVALS:
                return self._trades(name, where, INTERVALS[interval])
            case ["chart", "trades", instrument, resolution] if resolution in RESOLUTIONS:
                listing = self.floor.listings.get(instrument)
                return None if listing is None else self._chart(name, listing, resolution_ms(resolution))
            case ["instrument", "state" | "creation", kind, currency]:
                return self._instrument_events(name, parts[1], kind, currency)
            case ["platform_state"] | ["platform_state", "public_methods_state"] | ["announcements"]:
                state = {"allow_unauthenticated_public_requests": True} if len(parts) == 2 else None
                return channels.EventChannel(name, self.floor, [("broadcast", name)], state)
            case [topic, index]:
                return self._index(name, topic, index)
            case ["markprice", "options", index] if index in self.floor.indexes:
                return TimedChannel(name, self.floor, [], 1000, lambda now_ms: self._marks(index, now_ms))
        return None

    # --- one instrument ------------------------------------------------------------------------

    def _market(self, name: str, kind: str, listing: Listing, rest: list[str]) -> Channel | None:
        instrument = listing.instrument.instrument_name
        channel: Channel | None = None

        def ticker(now_ms: int) -> Any:
            return render.ticker_json(self.floor, listing, now_ms)

        watched: list[Topic] = [("top", instrument), ("reference", instrument), ("trades", instrument)]
        match kind, rest:
            case "book", [interval] if interval in INTERVALS:
                channel = channels.BookChannel(name, self.floor, listing, INTERVALS[interval])
            case "book", [group, depth, interval] if group in GROUPS and depth in DEPTHS and interval in INTERVALS:
                channel = self._grouped(name, listing, group, int(depth), INTERVALS[interval])
            case "ticker", [interval] if interval in INTERVALS:
                channel = LatestChannel(name, self.floor, watched, INTERVALS[interval], ticker)
            case "incremental_ticker", []:
                channel = channels.IncrementalTicker(name, self.floor, watched, ticker)
            case "quote", []:
                channel = LatestChannel(
                    name, self.floor, [("top", instrument)], 0, lambda now_ms: render.quote_json(listing)
                )
            case "perpetual", [interval] if interval in INTERVALS and listing.instrument.is_perpetual:
                channel = LatestChannel(
                    name,
                    self.floor,
                    [("reference", instrument)],
                    INTERVALS[interval],
                    lambda now_ms: self._perpetual(listing),
                )
        if channel is not None:
            channel.instrument_name = instrument
        return channel

    def _grouped(self, name: str, listing: Listing, group: str, depth: int, interval_ms: int) -> Channel | None:
        try:
            step = None if group == "none" else Decimal(group) * listing.instrument.tick_size
        except InvalidOperation:
            return None
        topics = [("book", listing.instrument.instrument_name)]
        return LatestChannel(
            name, self.floor, topics, interval_ms, lambda now_ms: render.grouped_json(listing, step, depth)
        )

    def _perpetual(self, listing: Listing) -> Any:
        reference = listing.reference
        return {
            "timestamp": listing.reference_ms,
            "interest": (reference.current_funding or 0.0) if reference is not None else 0.0,
            "index_price": self.floor.index_price(listing.instrument.price_index),
        }

    def _chart(self, name: str, listing: Listing, width_ms: int) -> Channel:
        def bar(now_ms: int) -> Any:
            bars = listing.tape.bars(now_ms - width_ms, now_ms, width_ms)
            if not bars:
                return None
            last = bars[-1]
            return {
                "tick": last.start_ms,
                "open": last.open,
                "high": last.high,
                "low": last.low,
                "close": last.close,
                "volume": render.money(last.volume),
                "cost": render.money(last.cost),
            }

        channel = LatestChannel(name, self.floor, [("trades", listing.instrument.instrument_name)], 100, bar)
        channel.instrument_name = listing.instrument.instrument_name
        return channel

    # --- groups, indexes -----------------------------------------------------------------------

    def _where(self, first: str, where: list[str], *head: str) -> Topic | None:
        """A topic for `{instrument}` or `{kind}.{currency}`."""
        if len(where) == 1 and where[0] in self.floor.listings:
            return (first, *head, where[0])
        if len(where) == 2 and where[0] in KINDS and where[1] in CURRENCIES:
            return (first, *head, where[0], where[1])
        return None

    def _trades(self, name: str, where: list[str], interval_ms: int) -> Channel | None:
        topic = self._where("trades", where)
        if topic is None:
            return None
        channel = channels.TradesChannel(name, self.floor, [topic], interval_ms)
        channel.instrument_name = where[0] if len(where) == 1 else ""
        return channel

    def _instrument_events(self, name: str, what: str, kind: str, currency: str) -> Channel | None:
        if kind not in KINDS or currency not in CURRENCIES:
            return None
        return channels.EventChannel(name, self.floor, [(what, kind, currency)])

    def _index(self, name: str, topic: str, index: str) -> Channel | None:
        if index not in self.floor.indexes:
            return None
        looks: dict[str, tuple[Callable[[str, int], Any], bool]] = {
            "deribit_price_index": (self._price, False),
            "deribit_price_ranking": (self._ranking, False),
            "deribit_price_statistics": (self._statistics, True),
            "deribit_volatility_index": (self._volatility, True),
            "estimated_expiration_price": (self._expiration, True),
        }
        if topic not in looks:
            return None
        look, timed = looks[topic]
        if timed:
            return TimedChannel(name, self.floor, [], 1000, lambda now_ms: look(index, now_ms))
        return LatestChannel(name, self.floor, [("index", index)], 0, lambda now_ms: look(index, now_ms))

    def _price(self, index: str, now_ms: int) -> Any:
        found = self.floor.indexes[index]
        return {"timestamp": found.changed_ms, "index_name": index, "price": found.price}

    def _ranking(self, index: str, now_ms: int) -> Any:
        found = self.floor.indexes[index]
        return [
            {
                "identifier": "sandbox",
                "enabled": True,
                "index": index,
                "price": found.price,
                "original_price": found.price,
                "weight": 100.0,
                "timestamp": found.changed_ms,
            }
        ]

    def _statistics(self, index: str, now_ms: int) -> Any:
        found = self.floor.indexes[index]
        change = (found.price / found.opened - 1) * 100 if found.opened else Decimal(0)
        return {
            "index_name": index,
            "high24h": found.high,
            "low24h": found.low,
            "change24h": round(change, 2),
            "high_volatility": False,
        }

    def _volatility(self, index: str, now_ms: int) -> Any:
        value = render.volatility_index(self.floor, index, now_ms)
        return None if value is None else {"timestamp": now_ms, "index_name": index, "volatility": value}

    def _expiration(self, index: str, now_ms: int) -> Any:
        left = next_settlement(now_ms) - now_ms
        average = self.floor.indexes[index].average(now_ms)
        return {"seconds": left // 1000, "price": average, "is_estimated": left <= AVERAGING_MS}

    def _marks(self, index: str, now_ms: int) -> Any:
        rows = []
        for name, listing in self.floor.listings.items():
            instrument, reference = listing.instrument, listing.reference
            if instrument.kind != "option" or instrument.price_index != index or reference is None:
                continue
            if listing.state is InstrumentState.OPEN:
                iv = round(reference.mark_iv / 100, 6) if reference.mark_iv is not None else 0.0
                rows.append(
                    {
                        "timestamp": listing.reference_ms,
                        "instrument_name": name,
                        "mark_price": reference.mark_price,
                        "iv": iv,
                    }
                )
        return rows

    # --- the caller's own ----------------------------------------------------------------------

    def _user(self, name: str, parts: list[str], grant: Grant | None) -> Channel | None:
        if grant is None:
            return None
        account = grant.account
        group = "account" if parts[1:2] and parts[1] in ("portfolio", "lock", "access_log") else "trade"
        if not grant.allows(group, READ):
            return None
        match parts:
            case ["user", "portfolio", currency] if currency.upper() in {c.upper() for c in CURRENCIES}:
                return channels.PortfolioChannel(name, self.floor, account, currency.upper())
            case ["user", "mmp_trigger", index] if index == "all" or index in self.floor.indexes:
                return channels.EventChannel(name, self.floor, [("mmp", account, index)])
            case ["user", "lock"]:
                return channels.EventChannel(
                    name, self.floor, [("broadcast", account, name)], {"locked": False, "currency": "ALL"}
                )
            case ["user", "access_log"] | ["user", "combo_trades", *_]:
                return channels.EventChannel(name, self.floor, [("broadcast", account, name)])
            case ["user", "orders" | "trades" | "changes", *where, interval] if interval in INTERVALS:
                topic = self._where("account", where, account)
                kinds: dict[str, type[Channel]] = {
                    "orders": channels.UserOrdersChannel,
                    "trades": channels.UserTradesChannel,
                    "changes": channels.UserChangesChannel,
                }
                return kinds[parts[1]](name, self.floor, [topic], INTERVALS[interval]) if topic else None
        return None

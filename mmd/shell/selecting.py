"""What exchanges list, and which of it a configuration wants."""

from collections.abc import Mapping

import msgspec

from mmd.config.model import Config, Named, Selection
from mmd.config.select import Resolution, resolve
from mmd.domain.errors import ExchangeRefused
from mmd.domain.instruments import Instrument
from mmd.exchanges.api import Exchange
from mmd.shell.diary import Diary


class Listing(msgspec.Struct, frozen=True):
    """What one exchange was asked for a configuration. `prices` by coin, USD; `ended`: named, and no more; Unix ns."""

    instruments: Mapping[str, Instrument]
    prices: Mapping[str, float]
    ended: Mapping[str, int]


async def listing(config: Config, name: str, exchange: Exchange, diary: Diary) -> Listing:
    """What it lists now, and what else is needed to select from that. Raises what its questions raise."""
    instruments = exchange.instruments
    prices: dict[str, float] = {}
    for base, index in sorted(indexes(config, name, instruments)):
        try:
            prices[base] = await exchange.index_price(index)
        except ExchangeRefused as refused:
            diary.note("exchange.no_index", f"{index}: {refused}", exchange=name)
    ended: dict[str, int] = {}
    for target in [entry.target for entry in config.entries if entry.target.exchange == name]:
        if isinstance(target, Named) and target.symbol not in instruments:
            ended_ns = await exchange.expired_ns(target.symbol)
            if ended_ns is not None:
                ended[target.symbol] = ended_ns
    return Listing(instruments, prices, ended)


def indexes(config: Config, exchange: str, listed: Mapping[str, Instrument]) -> set[tuple[str, str]]:
    """(coin, index) of every underlying there that the configuration speaks of."""
    targets = [entry.target for entry in config.entries if entry.target.exchange == exchange]
    wanted = {(target.underlying, target.contract) for target in targets if isinstance(target, Selection)}
    return {(one.base, one.index) for one in listed.values() if (one.base, one.contract) in wanted}


def select(config: Config, listings: Mapping[str, Listing], now_ns: int) -> Resolution:
    """Of these exchanges; entries of others are awaited. Raises ConfigError."""
    listed = {name: one.instruments for name, one in listings.items()}
    prices = {(name, base): price for name, one in listings.items() for base, price in one.prices.items()}
    ended = {(name, symbol): at_ns for name, one in listings.items() for symbol, at_ns in one.ended.items()}
    return resolve(config, listed, prices, now_ns, ended)

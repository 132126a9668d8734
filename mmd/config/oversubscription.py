"""What the symbols' limits add up to, as far as it can be known without an exchange, held against the totals.

Adding up to more than a total is legal: the totals are shared out at run time, each symbol
getting the same part of its own limit. All sums are "at least": what only an exchange can tell is left out.
"""

from collections.abc import Callable, Iterator
from decimal import Decimal

import msgspec

from mmd.config.limits import kinds_named, narrowed, symbol_limits
from mmd.config.model import DERIVE, Config, Entry, Named, NearestExpiries, NearestToMoney
from mmd.config.nodes import Finding, join
from mmd.domain.instruments import Contract, Kind
from mmd.domain.settings import ScopeLimits

ORDERS_PER_SYMBOL = 2
PORTFOLIO = "limits.portfolio"


class Share(msgspec.Struct, frozen=True):
    """At least `count` symbols, each with this position at its limit. None: counted in another unit, or unknown.

    `coin` is empty where the name does not tell it.
    """

    exchange: str
    coin: str
    kind: Kind | None
    contract: Contract
    count: int
    coins: Decimal | None = None
    usd: Decimal | None = None
    contracts: Decimal | None = None


def oversubscribed(config: Config) -> list[Finding]:
    """One finding for each total that the symbols' limits are beyond."""
    shares = list(_shares(config))
    portfolio = config.portfolio
    found = []
    for coin, limit in portfolio.max_exposure.items():
        path = join(f"{PORTFOLIO}.max_exposure", coin)
        found += _beyond(config, path, limit, _sum(shares, lambda share: share.coins, coin=coin), coin)
    scopes: list[tuple[str, ScopeLimits, list[Share]]] = [
        (PORTFOLIO, _whole(config), shares),
        *(
            (join(f"{PORTFOLIO}.per_exchange", name), limits, [share for share in shares if share.exchange == name])
            for name, limits in portfolio.per_exchange.items()
        ),
        *(
            (join(f"{PORTFOLIO}.per_underlying", coin), limits, [share for share in shares if share.coin == coin])
            for coin, limits in portfolio.per_underlying.items()
        ),
    ]
    for path, limits, inside in scopes:
        found += _beyond(config, f"{path}.max_notional_usd", limits.max_notional_usd, _sum(inside, _usd), "USD")
        found += _beyond(config, f"{path}.max_contracts", limits.max_contracts, _sum(inside, _contracts), "contracts")
        found += _too_few_orders(config, f"{path}.max_open_orders", limits.max_open_orders, inside)
    return found


def _whole(config: Config) -> ScopeLimits:
    """The portfolio's own totals."""
    portfolio = config.portfolio
    return ScopeLimits(
        max_notional_usd=portfolio.max_notional_usd,
        max_contracts=portfolio.max_contracts,
        max_open_orders=portfolio.max_open_orders,
    )


def _usd(share: Share) -> Decimal | None:
    return share.usd


def _contracts(share: Share) -> Decimal | None:
    return share.contracts


def _sum(shares: list[Share], amount: Callable[[Share], Decimal | None], coin: str | None = None) -> Decimal:
    counted = [(share.count, amount(share)) for share in shares if coin in (None, share.coin)]
    return sum((count * each for count, each in counted if each is not None), Decimal(0))


def _beyond(config: Config, path: str, limit: Decimal | None, total: Decimal, unit: str) -> list[Finding]:
    if limit is None or total <= limit:
        return []
    text = f"the symbols' max_position add up to at least {total:f} {unit}, {total / limit:.1f} times this limit"
    return [Finding(config.where(path), path, f"{text}; each symbol gets the same part of its own")]


def _too_few_orders(config: Config, path: str, limit: int | None, shares: list[Share]) -> list[Finding]:
    symbols = sum(share.count for share in shares)
    wanted = ORDERS_PER_SYMBOL * symbols
    if limit is None or wanted <= limit:
        return []
    text = f"is {limit}, and at least {symbols} symbols with a bid and an ask want {wanted}"
    return [Finding(config.where(path), path, f"{text}, {wanted / limit:.1f} times this limit")]


def _shares(config: Config) -> Iterator[Share]:
    """What each entry's symbols add, at least."""
    named = [_named(config, entry.target) for entry in config.entries if isinstance(entry.target, Named)]
    for entry in config.entries:
        if isinstance(entry.target, Named):
            yield _with_amounts(config, entry, _named(config, entry.target))
            continue
        target = entry.target
        for kind in target.kinds:
            one = Share(target.exchange, target.underlying, kind, target.contract, 1)
            # A symbol that is named as well is not the selection's: it may be any of those named.
            count = _count(entry, kind) - named.count(one)
            if count > 0:
                yield _with_amounts(config, entry, msgspec.structs.replace(one, count=count))


def _named(config: Config, target: Named) -> Share:
    """What the name tells: BTC-27DEC26-60000-C is inverse, BTC_USDC-PERPETUAL linear, and all of Derive is."""
    kinds = kinds_named(target.symbol)
    head = target.symbol.upper().split("-")[0]
    is_linear = "_" in head or config.exchanges[target.exchange].type == DERIVE
    contract = Contract.LINEAR if is_linear else Contract.INVERSE
    if len(kinds) > 1:
        return Share(target.exchange, "", None, contract, 1)
    return Share(target.exchange, head.split("_")[0], kinds[0], contract, 1)


def _count(entry: Entry, kind: Kind) -> int:
    """How many symbols of one kind a selection finds, at least."""
    assert not isinstance(entry.target, Named)
    if kind is Kind.PERPETUAL:
        return 1
    strikes = 1 if kind is Kind.FUTURE else _at_least(entry.target.strikes)
    return _at_least(entry.target.expiries) * strikes


def _at_least(wanted: object) -> int:
    match wanted:
        case tuple():
            return len(wanted)
        case NearestExpiries(count=count) | NearestToMoney(count=count):
            return count
    return 1


def _with_amounts(config: Config, entry: Entry, share: Share) -> Share:
    """Positions at their limit, in the units that can be known."""
    if share.kind is None:
        return share
    raw = config.effective["instruments"][entry.index]
    limits = symbol_limits(narrowed(config.effective["limits"], raw, entry.path, share.kind)[0])
    position = limits.max_position
    is_option = share.kind in (Kind.CALL, Kind.PUT)
    if share.contract is Contract.INVERSE and not is_option:
        return msgspec.structs.replace(share, usd=position)
    # One contract of an inverse option is one coin; a linear one's size differs from coin to coin.
    contracts = position if share.contract is Contract.INVERSE else None
    return msgspec.structs.replace(share, coins=position, contracts=contracts)

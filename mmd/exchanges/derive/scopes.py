"""What a session key may do, by the scopes that the wallet granted it. Pure.

Source: docs.derive.xyz, "Session keys"; the scopes of the published SDKs.
"""

from collections.abc import Collection

from mmd.domain.instruments import Kind

EVERYTHING = frozenset({"admin", "trade:all"})
"""Also what is of the whole account, as cancel-on-disconnect is."""
BOOKS = EVERYTHING | {"trade:orderbook:all"}


def may_quote(scopes: Collection[str], kind: Kind) -> bool:
    """Orders of instruments of this kind."""
    return not BOOKS.isdisjoint(scopes) or _of(kind) in scopes


def may_trade(scopes: Collection[str]) -> bool:
    """Orders of anything that can be quoted."""
    return any(may_quote(scopes, kind) for kind in (Kind.PERPETUAL, Kind.CALL))


def _of(kind: Kind) -> str:
    return "trade:orderbook:perp" if kind is Kind.PERPETUAL else "trade:orderbook:option"

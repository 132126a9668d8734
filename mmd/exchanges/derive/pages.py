"""Lists that come page by page: read whole, and anew where their number of rows changed meanwhile.

A row may have moved over the border of two pages then. Source: docs.derive.xyz; pages from 1, at most 1,000 rows.
"""

from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

import msgspec

from mmd.domain.errors import ExchangeMalformed, ExchangeRefused
from mmd.exchanges.derive.errors import NOT_THERE
from mmd.exchanges.derive.instruments import OPTION, PERP, Listed, Page
from mmd.exchanges.derive.messages import ListingParams
from mmd.exchanges.rows import Refused

KINDS = (PERP, OPTION)
READINGS_MAX = 3


class Paged(Protocol):
    """One page. `count`: rows of all pages."""

    @property
    def count(self) -> int: ...

    @property
    def pages(self) -> int: ...


P = TypeVar("P", bound=Paged)


async def read_pages(what: str, ask: Callable[[int], Awaitable[P]]) -> list[P]:
    """All pages, of one reading during which the number of rows stood still.

    ExchangeMalformed where it never does; raises what `ask` raises.
    """
    for _ in range(READINGS_MAX):
        first = await ask(1)
        found = [first]
        while len(found) < first.pages and found[-1].count == first.count:
            found.append(await ask(len(found) + 1))
        if found[-1].count == first.count:
            return found
    raise ExchangeMalformed(f"{what}: the number of rows changes with every page")


async def read_listing(
    ask: Callable[[ListingParams], Awaitable[Page]], kind: str, coin: str | msgspec.UnsetType = msgspec.UNSET
) -> tuple[dict[str, Listed], list[Refused]]:
    """What is listed of one type, of one coin or of all: by symbol, and what cannot be quoted. Raises as `read_pages`.

    `ask` puts one question of public/get_all_instruments.
    """

    async def page(number: int) -> Page:
        return await ask(ListingParams(kind, currency=coin, page=number))

    listed: dict[str, Listed] = {}
    refused: list[Refused] = []
    try:
        for part in await read_pages(f"public/get_all_instruments of type {kind}", page):
            listed |= part.listed
            refused += part.refused
    except ExchangeRefused as error:
        if error.code not in NOT_THERE:
            raise
    return listed, refused

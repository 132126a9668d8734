"""Lists that come page by page: read whole, and anew where their number of rows changed meanwhile, or rows are missing.

A row may have moved over the border of two pages then. Source: docs.derive.xyz; pages from 1, at most 1,000 rows.
"""

from collections.abc import Awaitable, Callable, Sequence
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


def _no_gap(parts: Sequence[Paged]) -> str:
    return ""


async def read_pages(
    what: str, ask: Callable[[int], Awaitable[P]], gap: Callable[[Sequence[P]], str] = _no_gap
) -> list[P]:
    """All pages, of one reading during which the number of rows stood still.

    `gap`: why these pages are not all of it; empty where they are. ExchangeMalformed where no reading is good; raises
    what `ask` raises.
    """
    why = ""
    for _ in range(READINGS_MAX):
        first = await ask(1)
        found = [first]
        while len(found) < first.pages and found[-1].count == first.count:
            found.append(await ask(len(found) + 1))
        why = gap(found) if found[-1].count == first.count else "the number of rows changes with every page"
        if not why:
            return found
    raise ExchangeMalformed(f"{what}: {why}")


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

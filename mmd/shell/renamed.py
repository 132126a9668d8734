"""After `service.name` was changed: orders under a former name are ours until it is proven that none is left."""

from collections.abc import Callable, Iterable, Mapping

import trio

from mmd.domain.errors import MmdError
from mmd.domain.ids import label_prefix
from mmd.exchanges.api import Exchange
from mmd.shell.diary import Diary

AGAIN_SECONDS = 5.0
Names = Mapping[str, Iterable[str]]
"""By exchange."""


def merged(*several: Names) -> dict[str, tuple[str, ...]]:
    """Each name once for its exchange."""
    exchanges = dict.fromkeys(name for one in several for name in one)
    return {name: tuple(dict.fromkeys(each for one in several for each in one.get(name, ()))) for name in exchanges}


async def lay_to_rest(
    former: Names, late: float, exchanges: Mapping[str, Exchange], diary: Diary, proven: Callable[[], None]
) -> None:
    """Ask each exchange until it lists no order under a former name; then `proven`, once, for all of them.

    Not before the `late` ones are there: what the process before sent last has arrived by then, or never will.
    """
    await trio.sleep(late)
    waiting = {name: tuple(label_prefix(each) for each in names) for name, names in former.items()}
    while waiting:
        for name, prefixes in list(waiting.items()):
            try:
                listed = await exchanges[name].open_orders()
            except MmdError:
                continue  # a link is down: it is asked again
            if any(order.label.startswith(prefixes) for orders in listed.values() for order in orders):
                continue
            del waiting[name]
            exchanges[name].also_ours(())
            diary.note("service.renamed", f"nothing rests under {' or '.join(former[name])} any more", exchange=name)
        if waiting:
            await trio.sleep(AGAIN_SECONDS)
    proven()

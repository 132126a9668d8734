"""Positions of symbols that are gone: counted by their exchanges, so that the totals weigh what is there.

Nobody hears of fills of a symbol that is not in service: orders that a dead process left may have filled,
and people close what was left.
"""

from collections.abc import Iterable, Mapping

import trio

from mmd.domain.errors import MmdError
from mmd.exchanges.api import Exchange
from mmd.shell.diary import Diary
from mmd.shell.totals import Treasury

AGAIN_SECONDS = 1.0  # after an exchange that did not answer


class Remnants:
    """`interval_seconds`: how often exchanges are asked, while there is something to ask about."""

    def __init__(
        self, treasury: Treasury, exchanges: Mapping[str, Exchange], diary: Diary, interval_seconds: float
    ) -> None:
        self.interval_seconds = interval_seconds
        self._treasury = treasury
        self._exchanges = exchanges
        self._diary = diary

    async def settle(self, exchanges: Iterable[str]) -> None:
        """Until each of these has told once what was left there."""
        waiting = list(exchanges)
        while waiting:
            waiting = [name for name in waiting if not await self._count(name)]
            if waiting:
                await trio.sleep(AGAIN_SECONDS)

    async def run(self) -> None:
        """Count again and again, for ever."""
        while True:
            await trio.sleep(self.interval_seconds)
            for name in self._exchanges:
                await self._count(name)

    async def _count(self, name: str) -> bool:
        """Ask one exchange. False where it did not answer: what was left counts as it was last known.

        False as well while an order still rests for which room is kept: what is counted now may become more.
        """
        exchange, shares = self._exchanges[name], self._treasury.machine.left_behind
        keys = {share.instrument.symbol: key for key, share in shares.items() if share.instrument.exchange == name}
        if not keys:
            return True
        charged = [symbol for symbol, key in keys.items() if shares[key].acked]
        try:
            resting = await exchange.open_orders() if charged else {}
            found = await exchange.positions(sorted(keys))
        except MmdError:
            return False
        before = {key: shares[key] for key in keys.values() if key in shares}
        for key in self._treasury.count_left({keys[symbol]: lots for symbol, lots in found.items()}):
            was = before[key].instrument
            text = f"{was.amount_text(found[was.symbol])} is what the exchange has of it now"
            self._diary.note("position.left", text, symbol=was.symbol, exchange=name)
        return not any(resting.get(symbol) for symbol in charged)

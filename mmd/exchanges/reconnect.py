"""One link kept alive: connect, serve, wait, again."""

from collections.abc import Callable
from typing import Protocol

import trio

from mmd.domain.errors import ExchangeAmbiguous, ExchangeMalformed, ExchangeRefused, LinkLost
from mmd.exchanges.api import Dial
from mmd.exchanges.connection import THROTTLED_SECONDS, Connection, Dialect, Duty, House, LoginRefused
from mmd.exchanges.link import open_link

CONNECT_SECONDS = 10.0
BACKOFF_FIRST_SECONDS = 0.5
BACKOFF_MAX_SECONDS = 10.0
STEADY_SECONDS = 10.0  # a connection that lasted this long was a good one


class LongDuty(Duty, Protocol):
    """A duty that outlives its connections. `connection`: the one that serves it now, as far as it has begun."""

    connection: Connection | None

    def down(self, why: str) -> None:
        """The connection is gone."""


class Reconnect:
    """Keeps one link. `refused` hears of every login that was refused."""

    def __init__(
        self,
        house: House,
        duty: LongDuty,
        dialect: Dialect,
        dial: Dial,
        host: str,
        path: str,
        refused: Callable[[LoginRefused], None],
    ) -> None:
        self._house = house
        self._duty = duty
        self._dialect = dialect
        self._dial, self._host, self._path = dial, host, path
        self._refused = refused
        self._refusal: LoginRefused | None = None  # of the last connection

    async def keep(self) -> None:
        """Connect, serve, wait, again, until cancelled."""
        house, duty = self._house, self._duty
        failures = 0
        while True:
            began = trio.current_time()
            why, wait_seconds = await self._connect_and_serve()
            refusal, self._refusal = self._refusal, None
            steady = trio.current_time() - began >= STEADY_SECONDS and duty.stats.up
            failures = 0 if steady else failures + 1
            duty.down(why)
            if refusal is not None:
                self._refused(refusal)
            delay = max(wait_seconds, self._backoff(failures))
            house.sink.report("link.lost", f"{house.name} {duty.name}: {why}; again in {delay:.1f} s")
            await house.sink.deliver()
            await trio.sleep(delay)

    async def _connect_and_serve(self) -> tuple[str, float]:
        """One connection from dial to end. Returns why it ended and the least time to wait."""
        why, wait_seconds = "", 0.0
        connection: Connection | None = None
        try:
            with trio.fail_after(CONNECT_SECONDS):
                stream, link = await open_link(self._dial, self._host, self._path)
        except LinkLost as error:
            return str(error), 0.0
        except trio.TooSlowError:
            return f"no connection within {CONNECT_SECONDS:g} s", 0.0
        try:
            connection = Connection(link, self._house, self._duty, self._dialect)
            await connection.run()
        except* LoginRefused as group:
            refusal = leaf(group)
            assert isinstance(refusal, LoginRefused)
            self._house.sink.report("login.refused", f"{self._house.name} {self._duty.name}: {refusal}")
            self._refusal = refusal
            why, wait_seconds = f"login refused: {refusal}", BACKOFF_MAX_SECONDS
        except* (LinkLost, ExchangeRefused, ExchangeAmbiguous, ExchangeMalformed) as group:
            why = why or str(leaf(group))
        finally:
            await trio.aclose_forcefully(stream)
        if connection is not None and connection.throttled:
            # With a draw as well: the sockets of an address may be what there was too much of.
            wait_seconds = max(wait_seconds, THROTTLED_SECONDS * self._house.rng.uniform(1.0, 2.0))
        return why, wait_seconds

    def _backoff(self, failures: int) -> float:
        """With a draw: whoever lost its link in the same moment does not come back in the same moment."""
        longest = min(BACKOFF_MAX_SECONDS, BACKOFF_FIRST_SECONDS * 2.0 ** min(failures, 10))
        return max(BACKOFF_FIRST_SECONDS, longest * self._house.rng.uniform(0.5, 1.0))


def leaf(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first error inside nested groups."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error

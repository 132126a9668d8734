"""Subscriptions: many channels in as few requests as go, and what of them was not granted."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

import msgspec

from mmd.domain.errors import ExchangeRefused
from mmd.exchanges.connection import Connection

MAX_CHANNELS = 500
# Deribit refuses frames above 32 kB; the envelope takes a little.
MAX_REQUEST_BYTES = 32_000


class Subscriptions(Protocol):
    """How channels are asked for on one link."""

    def request(self, names: list[str], *, on: bool) -> tuple[str, object]:
        """Method and params that begin or end these subscriptions."""

    def granted(self, raw: msgspec.Raw) -> set[str]:
        """What is subscribed, out of the answer. Raises ExchangeMalformed."""

    def culprits(self, error: ExchangeRefused, names: list[str]) -> list[str]:
        """Those of the names without which the request might not have been refused; empty: it is not about names."""


def chunks(names: Iterable[str]) -> Iterator[list[str]]:
    """Split for one request each: at most 500 channels and 32 kB."""
    chunk: list[str] = []
    size = 200
    for channel in names:
        cost = len(channel.encode()) + 3
        if chunk and (len(chunk) >= MAX_CHANNELS or size + cost > MAX_REQUEST_BYTES):
            yield chunk
            chunk, size = [], 200
        chunk.append(channel)
        size += cost
    if chunk:
        yield chunk


async def subscribe(connection: Connection, calls: Subscriptions, names: Sequence[str]) -> list[str]:
    """Returns the channels that were not granted: unknown and forbidden ones are left out without an error.

    Raises as `Connection.call` does.
    """
    missing: list[str] = []
    for chunk in chunks(names):
        try:
            raw = await connection.call(*calls.request(chunk, on=True))
        except ExchangeRefused as error:
            culprits = calls.culprits(error, chunk)
            if not culprits:
                raise
            missing += culprits
            missing += await subscribe(connection, calls, [name for name in chunk if name not in culprits])
        else:
            granted = calls.granted(raw)
            missing += [name for name in chunk if name not in granted]
    return missing


async def unsubscribe(connection: Connection, calls: Subscriptions, names: Iterable[str]) -> None:
    """Raises as `Connection.call` does."""
    for chunk in chunks(names):
        await connection.call(*calls.request(chunk, on=False))

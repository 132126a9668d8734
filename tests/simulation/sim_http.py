"""HTTP over the simulated wire: the real client, whose connections are made there."""

from collections.abc import Iterable
from typing import Any

import httpcore
import httpx
import trio
from httpcore._backends.trio import TrioStream
from sim_wire import End

from mmd.exchanges.api import Dial


class WireStream(TrioStream):
    def get_extra_info(self, info: str) -> Any:
        """Asked of a connection that waited in the pool: it has something to say only if it has ended."""
        return self._stream.stirs if info == "is_readable" and isinstance(self._stream, End) else None


class WireBackend(httpcore.AsyncNetworkBackend):
    """Where the client's connections come from. `dial` raises OSError."""

    def __init__(self, dial: Dial) -> None:
        self._dial = dial

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        try:
            return WireStream(await self._dial())
        except OSError as error:
            raise httpcore.ConnectError(str(error)) from error

    async def sleep(self, seconds: float) -> None:
        await trio.sleep(seconds)


class WireTransport(httpx.AsyncHTTPTransport):
    """In place of the one with sockets."""

    def __init__(self, dial: Dial) -> None:
        super().__init__(verify=False)  # no TLS here, and reading certificates takes its time
        self._pool = httpcore.AsyncConnectionPool(network_backend=WireBackend(dial))

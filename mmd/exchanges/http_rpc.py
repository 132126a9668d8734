"""JSON-RPC over HTTP: one POST for each call, for those who must not hold a connection that is logged in.

Knows no exchange. Nothing is repeated here, redirects are not followed (they would carry a signature
elsewhere), proxies of the environment are not used, and an answer is read up to a limit.
"""

import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import httpx
import msgspec
import trio

import mmd
from mmd.domain.errors import ExchangeAmbiguous, ExchangeMalformed, ExchangeRefused, LinkLost
from mmd.exchanges.jsonrpc import Head, Request, decode_head

ANSWER_SECONDS = 10.0
ANSWER_BYTES_MAX = 64 * 1024 * 1024
TOLD_CHARACTERS = 120
HEADERS = {
    "user-agent": f"mmd/{mmd.__version__}",
    "content-type": "application/json",
    "accept": "application/json",
    "accept-encoding": "identity",  # what is small on the wire may be anything once it is unpacked
}
NO_PARAMS: Mapping[str, object] = {}
NO_HEADERS: Mapping[str, str] = {}

# Before a byte of the request has left.
_NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.UnsupportedProtocol)

Encode = Callable[[Request], bytes]
"""A call to the body of its POST; exchanges differ in that."""


class HttpRpc:
    """Calls to one server. `base`: what the method's name is appended to, as in https://host/api/v2."""

    def __init__(
        self, client: httpx.AsyncClient, base: str, encode: Encode, answer_seconds: float = ANSWER_SECONDS
    ) -> None:
        self.base = base
        self._client = client
        self._encode = encode
        self._answer_seconds = answer_seconds
        self._calls = 0

    async def call(
        self, method: str, params: object = NO_PARAMS, headers: Mapping[str, str] = NO_HEADERS
    ) -> msgspec.Raw:
        """Send, and wait for the result.

        Raises LinkLost where the server cannot be reached, so that nothing was carried out; ExchangeAmbiguous
        where it was sent and no whole answer came in time; ExchangeRefused with the error's code, or else the
        HTTP status (400 to 499); ExchangeMalformed. None of them shows params or headers.
        """
        self._calls += 1
        body = self._encode(Request(self._calls, method, params))
        try:
            with trio.fail_after(self._answer_seconds):
                status, answer = await self._post(method, body, headers)
        except trio.TooSlowError:
            raise ExchangeAmbiguous(f"{method}: no answer within {self._answer_seconds:g} s") from None
        except _NOT_SENT as error:
            raise LinkLost(f"{self.base}: {_text(error)}") from None
        except httpx.LocalProtocolError:
            raise LinkLost(f"{self.base}: a header that cannot be sent") from None  # its text would quote it
        except (httpx.TransportError, OSError) as error:
            raise ExchangeAmbiguous(f"{method}: {_text(error)}") from None
        return _result(method, status, answer)

    async def _post(self, method: str, body: bytes, headers: Mapping[str, str]) -> tuple[int, bytes]:
        """Status and body."""
        request = self._client.stream("POST", f"{self.base}/{method}", content=body, headers={**HEADERS, **headers})
        async with request as response:
            encoding = response.headers.get("content-encoding", "identity")
            if encoding != "identity":
                raise ExchangeMalformed(f"{method}: packed as {encoding[:20]!r}, which was not asked for")
            answer = bytearray()
            with trio.CancelScope() as reading:  # cancelled where it waits, the library closes all that it opened
                async for piece in response.aiter_bytes():
                    answer += piece
                    if len(answer) > ANSWER_BYTES_MAX:
                        reading.cancel()
            if len(answer) > ANSWER_BYTES_MAX:
                raise ExchangeMalformed(f"{method}: an answer of more than {ANSWER_BYTES_MAX} bytes")
        return response.status_code, bytes(answer)


@asynccontextmanager
async def open_rpc(
    base: str,
    encode: Encode,
    *,
    transport: httpx.AsyncBaseTransport | None = None,
    answer_seconds: float = ANSWER_SECONDS,
) -> AsyncIterator[HttpRpc]:
    """A client of its own, closed at the end. `transport` replaces sockets."""
    if transport is None:
        # In a thread: reading the certificates of the system takes 20 ms.
        tls = await trio.to_thread.run_sync(ssl.create_default_context)
        transport = httpx.AsyncHTTPTransport(verify=tls, trust_env=False)
    async with httpx.AsyncClient(transport=transport, trust_env=False, follow_redirects=False, timeout=None) as client:
        yield HttpRpc(client, base, encode, answer_seconds)


def http_base(websocket_url: str) -> str:
    """The HTTP address beside a WebSocket address.

    wss://HOST/ws/api/v2 -> https://HOST/api/v2, wss://HOST/v3/ws -> https://HOST/v3: the part `ws` is left out.
    """
    parts = urlsplit(websocket_url)
    scheme = "https" if parts.scheme == "wss" else "http"
    path = "/".join(part for part in parts.path.split("/") if part not in ("", "ws"))
    return f"{scheme}://{parts.netloc}/{path}".rstrip("/")


def _result(method: str, status: int, body: bytes) -> msgspec.Raw:
    head: Head | None = None
    wrong: ExchangeMalformed | None = None
    try:
        head = decode_head(body)
    except ExchangeMalformed as error:
        wrong = error
    if head is not None and head.error is not None:
        raise ExchangeRefused(head.error.code, f"{method}: {head.error.text}")
    if 400 <= status < 500:
        raise ExchangeRefused(status, f"{method}: HTTP status {status}{_beginning(body)}")
    if status >= 500:
        raise ExchangeAmbiguous(f"{method}: HTTP status {status}{_beginning(body)}")
    if not 200 <= status < 300:
        raise ExchangeMalformed(f"{method}: HTTP status {status}")
    if head is None or not bytes(head.result):
        raise ExchangeMalformed(f"{method}: {wrong or 'neither a result nor an error'}")
    return head.result


def _beginning(body: bytes) -> str:
    """The first words of an answer for people."""
    text = " ".join(body[: 4 * TOLD_CHARACTERS].decode(errors="replace").split())[:TOLD_CHARACTERS]
    return f": {text}" if text else ""


def _text(error: BaseException) -> str:
    """What it says; the library's own say nothing of a TLS handshake, whose words are further down."""
    told: BaseException | None = error
    while told is not None:
        if text := str(told):
            return text
        told = told.__cause__ or told.__context__
    return type(error).__name__

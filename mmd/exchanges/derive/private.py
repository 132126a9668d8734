"""Private calls over HTTP, for those who must not log in to a socket: its close would cancel the whole wallet.

Source: docs.derive.xyz, "Session login" and "Cancel on disconnect".
"""

from collections.abc import Callable

import msgspec

from mmd.domain.addresses import checksum, parse_address
from mmd.domain.errors import ExchangeAmbiguous, ExchangeMalformed, ExchangeRefused
from mmd.exchanges.derive.codec import encode_request
from mmd.exchanges.derive.keys import Identity
from mmd.exchanges.derive.signing import login_headers, login_params
from mmd.exchanges.http_rpc import HttpRpc
from mmd.exchanges.jsonrpc import Request
from mmd.exchanges.preflight import HIDDEN


def encode_params(request: Request) -> bytes:
    """The body of a POST: the params alone, the method is in the path."""
    return encode_request(request.params)


class PrivateRpc:
    """Each call has the login's three headers, signed anew. `now_ms`: the exchange's clock."""

    def __init__(self, rpc: HttpRpc, identity: Identity, now_ms: Callable[[], int]) -> None:
        self.wallet = checksum(parse_address(identity.wallet))
        self._rpc = rpc
        self._key = identity.key
        self._now_ms = now_ms

    async def call(self, method: str, params: object) -> msgspec.Raw:
        """Raises as `HttpRpc.call`; what an exchange repeats of our signature, as good as a password, is not shown."""
        login = login_params(self._key, self.wallet, self._now_ms())
        try:
            return await self._rpc.call(method, params, login_headers(login))
        except ExchangeRefused as error:
            raise ExchangeRefused(error.code, error.message.replace(login.signature, HIDDEN)) from None
        except (ExchangeMalformed, ExchangeAmbiguous) as error:
            raise type(error)(str(error).replace(login.signature, HIDDEN)) from None

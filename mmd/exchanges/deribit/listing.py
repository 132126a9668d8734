"""What Deribit lists, asked over plain HTTP and without an account: for dry runs before any key exists."""

import httpx
import msgspec

from mmd.domain.errors import ExchangeMalformed, ExchangeRefused, LinkLost
from mmd.domain.instruments import Instrument
from mmd.exchanges.deribit.codec import read_index
from mmd.exchanges.deribit.instruments import decode_instruments
from mmd.exchanges.http_rpc import http_base

TIMEOUT_SECONDS = 20.0


class _Answer(msgspec.Struct):
    result: msgspec.Raw = msgspec.Raw()
    error: dict[str, msgspec.Raw] | None = None


def list_public(exchange: str, websocket_url: str) -> tuple[dict[str, Instrument], dict[str, float]]:
    """Instruments by symbol, and the index in USD of each coin that has inverse instruments.

    Raises LinkLost where it cannot be reached, ExchangeRefused or ExchangeMalformed for its answer.
    """
    with httpx.Client(base_url=http_base(websocket_url), timeout=TIMEOUT_SECONDS) as client:
        raw = _ask(client, "public/get_instruments", {"currency": "any"})
        instruments, _ = decode_instruments(raw, exchange)
        prices: dict[str, float] = {}
        for base, index in sorted({(i.base, i.index) for i in instruments.values() if i.index.endswith("_usd")}):
            prices[base] = read_index(_ask(client, "public/get_index_price", {"index_name": index}))
    return instruments, prices


def _ask(client: httpx.Client, method: str, params: dict[str, str]) -> msgspec.Raw:
    try:
        response = client.get(f"/{method}", params=params)
    except httpx.HTTPError as error:
        raise LinkLost(f"{client.base_url}: {error}") from error
    try:
        answer = msgspec.json.decode(response.content, type=_Answer)
    except msgspec.DecodeError as error:
        raise ExchangeMalformed(f"{method}: HTTP {response.status_code}, {error}") from error
    if answer.error is not None:
        raise ExchangeRefused(response.status_code, f"{method}: {msgspec.json.encode(answer.error).decode()}")
    return answer.result

"""JSON-RPC framing that every dialect shares: one call in, and an error on its way out.

Numbers never pass through float: parameters are kept raw until a method says what it wants of them.
"""

import msgspec

MAX_REQUEST_BYTES = 32 * 1024


class RpcError(Exception):
    """An answer that is an error."""

    def __init__(self, code: int, message: str, data: object = None) -> None:
        super().__init__(f"{message} ({code})")
        self.code = code
        self.message = message
        self.data = data

    def body(self) -> dict[str, object]:
        """What stands under `error` in the answer; without `data` where there is none."""
        body: dict[str, object] = {"message": self.message, "code": self.code}
        return body if self.data is None else body | {"data": self.data}


class Request(msgspec.Struct):
    """One call. `id` None: none was given."""

    method: str = ""
    params: dict[str, msgspec.Raw] = {}
    id: int | str | float | None = None
    jsonrpc: str = "2.0"


class _OnlyId(msgspec.Struct):
    id: int | str | None = None


_decode = msgspec.json.Decoder(Request).decode
_decode_id = msgspec.json.Decoder(_OnlyId).decode


class Malformed(Exception):
    """A body that is no request; `error` is the answer, `request_id` what could be read of the id."""

    def __init__(self, error: RpcError, request_id: int | str | None) -> None:
        super().__init__(str(error))
        self.error = error
        self.request_id = request_id


def decode_request(body: bytes | str, method: str = "") -> Request:
    """Parse one JSON-RPC call; `method` where the body names none. Raises Malformed."""
    size = len(body) if isinstance(body, bytes) else len(body.encode())
    if size > MAX_REQUEST_BYTES:
        raise Malformed(RpcError(-32600, "request entity too large"), None)
    try:
        request = _decode(body)
    except msgspec.ValidationError as error:
        try:
            request_id = _decode_id(body).id
        except msgspec.ValidationError:
            request_id = None
        raise Malformed(RpcError(-32600, "Invalid Request", {"reason": str(error)}), request_id) from None
    except msgspec.DecodeError:
        raise Malformed(RpcError(-32700, "Parse error"), None) from None
    request.method = request.method or method
    if not request.method:
        request_id = request.id if not isinstance(request.id, float) else None
        raise Malformed(
            RpcError(-32600, "Invalid Request", {"param": "method", "reason": "value required"}), request_id
        )
    return request

"""Deribit's JSON-RPC: framing, login, scopes, rate limits, the method; over WebSocket and HTTP."""

from collections.abc import Callable
from urllib.parse import parse_qsl, unquote, urlsplit

import msgspec

from mmd.sandbox.answering import Answering, Deferred, HttpCall, http_error
from mmd.sandbox.deribit import account_methods, market_methods, session_methods, trading_methods
from mmd.sandbox.deribit.auth import Grant
from mmd.sandbox.deribit.context import Call, Context, Method, websocket_only
from mmd.sandbox.deribit.link import Link
from mmd.sandbox.deribit.rpc import HEARTBEAT, TEST_REQUEST, Params, answer, refusal, unauthorized
from mmd.sandbox.faults import Faults
from mmd.sandbox.orders import OrderState, Refused
from mmd.sandbox.rpc import Malformed, Request, RpcError, decode_request

METHODS: dict[str, Method] = {
    **session_methods.METHODS,
    **market_methods.METHODS,
    **trading_methods.METHODS,
    **account_methods.METHODS,
}

HTTP_BASE = "/api/v2"
HTTP_STATUS = {10000: 401, 13004: 401, 13009: 401, 13021: 403, 10028: 429, 11051: 503}
"""How an error is told to HTTP clients; all others are 400."""


class Asked(msgspec.Struct):
    """A call that was read. `grant`: who the transport says is calling; else the link's own login or a token."""

    request: Request
    params: Params
    us_in: int
    grant: Grant | None

    @property
    def method(self) -> str:
        return self.request.method


class Dialect(Answering[Link, Asked]):
    """`publish` hands what the engine reports to the subscribers."""

    websocket_paths = ("/ws/api/v2", "/den/ws")
    idle_seconds = 600.0

    def __init__(self, context: Context, faults: Faults, publish: Callable[[], None]) -> None:
        super().__init__(faults, publish, context.wall_us)
        self.context = context

    def link(
        self,
        number: int,
        *,
        websocket: bool,
        wake: Callable[[], None] = lambda: None,
        beat: Callable[[], None] = lambda: None,
    ) -> Link:
        return Link(number, websocket=websocket, wake=wake, beat=beat)

    # --- one call ------------------------------------------------------------------------------

    def handle(self, link: Link, body: bytes | str, grant: Grant | None = None, method: str = "") -> Deferred | None:
        """Run one JSON-RPC call. `method`: what is called where the body does not say."""
        us_in = self.wall_us()
        try:
            request = decode_request(body, method)
        except Malformed as error:
            http_error(link, 400, answer(error.request_id, None, us_in, self.wall_us(), error.error))
            return None
        if link.websocket and request.id is None:
            error_ = RpcError(-32600, "Invalid Request", {"param": "id", "reason": "value required"})
            link.push(answer(None, None, us_in, self.wall_us(), error_))
            return None
        return self.run(link, request, Params(request.params), us_in, grant)

    def run(
        self, link: Link, request: Request, params: Params, us_in: int, grant: Grant | None = None
    ) -> Deferred | None:
        """The same for a call that is parsed already (a query string)."""
        return self.carry(link, Asked(request, params, us_in, grant))

    def http(self, link: Link, call: HttpCall) -> Deferred | None:
        parts = urlsplit(call.target)
        path = unquote(parts.path).rstrip("/")
        us_in = self.wall_us()
        if path != HTTP_BASE and not path.startswith(HTTP_BASE + "/"):
            http_error(link, 404, _unasked(RpcError(-32601, "Method not found")))
            return None
        method = path[len(HTTP_BASE) + 1 :]
        grant: Grant | None = None
        header = call.headers.get("authorization")
        if header is not None:
            registry, now_ms = self.context.registry, self.context.now_ms
            try:
                grant = registry.from_header(header, call.verb, call.target, call.body, now_ms)
            except RpcError as error:
                refused = answer(None, None, us_in, self.wall_us(), error)
                http_error(link, HTTP_STATUS.get(error.code, 400), refused)
                return None
        if call.verb == "GET":
            values = dict(parse_qsl(parts.query, keep_blank_values=True))
            return self.run(link, Request(method=method), Params(values), us_in, grant)
        if call.verb == "POST":
            return self.handle(link, call.body, grant, method)
        http_error(link, 405, _unasked(RpcError(-32600, "Invalid Request", {"reason": "GET or POST"})))
        return None

    def no_request(self, status: int, reason: str) -> bytes:
        if status == 413:
            return _unasked(RpcError(-32600, reason))
        return _unasked(RpcError(11050, "bad_request", {"reason": reason}))

    def payload(self, asked: Asked, result: object, error: RpcError | None) -> bytes:
        return answer(asked.request.id, result, asked.us_in, self.wall_us(), error)

    def refusal(self, error: Refused) -> RpcError:
        return refusal(error)

    def failed(self, link: Link, asked: Asked, error: RpcError) -> None:
        link.http_status = HTTP_STATUS.get(error.code, 400)
        if error.code == 10028 and self.context.budgets.closes:
            link.close("too_many_requests")

    def fill_meant(self, link: Link, asked: Asked, steps: int | None) -> None:
        """By id, label or instrument; all of the account's where the request names none."""
        caller, params = asked.grant or self._grant(link, asked.params), asked.params
        if caller is None:
            return
        engine, now_ms = self.context.engine, self.context.now_ms
        for order in list(self.context.floor.account(caller.account, now_ms).open_orders.values()):
            named = (
                ("order_id", order.order_id), ("label", order.label), ("instrument_name", order.instrument_name),
            )  # fmt: skip
            if order.state is OrderState.OPEN and all(params.text(key, mine) == mine for key, mine in named):
                engine.hit_some(order, steps, now_ms)

    def call(self, link: Link, asked: Asked) -> object:
        method = METHODS.get(asked.method)
        if method is None:
            raise RpcError(-32601, "Method not found")
        if self.faults.maintenance:
            raise RpcError(11051, "system_maintenance")
        caller = asked.grant or self._grant(link, asked.params)
        owner = caller.account if caller is not None else link.owner
        if not self.context.limiter.allow(owner, method.budget, self.wall_us() / 1e6):
            raise RpcError(10028, "too_many_requests")
        if method.websocket and not link.websocket:
            raise websocket_only()
        if method.scope is not None:
            self._check_scope(method.scope, caller)
        return method.run(self.context, Call(link, asked.params, caller))

    def _grant(self, link: Link, params: Params) -> Grant | None:
        now_ms = self.context.now_ms
        if "access_token" in params:
            return self.context.registry.by_token(
                params.text("access_token"), link.number if link.websocket else None, now_ms
            )
        if link.grant is not None and not self.context.registry.is_live(link.grant, now_ms):
            link.grant = None
        return link.grant

    def _check_scope(self, scope: tuple[str, str], caller: Grant | None) -> None:
        group, level = scope
        if caller is None:
            raise unauthorized()
        if group and not caller.allows(group, level):
            raise RpcError(13021, "forbidden", {"reason": f"{group}:{level} scope required"})
        self.context.floor.account(caller.account, self.context.now_ms)

    # --- the life of a link --------------------------------------------------------------------

    def beat(self, link: Link) -> None:
        """Ask for a sign of life; who owes one from the last time is closed."""
        if link.test_pending:
            link.close("heartbeat")
        link.test_pending = True
        link.push(HEARTBEAT)
        link.push(TEST_REQUEST)

    def closed(self, link: Link) -> None:
        """A connection is gone: its subscriptions, tokens and, where armed, its orders go too. Once."""
        if link.ended:
            return
        link.ended = True
        self.context.publisher.unsubscribe_all(link)
        self.context.registry.link_closed(link.number)
        self.context.limiter.forget(f"#{link.number}")
        if link.cancel_on_disconnect and not link.logged_out:
            self.context.engine.cancel_link(link.number, self.context.now_ms)
            self.publish()


def _unasked(error: RpcError) -> bytes:
    """An answer to what is no call."""
    return answer(None, None, 0, 0, error)

"""Derive's JSON-RPC: framing, login, budgets, the method; over WebSocket and HTTP on one port."""

from collections.abc import Callable
from urllib.parse import unquote, urlsplit

import msgspec

from mmd.sandbox.answering import Answering, Deferred, HttpCall, http_error
from mmd.sandbox.derive import account_methods, order_methods, public_methods, query_methods
from mmd.sandbox.derive.budgets import MATCHING
from mmd.sandbox.derive.context import Call, Context, Method
from mmd.sandbox.derive.link import Link
from mmd.sandbox.derive.options import Told
from mmd.sandbox.derive.rpc import PONG, REFUSALS, answer, invalid_params
from mmd.sandbox.derive.universe import kind_of
from mmd.sandbox.derive.wallets import Caller, Wallet
from mmd.sandbox.faults import Faults
from mmd.sandbox.orders import CancelReason, Order, OrderState, Refused
from mmd.sandbox.rpc import Malformed, Request, RpcError, decode_request

METHODS: dict[str, Method] = {
    **public_methods.METHODS,
    **account_methods.METHODS,
    **order_methods.METHODS,
    **query_methods.METHODS,
}
HTTP_BASE = "/v3"
PING = "ping"
LIFE_SECONDS = 180.0
PING_SECONDS = 60.0
HTTP_STATUS = {401: 401, 403: 403, 14000: 401, 14014: 401, 14026: 401, 14030: 401, -32000: 429, -32603: 500}
"""How an error is told to HTTP clients; all others are 400 (assumed)."""
HEADERS = ("x-derivewallet", "x-derivetimestamp", "x-derivesignature")
SPEAKS_IN_MAINTENANCE = "public/get_live_incidents"


class Asked(msgspec.Struct):
    """A call that was read. `caller`: who the headers of an HTTP request say is calling."""

    request: Request
    us_in: int
    caller: Caller | None

    @property
    def method(self) -> str:
        return self.request.method


class Dialect(Answering[Link, Asked]):
    """`publish` hands what the engine reports to the subscribers."""

    websocket_paths = ("/v3/ws", "/ws")
    idle_seconds = LIFE_SECONDS
    writing_is_life = False
    ping_seconds = PING_SECONDS

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

    def handle(self, link: Link, body: bytes | str) -> Deferred | None:
        """A call, or the bare text `ping`, which costs nothing."""
        if body == PING:
            link.push(PONG)
            return None
        try:
            request = decode_request(body)
        except Malformed as error:
            link.push(answer(error.request_id, None, error.error))
            return None
        if request.id is None:
            link.push(answer(None, None, RpcError(-32600, "Invalid Request", "id: value required")))
            return None
        return self.carry(link, Asked(request, self.wall_us(), None))

    def http(self, link: Link, call: HttpCall) -> Deferred | None:
        """POST {base}/{method} with the parameters as its body; the headers say who calls, each time anew."""
        path = unquote(urlsplit(call.target).path).rstrip("/")
        method = path.removeprefix(HTTP_BASE + "/")
        request_id = self.context.http_ids.request()
        if "user-agent" not in call.headers:
            http_error(link, 403, answer(request_id, None, RpcError(403, "Forbidden", "no User-Agent")))
            return None
        if method == path:
            http_error(link, 404, answer(request_id, None, RpcError(-32601, "Method not found")))
            return None
        if call.verb != "POST":
            http_error(link, 405, answer(request_id, None, RpcError(-32600, "Invalid Request", "POST only")))
            return None
        try:
            caller = self._by_headers(call.headers)
            request = decode_request(b'{"params":%b}' % (call.body.strip() or b"{}"), method)
        except (Malformed, RpcError) as raised:
            error = raised.error if isinstance(raised, Malformed) else raised
            http_error(link, HTTP_STATUS.get(error.code, 400), answer(request_id, None, error))
            return None
        request.id = request_id
        return self.carry(link, Asked(request, self.wall_us(), caller))

    def _by_headers(self, headers: dict[str, str]) -> Caller | None:
        """Who signed; None without any of the headers. RpcError: 14021 where one is missing."""
        wallet, timestamp, signature = (headers.get(name, "") for name in HEADERS)
        if not wallet and not timestamp and not signature:
            return None
        if not wallet or not timestamp or not signature:
            raise RpcError(14021, "Header missing", ", ".join(HEADERS))
        return self.context.wallets.log_in(wallet, timestamp, signature, self.context.now_ms)

    def no_request(self, status: int, reason: str) -> bytes:
        return answer(None, None, RpcError(-32600, "Invalid Request", reason))

    def payload(self, asked: Asked, result: object, error: RpcError | None) -> bytes:
        return answer(asked.request.id, result, error)

    def refusal(self, error: Refused) -> RpcError:
        return RpcError(*REFUSALS[error.why])

    def failed(self, link: Link, asked: Asked, error: RpcError) -> None:
        link.http_status = HTTP_STATUS.get(error.code, 400)

    def news_first(self, asked: Asked) -> bool:
        """After a replace as the options or a lever have it."""
        told = self.context.trouble.replaced_told
        if asked.method != "private/replace" or self.faults.notifications_first:
            return self.faults.notifications_first
        if told is Told.SEED:
            return self.context.trouble.chance.random() < 0.5
        return told is Told.BEFORE

    def fill_meant(self, link: Link, asked: Asked, steps: int | None) -> None:
        """By id, nonce, label or instrument, as far as the request names them."""
        caller = asked.caller or link.caller
        if caller is None:
            return
        wanted = {key: msgspec.json.decode(value) for key, value in asked.request.params.items()}
        if asked.method == "private/replace":  # whose other fields are those of the order that it makes
            wanted = {"subaccount_id": wanted.get("subaccount_id"), "order_id": wanted.get("order_id_to_cancel")}
        now_ms, engine = self.context.now_ms, self.context.engine
        name = str(wanted.get("subaccount_id"))
        if name not in caller.wallet.accounts:
            return
        for order in list(self.context.floor.account(name, now_ms).open_orders.values()):
            mine = {
                "order_id": order.order_id,
                "nonce": self.context.tickets.of(order).nonce,
                "label": order.label,
                "instrument_name": order.instrument_name,
            }
            meant = all(wanted.get(key) in (None, value) for key, value in mine.items())
            if order.state is OrderState.OPEN and meant:
                engine.hit_some(order, steps, now_ms)

    def call(self, link: Link, asked: Asked) -> object:
        method = METHODS.get(asked.method)
        if method is None or (method.websocket and not link.websocket):
            raise RpcError(-32601, "Method not found")
        if self.faults.maintenance and asked.method != SPEAKS_IN_MAINTENANCE:
            raise RpcError(-32603, "Internal error")
        try:
            params = msgspec.json.decode(msgspec.json.encode(asked.request.params), type=method.params)
        except msgspec.ValidationError as error:
            raise invalid_params(str(error)) from None
        call = Call(link, asked.caller or link.caller)
        self._charge(call, method, params)
        if method.private:
            self._check_caller(call, method)
        return method.run(self.context, call, params)

    def _charge(self, call: Call, method: Method, params: msgspec.Struct) -> None:
        """Tier 1 by class and wallet, tier 2 by instrument."""
        budgets, now_ms = self.context.budgets, self.context.now_ms
        kind = method.budget if isinstance(method.budget, str) else method.budget(params)
        owner = call.caller.wallet.address if call.caller is not None else ""
        budgets.charge(owner, kind, now_ms)
        name = getattr(params, "instrument_name", None)
        listing = self.context.floor.listings.get(name or "")
        if kind == MATCHING and listing is not None:
            rates = budgets.rates
            per_second = rates.option if kind_of(listing.instrument) == "option" else rates.perp
            budgets.charge_instrument(owner, listing.instrument.instrument_name, per_second, now_ms)

    def _check_caller(self, call: Call, method: Method) -> None:
        if call.caller is None:
            raise RpcError(401, "Unauthorized", "log in first")
        call.caller.check_live(self.context.now_ms)
        if method.scope:
            call.caller.check_scope(method.scope)

    # --- the life of a link --------------------------------------------------------------------

    def beat(self, link: Link) -> None:
        """No heartbeat of messages: WebSocket Pings only."""

    def closed(self, link: Link) -> None:
        """A connection is gone. If it was logged in and its wallet wants it, so are all the wallet's orders."""
        if link.ended:
            return
        link.ended = True
        self.context.publisher.unsubscribe_all(link)
        if link.caller is not None:
            self.disconnected(link.caller.wallet)

    def disconnected(self, wallet: Wallet) -> int:
        """A logged-in connection of this wallet is gone; how many orders that cancelled."""
        if not wallet.cancel_on_disconnect:
            return 0
        return self.cancel_wallet(wallet, CancelReason.CANCEL_ON_DISCONNECT)

    def cancel_wallet(
        self, wallet: Wallet, reason: CancelReason, chosen: Callable[[Order], bool] = lambda order: True
    ) -> int:
        """Cancel all open orders of all subaccounts of a wallet, and tell; how many there were."""
        engine, now_ms = self.context.engine, self.context.now_ms
        count = sum(len(engine.cancel_where(account, chosen, now_ms, reason)) for account in wallet.accounts)
        self.publish()
        return count

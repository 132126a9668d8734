"""One call from bytes to answer: framing, faults, login, scopes, rate limits, the method, the notifications.

No waiting here: what must come later is returned as `Deferred` and finished by the transport.
"""

from collections.abc import Callable

import msgspec

from mmd.sandbox.deribit import account_methods, market_methods, session_methods, trading_methods
from mmd.sandbox.deribit.auth import Grant
from mmd.sandbox.deribit.context import Call, Context, Later, Method, NoAnswer, websocket_only
from mmd.sandbox.deribit.link import Link
from mmd.sandbox.deribit.rpc import (
    Malformed,
    Params,
    Request,
    RpcError,
    answer,
    decode_request,
    refusal,
    unauthorized,
)
from mmd.sandbox.faults import NO_FAULT, AnswerFault, ArmedAnswer, Faults
from mmd.sandbox.orders import OrderState, Refused

METHODS: dict[str, Method] = {
    **session_methods.METHODS,
    **market_methods.METHODS,
    **trading_methods.METHODS,
    **account_methods.METHODS,
}


HTTP_STATUS = {10000: 401, 13004: 401, 13009: 401, 13021: 403, 10028: 429, 11051: 503}
"""How an error is told to HTTP clients; all others are 400."""


class Deferred(msgspec.Struct, frozen=True):
    """Call `finish` after this many seconds; it pushes the answer to the link, or defers again."""

    seconds: float
    finish: Callable[[], "Deferred | None"]


class Dialect:
    """`publish` hands what the engine reports to the subscribers."""

    def __init__(self, context: Context, faults: Faults, publish: Callable[[], None]) -> None:
        self.context = context
        self.faults = faults
        self.publish = publish

    # --- one call ------------------------------------------------------------------------------

    def handle(self, link: Link, body: bytes | str, grant: Grant | None = None, method: str = "") -> Deferred | None:
        """Run one JSON-RPC call. The answer is pushed to `link`, now or by the Deferred.

        `grant`: who the transport says is calling (an HTTP header); else the link's own login or a token.
        `method`: what is called where the body does not say.
        """
        us_in = self.context.wall_us()
        try:
            request = decode_request(body, method)
        except Malformed as error:
            link.http_status = 400
            link.push(answer(error.request_id, None, us_in, self.context.wall_us(), error.error))
            return None
        if link.websocket and request.id is None:
            error_ = RpcError(-32600, "Invalid Request", {"param": "id", "reason": "value required"})
            link.push(answer(None, None, us_in, self.context.wall_us(), error_))
            return None
        return self.run(link, request, Params(request.params), us_in, grant)

    def run(
        self, link: Link, request: Request, params: Params, us_in: int, grant: Grant | None = None
    ) -> Deferred | None:
        """The same for a call that is parsed already (a query string)."""
        fault = self.faults.next_answer(request.method)
        if fault.fault is AnswerFault.LOSE_REQUEST:
            return None
        if fault.fault is AnswerFault.DELAY_REQUEST:

            def arrive() -> Deferred | None:
                return self._carry_out(link, request, params, self.context.wall_us(), grant, NO_FAULT)

            return Deferred(fault.delay_ms / 1000, arrive)
        return self._carry_out(link, request, params, us_in, grant, fault)

    def _carry_out(
        self, link: Link, request: Request, params: Params, us_in: int, grant: Grant | None, fault: ArmedAnswer
    ) -> Deferred | None:
        error: RpcError | None = None
        result: object = None
        place = link.place()  # what the method itself pushes (snapshots) follows its answer
        try:
            if fault.fault is AnswerFault.REFUSE:
                raise RpcError(fault.code, fault.message)
            if fault.fault is AnswerFault.RACE:
                self._fill_meant(link, params, grant)
                if fault.code and request.method == "private/cancel":
                    raise RpcError(fault.code, fault.message)
            result = self._call(link, request, params, grant)
        except RpcError as raised:
            error = raised
        except Refused as raised:
            error = refusal(raised)
        if isinstance(result, NoAnswer):
            self.publish()
            return None
        if isinstance(result, Later):
            self.publish()
            return self._defer_result(link, request, result, us_in, fault)

        payload = answer(request.id, result, us_in, self.context.wall_us(), error)
        if error is not None:
            link.http_status = HTTP_STATUS.get(error.code, 400)
        deferred = self._deliver(link, payload, place, fault)
        if error is not None and error.code == 10028 and self.context.budgets.closes:
            link.close("too_many_requests")
        return deferred

    def _deliver(self, link: Link, payload: bytes, place: int | None, fault: ArmedAnswer) -> Deferred | None:
        """Push an answer, at its place among the notifications it caused, as far as the fault lets it through."""
        match fault.fault:
            case AnswerFault.LOSE_ANSWER | AnswerFault.CUT:
                self.publish()
                if fault.fault is AnswerFault.CUT:
                    link.cut_off()
                return None
            case AnswerFault.DELAY:
                self.publish()
                return Deferred(fault.delay_ms / 1000, lambda: link.push(payload))
        if self.faults.notifications_first:
            self.publish()
            link.push(payload)
        else:
            link.push(payload, place)
            self.publish()
        return None

    def _defer_result(self, link: Link, request: Request, later: Later, us_in: int, fault: ArmedAnswer) -> Deferred:
        def finish() -> Deferred | None:
            result, error = None, None
            try:
                result = later.finish()
            except Refused as raised:
                error = refusal(raised)
            payload = answer(request.id, result, us_in, self.context.wall_us(), error)
            return self._deliver(link, payload, None, fault)

        return Deferred(max(0.0, (later.at_ms * 1000 - self.context.wall_us()) / 1e6), finish)

    def _fill_meant(self, link: Link, params: Params, grant: Grant | None) -> None:
        """Fill every resting order that this cancel names by id, label or instrument (all of the account's else)."""
        caller = grant or self._grant(link, params)
        if caller is None:
            return
        engine, now_ms = self.context.engine, self.context.now_ms
        for order in list(self.context.floor.account(caller.account, now_ms).open_orders.values()):
            named = (
                ("order_id", order.order_id), ("label", order.label), ("instrument_name", order.instrument_name),
            )  # fmt: skip
            if order.state is OrderState.OPEN and all(params.text(key, mine) == mine for key, mine in named):
                engine.hit(order, None, now_ms)

    def _call(self, link: Link, request: Request, params: Params, grant: Grant | None) -> object:
        method = METHODS.get(request.method)
        if method is None:
            raise RpcError(-32601, "Method not found")
        if self.faults.maintenance:
            raise RpcError(11051, "system_maintenance")
        caller = grant or self._grant(link, params)
        owner = caller.account if caller is not None else link.owner
        if not self.context.limiter.allow(owner, method.budget, self.context.wall_us() / 1e6):
            raise RpcError(10028, "too_many_requests")
        if method.websocket and not link.websocket:
            raise websocket_only()
        if method.scope is not None:
            self._check_scope(method.scope, caller)
        return method.run(self.context, Call(link, params, caller))

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

    # --- the end of a link ---------------------------------------------------------------------

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

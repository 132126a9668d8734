"""Methods about the connection itself: login, hello, heartbeat, cancel on disconnect, subscriptions."""

from mmd import __version__
from mmd.sandbox.answering import NO_ANSWER
from mmd.sandbox.deribit.auth import READ, READ_WRITE
from mmd.sandbox.deribit.context import Call, Context, Method
from mmd.sandbox.deribit.render import Json
from mmd.sandbox.deribit.rpc import invalid_param
from mmd.sandbox.rpc import RpcError

VERSION = f"1.2.26-mmd-{__version__}"
MAX_CHANNELS = 500


def auth(context: Context, call: Call) -> object:
    link = call.link
    grant = context.registry.authenticate(call.params, link.number if link.websocket else None, context.now_ms)
    account = context.floor.account(grant.account, context.now_ms)
    if link.websocket:
        if link.grant is None:
            link.cancel_on_disconnect = account.cancel_on_disconnect
        elif link.grant.account != grant.account:
            context.publisher.unsubscribe_all(link, private=True)
        link.grant = grant
    data: Json = {
        "access_token": grant.access_token,
        "expires_in": grant.expires_in,
        "refresh_token": grant.refresh_token,
        "scope": grant.scope,
        "token_type": "bearer",
        "enabled_features": [],
    }
    if "state" in call.params:
        data["state"] = call.params.text("state")
    return data


def logout(context: Context, call: Call) -> object:
    """Closes the link without an answer; cancel on disconnect does not fire."""
    link = call.link
    if call.grant is not None and call.params.flag("invalidate_token", True):
        context.registry.revoke(call.grant)
    link.logged_out = True
    link.close("logout")
    return NO_ANSWER


def hello(context: Context, call: Call) -> object:
    call.params.text("client_name")
    call.params.text("client_version")
    return {"version": VERSION}


def test(context: Context, call: Call) -> object:
    if call.params.text("expected_result", "") == "exception":
        raise RpcError(11094, "internal_server_error")
    call.link.test_pending = False
    return {"version": VERSION}


def get_time(context: Context, call: Call) -> object:
    return context.now_ms


def status(context: Context, call: Call) -> object:
    """Which indexes are locked: all of them is "true", some is "partial"."""
    locked = sorted(context.floor.locked_indices)
    kind = "false" if not locked else "true" if len(locked) == len(context.floor.indexes) else "partial"
    return {"locked": kind, "locked_indices": locked}


def set_heartbeat(context: Context, call: Call) -> object:
    interval = call.params.number("interval")
    if interval < 10:
        raise invalid_param("interval", "value must be >= 10")
    call.link.heartbeat_seconds = float(interval)
    call.link.test_pending = False
    call.link.heartbeat_changed()
    return "ok"


def disable_heartbeat(context: Context, call: Call) -> object:
    call.link.heartbeat_seconds = None
    call.link.test_pending = False
    call.link.heartbeat_changed()
    return "ok"


# --- cancel on disconnect ------------------------------------------------------------------------


def _set_cancel_on_disconnect(context: Context, call: Call, enabled: bool) -> object:
    scope = call.params.choice("scope", ("connection", "account"), "connection")
    call.link.cancel_on_disconnect = enabled
    if scope == "account":
        context.floor.account(call.account, context.now_ms).cancel_on_disconnect = enabled
    return "ok"


def enable_cancel_on_disconnect(context: Context, call: Call) -> object:
    return _set_cancel_on_disconnect(context, call, True)


def disable_cancel_on_disconnect(context: Context, call: Call) -> object:
    return _set_cancel_on_disconnect(context, call, False)


def get_cancel_on_disconnect(context: Context, call: Call) -> object:
    scope = call.params.choice("scope", ("connection", "account"), "connection")
    account = context.floor.account(call.account, context.now_ms)
    enabled = call.link.cancel_on_disconnect if scope == "connection" else account.cancel_on_disconnect
    return {"scope": scope, "enabled": enabled}


# --- subscriptions -------------------------------------------------------------------------------


def _subscribe(context: Context, call: Call, *, private: bool) -> object:
    names = call.params.texts("channels")
    if len(names) > MAX_CHANNELS:
        raise invalid_param("channels", f"at most {MAX_CHANNELS} channels")
    link = call.link
    link.grant = link.grant or call.grant  # a token given with the call counts for the connection from now on
    if link.grant is None and any(name.endswith(".raw") and not name.startswith("user.") for name in names):
        raise RpcError(13778, "raw_subscriptions_not_available_for_unauthorized")
    accepted = []
    for name in names:
        if name.startswith("user.") and not private:
            continue
        parts = name.split(".")
        if len(parts) > 1 and parts[0] != "user" and name not in link.channels:
            for part in parts[1:3]:
                if part in context.floor.listings:
                    context.want(part)
        if context.publisher.subscribe(link, name, context.now_ms) and name not in accepted:
            accepted.append(name)
    return accepted


def public_subscribe(context: Context, call: Call) -> object:
    return _subscribe(context, call, private=False)


def private_subscribe(context: Context, call: Call) -> object:
    return _subscribe(context, call, private=True)


def unsubscribe(context: Context, call: Call) -> object:
    return [name for name in call.params.texts("channels") if context.publisher.unsubscribe(call.link, name)]


def public_unsubscribe_all(context: Context, call: Call) -> object:
    context.publisher.unsubscribe_all(call.link, private=False)
    return "ok"


def private_unsubscribe_all(context: Context, call: Call) -> object:
    context.publisher.unsubscribe_all(call.link, private=True)
    return "ok"


ACCOUNT_READ = ("account", READ)
ACCOUNT_WRITE = ("account", READ_WRITE)
ANY = ("", "none")

METHODS: dict[str, Method] = {
    "public/auth": Method(auth),
    "public/hello": Method(hello),
    "public/test": Method(test),
    "public/get_time": Method(get_time),
    "public/status": Method(status),
    "public/set_heartbeat": Method(set_heartbeat, websocket=True),
    "public/disable_heartbeat": Method(disable_heartbeat, websocket=True),
    "public/subscribe": Method(public_subscribe, budget="subscribe", websocket=True),
    "public/unsubscribe": Method(unsubscribe, websocket=True),
    "public/unsubscribe_all": Method(public_unsubscribe_all, websocket=True),
    "private/logout": Method(logout, ANY, websocket=True),
    "private/subscribe": Method(private_subscribe, ANY, budget="subscribe", websocket=True),
    "private/unsubscribe": Method(unsubscribe, ANY, websocket=True),
    "private/unsubscribe_all": Method(private_unsubscribe_all, ANY, websocket=True),
    "private/enable_cancel_on_disconnect": Method(enable_cancel_on_disconnect, ACCOUNT_WRITE, websocket=True),
    "private/disable_cancel_on_disconnect": Method(disable_cancel_on_disconnect, ACCOUNT_WRITE, websocket=True),
    "private/get_cancel_on_disconnect": Method(get_cancel_on_disconnect, ACCOUNT_READ, websocket=True),
}

"""Who calls: keys, the three grants, tokens with scopes, signed HTTP headers."""

import base64
import binascii
import hashlib
import hmac
import random
from decimal import Decimal

import msgspec

from mmd.sandbox.deribit.rpc import Params, invalid_param, unauthorized
from mmd.sandbox.rpc import RpcError

SIGNATURE_AGE_MS = 60_000
NONCES_KEPT = 20_000  # before those that are too old to be used again are forgotten
TOKEN_SECONDS = 31_536_000
READ, READ_WRITE = "read", "read_write"
GROUPS = ("account", "trade", "wallet", "block_trade", "block_rfq")
FULL = dict.fromkeys(GROUPS, READ_WRITE)
LEVELS = {"none": 0, READ: 1, READ_WRITE: 2}


class Key(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the accounts file. `scope` limits what the key may ever do; `balances` in each currency."""

    client_id: str
    client_secret: str
    scope: str = ""
    balances: dict[str, Decimal] = {}


class Grant(msgspec.Struct, kw_only=True, eq=False):
    """A live token. `link` is the connection it is bound to, None for session tokens and HTTP."""

    account: str
    levels: dict[str, str]
    scope: str
    access_token: str
    refresh_token: str
    expires_ms: int
    link: int | None
    expires_in: int

    def allows(self, group: str, level: str) -> bool:
        return LEVELS[self.levels.get(group, "none")] >= LEVELS[level]


class Registry:
    """All keys and tokens. Without a key list every client id is welcome, whatever its secret."""

    def __init__(self, keys: list[Key] | None, seed: int) -> None:
        self._keys = None if keys is None else {key.client_id: key for key in keys}
        self._random = random.Random(f"tokens-{seed}")
        self._by_access: dict[str, Grant] = {}
        self._by_refresh: dict[str, Grant] = {}
        self._nonces: dict[tuple[str, str], int] = {}

    # --- public/auth ---------------------------------------------------------------------------

    def authenticate(self, params: Params, link: int | None, now_ms: int) -> Grant:
        """One of the three grants; raises 13004 for wrong credentials, -32602 for missing ones."""
        kind = params.choice("grant_type", ("client_credentials", "client_signature", "refresh_token"))
        scope = params.text("scope", "")
        if kind == "refresh_token":
            return self._refresh(params.text("refresh_token"), scope, link, now_ms)
        client_id = params.text("client_id")
        if kind == "client_credentials":
            self._check_secret(client_id, params.text("client_secret"))
        else:
            timestamp, nonce = params.integer("timestamp"), params.text("nonce", "")
            text = f"{timestamp}\n{nonce}\n{params.text('data', '')}"
            self._check_signature(client_id, timestamp, nonce, text, params.text("signature"), now_ms)
        return self._grant(client_id, scope, link, now_ms)

    def _check_secret(self, client_id: str, secret: str) -> None:
        if not client_id or not secret:
            raise RpcError(13004, "invalid_credentials")
        if self._keys is None:
            return
        key = self._keys.get(client_id)
        if key is None or not hmac.compare_digest(key.client_secret.encode(), secret.encode()):
            raise RpcError(13004, "invalid_credentials")

    def _check_signature(
        self, client_id: str, timestamp: int, nonce: str, text: str, signature: str, now_ms: int
    ) -> None:
        if abs(now_ms - timestamp) > SIGNATURE_AGE_MS or not client_id or not signature:
            raise RpcError(13004, "invalid_credentials")
        if len(self._nonces) > NONCES_KEPT:
            recent = {used: at_ms for used, at_ms in self._nonces.items() if now_ms - at_ms <= 2 * SIGNATURE_AGE_MS}
            self._nonces = recent
        if nonce and (client_id, nonce) in self._nonces:
            raise RpcError(13004, "invalid_credentials")
        if self._keys is not None:
            key = self._keys.get(client_id)
            if key is None or not hmac.compare_digest(sign(key.client_secret, text), signature.lower()):
                raise RpcError(13004, "invalid_credentials")
        self._nonces[client_id, nonce] = now_ms

    def _refresh(self, token: str, scope: str, link: int | None, now_ms: int) -> Grant:
        old = self._by_refresh.get(token)
        if old is None:
            raise RpcError(13009, "unauthorized", {"reason": "invalid_token", "param": "refresh_token"})
        if old.link is not None:
            self.revoke(old)
        return self._grant(old.account, scope or old.scope, link, now_ms)

    def _grant(self, account: str, asked: str, link: int | None, now_ms: int) -> Grant:
        words = asked.split()
        levels = self._levels(account, words)
        seconds = TOKEN_SECONDS
        session = "connection"
        for word in words:
            if word.startswith("session:"):
                session = word
            elif word.startswith("expires:"):
                seconds = _seconds(word)
        scope = " ".join([session, "mainaccount", *(f"{group}:{level}" for group, level in levels.items())])
        grant = Grant(
            account=account,
            levels=levels,
            scope=scope,
            access_token=f"{now_ms}.{self._random.getrandbits(128):032x}",
            refresh_token=f"{now_ms}.{self._random.getrandbits(128):032x}",
            expires_ms=now_ms + seconds * 1000,
            link=link if session == "connection" else None,
            expires_in=seconds,
        )
        self._by_access[grant.access_token] = self._by_refresh[grant.refresh_token] = grant
        return grant

    def _levels(self, account: str, words: list[str]) -> dict[str, str]:
        """What is asked, narrowed to what the key may do. Asking for no group asks for all the key may do."""
        key = self._keys.get(account) if self._keys is not None else None
        allowed = _named_levels(key.scope.split()) if key is not None else {}
        allowed = allowed or FULL
        wanted = _named_levels(words) or allowed
        levels = {}
        for group, level in wanted.items():
            granted = min(level, allowed.get(group, "none"), key=LEVELS.__getitem__)
            if granted != "none":
                levels[group] = granted
        return levels

    # --- using a token -------------------------------------------------------------------------

    def by_token(self, token: str, link: int | None, now_ms: int) -> Grant:
        """The grant of an access token; 13009 when it is unknown, expired or bound to another connection."""
        grant = self._by_access.get(token)
        if grant is None or now_ms >= grant.expires_ms or (grant.link is not None and grant.link != link):
            raise unauthorized()
        return grant

    def is_live(self, grant: Grant, now_ms: int) -> bool:
        return now_ms < grant.expires_ms and grant.access_token in self._by_access

    def revoke(self, grant: Grant) -> None:
        self._by_access.pop(grant.access_token, None)
        self._by_refresh.pop(grant.refresh_token, None)

    def link_closed(self, link: int) -> None:
        """Tokens bound to a connection die with it."""
        for grant in [grant for grant in self._by_access.values() if grant.link == link]:
            self.revoke(grant)

    def from_header(self, header: str, method: str, target: str, body: bytes, now_ms: int) -> Grant:
        """The Authorization header of an HTTP call: Bearer, Basic, or Deribit's signature."""
        kind, _, rest = header.partition(" ")
        if kind.lower() == "bearer":
            return self.by_token(rest.strip(), None, now_ms)
        if kind.lower() == "basic":
            client_id, secret = _basic(rest)
            self._check_secret(client_id, secret)
            return self._unlisted(client_id)
        if kind == "deri-hmac-sha256":
            parts = dict(part.strip().partition("=")[::2] for part in rest.split(","))
            if not parts.get("ts", "").isdigit() or not {"id", "nonce", "sig"} <= parts.keys():
                raise RpcError(10000, "authorization_required")
            text = f"{parts['ts']}\n{parts['nonce']}\n{method}\n{target}\n{body.decode(errors='replace')}\n"
            self._check_signature(parts["id"], int(parts["ts"]), parts["nonce"], text, parts["sig"], now_ms)
            return self._unlisted(parts["id"])
        raise RpcError(10000, "authorization_required")

    def _unlisted(self, account: str) -> Grant:
        """A grant for one call only: it has no token."""
        levels = self._levels(account, [])
        return Grant(
            account=account,
            levels=levels,
            scope="",
            access_token="",
            refresh_token="",
            expires_ms=0,
            link=None,
            expires_in=0,
        )


def sign(secret: str, text: str) -> str:
    """Lower-case hex of HMAC-SHA256 over UTF-8."""
    return hmac.new(secret.encode(), text.encode(), hashlib.sha256).hexdigest()


def _named_levels(words: list[str]) -> dict[str, str]:
    levels = {}
    for word in words:
        group, _, level = word.partition(":")
        if group in GROUPS and level in LEVELS:
            levels[group] = level
    return levels


def _seconds(word: str) -> int:
    text = word.partition(":")[2]
    if not text.isdigit() or not int(text):
        raise invalid_param("scope", "expires must be a positive number of seconds")
    return int(text)


def _basic(text: str) -> tuple[str, str]:
    try:
        client_id, _, secret = base64.b64decode(text, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        raise RpcError(10000, "authorization_required") from None
    return client_id, secret

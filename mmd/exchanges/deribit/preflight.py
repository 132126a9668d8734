"""A look at Deribit over HTTP: no socket, no order, no setting. Implements Preflight.

The login is a token of its own for a minute; the one of a daemon on the same key stays as it is.
Source: docs.deribit.com, "Authentication", "Access Scope", September 2026.
"""

from collections.abc import Callable, Mapping
from random import Random

import httpx
import msgspec

from mmd.domain.errors import ExchangeRefused
from mmd.domain.instruments import Instrument
from mmd.exchanges.deribit import codec, expired
from mmd.exchanges.deribit.instruments import decode_instruments
from mmd.exchanges.deribit.messages import IndexParams, Status, Summaries
from mmd.exchanges.deribit.protection import MMP_REQUIRED, difference, mmp_params, read_config, read_freeze
from mmd.exchanges.http_rpc import HttpRpc, open_rpc
from mmd.exchanges.jsonrpc import Decoder
from mmd.exchanges.preflight import (
    FAILURES,
    NS_IN_MS,
    Choice,
    Finding,
    Grade,
    Notebook,
    Wanted,
    asked,
    judge_budget,
    judge_choice,
    reach,
)
from mmd.exchanges.rows import Refused

RIGHTS = "account:read_write trade:read_write"
SCOPE = f"{RIGHTS} wallet:none expires:60"
USD_INDEX = "_usd"

_decode_time: Decoder[int] = Decoder(int)
_decode_status: Decoder[Status] = Decoder(Status)
_decode_summaries: Decoder[Summaries] = Decoder(Summaries)


class _Token(msgspec.Struct):
    """Result of public/auth, as far as HTTP needs it."""

    access_token: str
    scope: str = ""

    def __repr__(self) -> str:
        return "_Token(...)"


_decode_token: Decoder[_Token] = Decoder(_Token)


class Key:
    """What logs in. Nothing of it but the id is ever shown."""

    __slots__ = ("_nonce", "_secret", "_signs", "client_id")

    def __init__(self, client_id: str, client_secret: str, grant: str, rng: Random) -> None:
        self.client_id = client_id
        self._secret = client_secret
        self._signs = grant == "client_signature"
        self._nonce = f"{rng.getrandbits(64):016x}"

    def params(self, now_ms: int) -> msgspec.Struct:
        """Params of public/auth; good for one call."""
        if not self._signs:
            return codec.credentials_auth(self.client_id, self._secret, SCOPE)
        nonce = f"{now_ms:x}-{self._nonce}"
        return codec.signature_auth(self.client_id, self._secret, SCOPE, timestamp_ms=now_ms, nonce=nonce)


class DeribitPreflight:
    """`key` None: only what is public is looked at."""

    def __init__(
        self,
        *,
        name: str,
        network: str,
        base: str,
        key: Key | None,
        wall_ns: Callable[[], int],
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """`base`: as in https://www.deribit.com/api/v2; `transport` replaces sockets."""
        self.name = name
        self.network = network
        self._base = base
        self._key = key
        self._wall_ns = wall_ns
        self._transport = transport

    async def look(self, wanted: Wanted) -> list[Finding]:
        book = Notebook()
        async with open_rpc(self._base, codec.encode, transport=self._transport) as rpc:
            moment = await reach(book, rpc, lambda raw: _decode_time(raw) * NS_IN_MS, self._wall_ns, wanted)
            if moment is None:
                return book.findings
            await self._status(book, rpc)
            choice = await self._instruments(book, rpc, wanted)
            if self._key is not None:
                now_ms = round(self._wall_ns() / NS_IN_MS + moment.ahead_ms)
                headers = await self._log_in(book, rpc, self._key, now_ms, wanted)
                if headers is not None:
                    await self._account(book, rpc, headers, choice)
                    await self._protection(book, rpc, headers, choice, wanted)
        return book.findings

    async def _status(self, book: Notebook, rpc: HttpRpc) -> None:
        status = await book.ask("status", asked(rpc, "public/status", _decode_status))
        if status is not None and status.locked not in (False, "false"):
            book.warn("status", f"locked: {', '.join(status.locked_indices) or 'everything'}", "trading")

    # --- instruments ---

    async def _instruments(self, book: Notebook, rpc: HttpRpc, wanted: Wanted) -> Choice:
        answer = await book.ask(
            "instruments",
            asked(rpc, "public/get_instruments", lambda raw: decode_instruments(raw, self.name), {"currency": "any"}),
        )
        if answer is None:
            return Choice()
        listed, refused = answer
        _tell_refused(book, refused, wanted)
        prices = await self._prices(book, rpc, listed, wanted)
        ends = {name: at_ns for name in wanted.named if (at_ns := _ended_ns(name, listed, self._wall_ns())) is not None}
        choice = wanted.choose(listed, prices, ends)
        judge_choice(book, choice, prices)
        return choice

    async def _prices(
        self, book: Notebook, rpc: HttpRpc, listed: Mapping[str, Instrument], wanted: Wanted
    ) -> dict[str, float]:
        """The index in USD of each coin."""
        indexes = {each.base: each.index for each in listed.values() if each.index.endswith(USD_INDEX)}
        prices: dict[str, float] = {}
        for coin in wanted.coins:
            if coin in indexes:
                params = {"index_name": indexes[coin]}
                price = await book.ask("index", asked(rpc, "public/get_index_price", codec.read_index, params))
                if price is not None:
                    prices[coin] = price
        return prices

    # --- the account ---

    async def _log_in(
        self, book: Notebook, rpc: HttpRpc, key: Key, now_ms: int, wanted: Wanted
    ) -> dict[str, str] | None:
        """The header of every private call; None where it does not let us in."""
        hint = f"a key of {self.network}: each network has its own"
        token = await book.ask("login", asked(rpc, "public/auth", _decode_token, key.params(now_ms)), hint)
        if token is None:
            return None
        book.hide(token.access_token)
        book.ok("login", f"as {key.client_id}")
        missing = codec.missing_scopes(RIGHTS, token.scope)
        rights = f"granted: {token.scope or 'not told'}"
        if missing:
            book.fail("rights", rights, f"{', '.join(missing)} as well")
        else:
            book.ok("rights", rights, RIGHTS)
        if "account:read_write" in missing:
            grade = Grade.FAIL if wanted.needs_cancel_on_disconnect else Grade.WARN
            book.note("cancel_on_disconnect", grade, "cannot be armed with this key", "account:read_write")
        else:
            book.ok("cancel_on_disconnect", "of each connection: armed at every login of mmd, and read back")
        return {"authorization": f"Bearer {token.access_token}"}

    async def _account(self, book: Notebook, rpc: HttpRpc, headers: Mapping[str, str], choice: Choice) -> None:
        summaries = await book.ask(
            "account",
            asked(rpc, "private/get_account_summaries", _decode_summaries, {"extended": True}, headers),
        )
        if summaries is None:
            return
        equity = {row.currency: row.equity for row in summaries.summaries}
        for coin in sorted({each.instrument.settlement for each in choice.quoted}):
            has = equity.get(coin)
            if has is None or not has.is_finite() or has <= 0:
                book.warn("account", f"no {coin}", f"{coin} to trade with")
            else:
                book.ok("account", f"{has:f} {coin}")
        told = (summaries.limits, *(row.limits for row in summaries.summaries))
        found = next((codec.matching_limits(limits) for limits in told if limits is not None), None)
        if found is None:
            book.warn("budget", "the account does not tell", "a rate for the matching engine")
        else:
            judge_budget(book, *found, choice)

    async def _protection(
        self, book: Notebook, rpc: HttpRpc, headers: Mapping[str, str], choice: Choice, wanted: Wanted
    ) -> None:
        if not wanted.protections:
            book.ok("maker_protection", "none is configured")
        now_ms = self._wall_ns() // NS_IN_MS
        for protection in wanted.protections:
            coin = protection.underlying
            for index in sorted({each.instrument.index for each in choice.quoted if each.instrument.base == coin}):
                params = IndexParams(index)
                try:
                    here = mmp_params(index, protection)
                    there = read_config(await rpc.call("private/get_mmp_config", params, headers), index)
                    frozen = read_freeze(await rpc.call("private/get_mmp_status", params, headers), index, now_ms)
                except ExchangeRefused as error:
                    has_none = error.code == MMP_REQUIRED
                    book.fail("maker_protection", f"{index}: {error}", "an account that may use it" if has_none else "")
                except (*FAILURES, ValueError) as error:
                    book.fail("maker_protection", f"{index}: {error}")
                else:
                    if frozen is not None:
                        book.warn("maker_protection", f"{index}: frozen now", "not frozen")
                    text = difference(there, here)
                    book.ok("maker_protection", f"{index}: {text or 'as it is wanted'}", "set at login" if text else "")


def _tell_refused(book: Notebook, refused: list[Refused], wanted: Wanted) -> None:
    """Rows that cannot be read are nothing to those who do not want them."""
    for row in refused:
        if row.symbol in wanted.named:
            book.fail("instruments", f"{row.symbol} cannot be quoted: {row.reason}")


def _ended_ns(symbol: str, listed: Mapping[str, Instrument], now_ns: int) -> int | None:
    """When a symbol that is not listed any more expired, by its name."""
    at_ns = expired.expiry_ns(symbol)
    return at_ns if symbol not in listed and at_ns is not None and at_ns <= now_ns else None

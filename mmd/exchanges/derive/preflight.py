"""A look at Derive over HTTP: never over a socket that is logged in, whose close would cancel the whole wallet.

Every private call has the login's three headers, signed anew. Implements Preflight.
Source: docs.derive.xyz, "Session login", "Rate limits", "Cancel on disconnect"; the published v3 specifications.
"""

from collections.abc import Callable
from typing import TypeVar

import httpx
import msgspec

from mmd.domain.addresses import parse_address
from mmd.domain.errors import ExchangeMalformed, ExchangeRefused
from mmd.domain.instruments import Instrument
from mmd.exchanges.derive import trial
from mmd.exchanges.derive.account import order_limits, read_row
from mmd.exchanges.derive.codec import read_ticker_answer, read_time
from mmd.exchanges.derive.errors import ACCOUNT_UNKNOWN, KEY_UNKNOWN, SIGNER_UNKNOWN, WRONG_SIGNATURE, WRONG_WALLET
from mmd.exchanges.derive.expired import ended_ns
from mmd.exchanges.derive.instruments import Listed, Page, decode_instruments
from mmd.exchanges.derive.keys import Identity
from mmd.exchanges.derive.lifetimes import KEY_NEEDS_SECONDS, KEY_SOON_SECONDS, duration
from mmd.exchanges.derive.messages import (
    AccountData,
    Incidents,
    ListingParams,
    SessionKeyData,
    SessionKeys,
    Subaccount,
)
from mmd.exchanges.derive.pages import KINDS, read_listing
from mmd.exchanges.derive.private import PrivateRpc, encode_params
from mmd.exchanges.derive.protection import decode_configs, find_config, mmp_difference, mmp_params
from mmd.exchanges.derive.scopes import EVERYTHING, may_quote, may_trade
from mmd.exchanges.derive.signing import Domain, Signer
from mmd.exchanges.http_rpc import HttpRpc, open_rpc
from mmd.exchanges.jsonrpc import Decoder
from mmd.exchanges.preflight import (
    FAILURES,
    NS_IN_MS,
    SIDES,
    Choice,
    Finding,
    Grade,
    Moment,
    Notebook,
    Wanted,
    asked,
    judge_budget,
    judge_choice,
    listing,
    reach,
)
from mmd.exchanges.rows import Refused

ENOUGH = ("trade", "account_info")

T = TypeVar("T")


class _Subaccounts(msgspec.Struct):
    """Result of private/get_subaccounts."""

    subaccount_ids: list[int]


_decode_incidents: Decoder[Incidents] = Decoder(Incidents)
_decode_subaccounts: Decoder[_Subaccounts] = Decoder(_Subaccounts)
_decode_subaccount: Decoder[Subaccount] = Decoder(Subaccount)
_decode_account: Decoder[AccountData] = Decoder(AccountData)
_decode_keys: Decoder[SessionKeys] = Decoder(SessionKeys)


class DerivePreflight:
    """`identity` None: only what is public is looked at."""

    def __init__(
        self,
        *,
        name: str,
        network: str,
        base: str,
        identity: Identity | None,
        domain: Domain,
        wall_ns: Callable[[], int],
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """`base`: as in https://api.derive.xyz/v3; `domain`: orders are signed for; `transport` replaces sockets."""
        self.name = name
        self.network = network
        self._base = base
        self._identity = identity
        self._domain = domain
        self._wall_ns = wall_ns
        self._transport = transport

    async def look(self, wanted: Wanted) -> list[Finding]:
        book = Notebook()
        async with open_rpc(self._base, encode_params, transport=self._transport) as rpc:
            moment = await reach(book, rpc, read_time, self._wall_ns, wanted)
            if moment is None:
                return book.findings
            incidents = await book.ask("status", asked(rpc, "public/get_live_incidents", _decode_incidents))
            for incident in incidents.incidents if incidents is not None else ():
                book.warn("status", f"{incident.severity} incident: {incident.label} {incident.message}".strip())
            choice, example = await self._instruments(book, rpc, wanted)
            if self._identity is not None:
                private = _Private(book, rpc, self._identity, self._wall_ns, moment)
                if await private.look(choice, wanted) and example is not None:
                    await private.signature(self._domain, example)
        return book.findings

    async def _instruments(self, book: Notebook, rpc: HttpRpc, wanted: Wanted) -> tuple[Choice, Listed | None]:
        """What is to be quoted, and one of these as it is listed."""
        listed: dict[str, Listed] = {}
        refused: list[Refused] = []
        prices: dict[str, float] = {}
        for coin in wanted.coins:
            for kind in KINDS:
                try:
                    found, bad = await list_instruments(rpc, self.name, kind, coin)
                except FAILURES as error:
                    book.fail("instruments", str(error))
                    return Choice(), None
                listed |= found
                refused += bad
            if f"{coin}-PERP" in listed:
                price = await book.ask("index", index_price(rpc, coin))
                if price is not None:
                    prices[coin] = price
        for row in refused:
            if row.symbol in wanted.named:
                book.fail("instruments", f"{row.symbol} cannot be quoted: {row.reason}")
        now_ns = self._wall_ns()
        ends = {name: at_ns for name in wanted.named if name not in listed and (at_ns := ended_ns(name, now_ns))}
        choice = wanted.choose({symbol: each.instrument for symbol, each in listed.items()}, prices, ends)
        judge_choice(book, choice, prices)
        return choice, next((listed[each.instrument.symbol] for each in choice.quoted), None)


# --- what is public ------------------------------------------------------------------------------


async def list_public(exchange: str, base: str) -> dict[str, Instrument]:
    """Everything that is listed, by symbol. Raises as `HttpRpc.call` does."""
    listed: dict[str, Instrument] = {}
    async with open_rpc(base, encode_params) as rpc:
        for kind in KINDS:
            found = (await list_instruments(rpc, exchange, kind))[0]
            listed |= {symbol: each.instrument for symbol, each in found.items()}
    return listed


async def list_instruments(
    rpc: HttpRpc, exchange: str, kind: str, coin: str | msgspec.UnsetType = msgspec.UNSET
) -> tuple[dict[str, Listed], list[Refused]]:
    """All pages of one type (perp, option), of one coin or of all. Raises as `HttpRpc.call` does."""

    async def ask(params: ListingParams) -> Page:
        return await asked(rpc, "public/get_all_instruments", lambda raw: decode_instruments(raw, exchange), params)

    return await read_listing(ask, kind, coin)


async def index_price(rpc: HttpRpc, coin: str) -> float:
    """The index in USD, as the ticker of the perpetual tells it. Raises as `HttpRpc.call` does."""
    ticker = await asked(
        rpc, "public/get_ticker", lambda raw: read_ticker_answer(raw, 0), {"instrument_name": f"{coin}-PERP"}
    )
    return ticker.index


# --- what is ours --------------------------------------------------------------------------------


class _Private:
    """The private half of one look."""

    def __init__(
        self, book: Notebook, rpc: HttpRpc, identity: Identity, wall_ns: Callable[[], int], moment: Moment
    ) -> None:
        self._book = book
        self._identity = identity
        self._rpc = PrivateRpc(rpc, identity, self._now_ms)
        self._wallet = self._rpc.wallet
        self._wall_ns = wall_ns
        self._ahead_ms = moment.ahead_ms

    def _now_ms(self) -> int:
        """By the exchange's clock."""
        return round(self._wall_ns() / NS_IN_MS + self._ahead_ms)

    async def _asked(self, method: str, read: Callable[[msgspec.Raw], T], params: object) -> T:
        """A call, and its result as `read` has it. Raises as `PrivateRpc.call` does."""
        return read(await self._rpc.call(method, params))

    async def look(self, choice: Choice, wanted: Wanted) -> bool:
        """Whether key, wallet and subaccount are good: then all the rest was looked at, but `signature`."""
        if not await self._log_in():
            return False
        may_set = await self._rights(choice)
        await self._account(choice, wanted, may_set=may_set)
        await self._funds()
        await self._protection(wanted)
        return True

    async def signature(self, domain: Domain, example: Listed) -> None:
        """Whether orders are verified there as they are signed here."""
        signer = Signer(self._identity.key, domain, self._wallet, self._identity.subaccount)
        params, ours = trial.trial(signer, example, self._now_ms() * NS_IN_MS)
        self._book.hide(ours.signature.hex())
        try:
            steps = await self._asked(trial.METHOD, trial.read_steps, params)
        except FAILURES as error:
            refused = isinstance(error, ExchangeRefused) and error.code == WRONG_SIGNATURE
            grade = Grade.FAIL if refused else Grade.WARN
            self._book.note(trial.CHECK, grade, f"not told what is verified there: {error}")
        else:
            trial.judge(self._book, domain, ours, steps)

    async def _log_in(self) -> bool:
        """Whether key and wallet belong together, and the subaccount to them."""
        book, key, number = self._book, self._identity.key, self._identity.subaccount
        try:
            found = await self._asked("private/get_subaccounts", _decode_subaccounts, {"wallet": self._wallet})
        except FAILURES as error:
            book.fail("login", self._why(error), "a key that the wallet has registered, on this network")
            return False
        book.ok("login", f"session key {key.name} of wallet {self._wallet}")
        numbers = sorted(found.subaccount_ids)
        if number not in numbers:
            has = listing([str(each) for each in numbers]) or "none"
            book.fail("subaccount", f"{number} is none of this wallet's: it has {has}", "one of them")
            return False
        book.ok("subaccount", f"{number} of {listing([str(each) for each in numbers])}")
        return True

    def _why(self, error: Exception) -> str:
        """In the words of whoever has to mend it."""
        code = error.code if isinstance(error, ExchangeRefused) else 0
        if code in (WRONG_WALLET, SIGNER_UNKNOWN, KEY_UNKNOWN):
            return f"session key {self._identity.key.name} does not belong to wallet {self._wallet}: {error}"
        if code == ACCOUNT_UNKNOWN:
            return f"wallet {self._wallet} has no account here: {error}"
        return f"session key {self._identity.key.name}: {error}"

    async def _rights(self, choice: Choice) -> bool:
        """Whether the key may set what is of the whole account."""
        book, key = self._book, self._identity.key
        if key.address == parse_address(self._wallet):
            book.warn("rights", "this is the wallet's own key, which may do everything", "a session key that may trade")
            return True
        keys = await book.ask(
            "rights",
            self._asked("private/session_keys", _decode_keys, {"wallet": self._wallet}),
        )
        if keys is None:
            return False
        ours = [each for each in keys.public_session_keys if each.public_session_key.lower() == key.name.lower()]
        if not ours:
            book.warn("rights", f"{key.name} is not listed among the wallet's keys")
            return False
        return self._judge_rights(ours[0], choice)

    def _judge_rights(self, data: SessionKeyData, choice: Choice) -> bool:
        book, scopes = self._book, [*data.protocol_scopes, *data.offchain_scopes]
        found = f"granted: {', '.join(scopes) or 'nothing'}"
        may_set = not EVERYTHING.isdisjoint(scopes)
        barred = [each.instrument.symbol for each in choice.quoted if not may_quote(scopes, each.instrument.kind)]
        extra = [scope for scope in scopes if not scope.startswith(ENOUGH)]
        if not may_trade(scopes):
            book.fail("rights", found, "trade:all")
        elif barred:
            book.fail("rights", f"{found}; not enough for {listing(barred)}", "trade:all")
        elif not may_set:
            book.warn("rights", found, "trade:all: without it cancel-on-disconnect cannot be set")
        elif extra:
            book.warn("rights", found, "trade:all, and no more than it needs")
        else:
            book.ok("rights", found)
        if data.subaccount_ids and self._identity.subaccount not in data.subaccount_ids:
            has = listing([str(each) for each in data.subaccount_ids])
            book.fail("rights", f"the key is for {has} only", f"subaccount {self._identity.subaccount}")
        self._judge_expiry(data.expiry_sec)
        return may_set

    def _judge_expiry(self, expiry_sec: int) -> None:
        left = expiry_sec - self._now_ms() / 1000
        found = f"ends in {duration(left)}" if left > 0 else f"ended {duration(-left)} ago"
        wanted = f"{duration(KEY_SOON_SECONDS)} or more: nothing signed outlives its key"
        if left < KEY_NEEDS_SECONDS:
            self._book.fail("key_expiry", found, f"{wanted}; mmd does not log in with less than {KEY_NEEDS_SECONDS} s")
        else:
            self._book.note("key_expiry", Grade.WARN if left < KEY_SOON_SECONDS else Grade.OK, found, wanted)

    async def _account(self, choice: Choice, wanted: Wanted, *, may_set: bool) -> None:
        """What is of the whole wallet: budgets, fees, and whether a connection's end cancels everything."""
        book = self._book
        account = await book.ask(
            "account",
            self._asked("private/get_account", _decode_account, {"wallet": self._wallet}),
        )
        if account is None:
            return
        try:
            rate, burst, _ = order_limits(account.websocket_matching_tps)
        except ValueError as error:
            book.fail("budget", str(error), "one in 5 s at least")
        else:
            judge_budget(book, rate, burst, choice)
        self._judge_pace(account, choice)
        fees = account.fee_info
        special = {} if fees is None else {name: each for name, each in msgspec.structs.asdict(fees).items() if each}
        if special:
            book.ok("fees", "of this account: " + ", ".join(f"{name} {each:f}" for name, each in special.items()))
        if account.cancel_on_disconnect:
            book.ok("cancel_on_disconnect", "on, for the whole wallet: any connection that ends cancels all of it")
        elif may_set:
            book.ok("cancel_on_disconnect", "off", "set at mmd's login, for the whole wallet")
        else:
            grade = Grade.FAIL if wanted.needs_cancel_on_disconnect else Grade.WARN
            book.note("cancel_on_disconnect", grade, "off, and this key cannot set it", "trade:all")

    def _judge_pace(self, account: AccountData, choice: Choice) -> None:
        """Requests for one instrument have a budget of their own."""
        for name, rate, is_option in (
            ("perpetual", account.websocket_perp_tps, False),
            ("option", account.websocket_option_tps, True),
        ):
            wanted = [each.profile for each in choice.quoted if each.instrument.is_option == is_option]
            if rate is None or not wanted:
                continue
            needed = max(SIDES / max(1.0, profile.refresh_seconds) for profile in wanted)
            grade = Grade.OK if rate >= needed else Grade.WARN
            self._book.note("budget", grade, f"{rate:g} a second for each {name}", f"{needed:.3g} for two quotes")

    async def _funds(self) -> None:
        number, book = self._identity.subaccount, self._book
        found = await book.ask(
            "account",
            self._asked("private/get_subaccount", _decode_subaccount, {"subaccount_id": number}),
        )
        if found is None:
            return
        try:
            account = read_row(found)
        except ExchangeMalformed as error:
            book.warn("account", str(error))
            return
        free = account.equity - account.initial_margin
        text = f"subaccount {number} ({found.margin_type}): worth {account.equity:f} USD, {free:f} free"
        if found.is_under_liquidation:
            book.fail("account", f"{text}; it is being liquidated", "an account that may trade")
        elif free <= 0:
            book.warn("account", text, "free margin to quote with")
        else:
            book.ok("account", text)

    async def _protection(self, wanted: Wanted) -> None:
        number, book = self._identity.subaccount, self._book
        if not wanted.protections:
            book.ok("maker_protection", "none is configured")
            return
        rows = await book.ask(
            "maker_protection",
            self._asked("private/get_mmp_config", decode_configs, {"subaccount_id": number}),
        )
        if rows is None:
            return
        for protection in wanted.protections:
            coin = protection.underlying
            row = find_config(rows, number, coin)
            if row is not None and row.is_frozen:
                book.warn("maker_protection", f"{coin}: frozen now", "not frozen")
            try:
                text = mmp_difference(row, mmp_params(number, protection))
            except ValueError as error:
                book.fail("maker_protection", f"{coin}: {error}")
                continue
            book.ok("maker_protection", f"{coin}: {text or 'as it is wanted'}", "set at login" if text else "")

"""How Derive speaks on a link: a wallet logs in, `ping` and `pong`, a clock that is asked for, windows of requests.

Market data comes without a login: a logged-in connection that ends cancels every order of the wallet, where
cancel-on-disconnect is on. So one link only is logged in.
Source: docs.derive.xyz, "Connecting", "Session login"; the published v3 specifications.
"""

import msgspec

from mmd.domain.addresses import parse_address
from mmd.domain.errors import ExchangeAmbiguous, ExchangeMalformed, ExchangeRefused
from mmd.exchanges.connection import Connection, Dialect, LoginRefused
from mmd.exchanges.derive.codec import channels, encode, read_time
from mmd.exchanges.derive.errors import (
    ACCOUNT_UNKNOWN,
    ADDRESS_REFUSED,
    ALL_CHANNELS_INVALID,
    KEY_EXPIRED,
    KEY_EXPIRES,
    KEY_UNKNOWN,
    SCOPE_MISSING,
    SIGNER_UNKNOWN,
    SUBACCOUNT_UNKNOWN,
    WRONG_SIGNATURE,
    WRONG_WALLET,
)
from mmd.exchanges.derive.lifetimes import KEY_NEEDS_SECONDS, KEY_SOON_SECONDS, duration
from mmd.exchanges.derive.messages import SessionKeyData, SessionKeys, Subscribed
from mmd.exchanges.derive.room import Room
from mmd.exchanges.derive.scopes import may_trade
from mmd.exchanges.derive.signing import login_params
from mmd.exchanges.derive.windows import WINDOW_SECONDS, address_paces
from mmd.exchanges.jsonrpc import Decoder, Head, Sent

TIME = "public/get_time"
CLOCK_SECONDS = 30.0
PING_SECONDS = 10.0
SILENT_SECONDS = 25.0
NS_PER_US, US_PER_MS = 1_000, 1_000

LOOK_SECONDS = 86_400.0  # how often the key is looked at, at least
LOOK_AGAIN_SECONDS = 300.0  # where that failed

OF_ACCOUNTS = range(14000, 15000)
_NOT_ITS_KEY = "session key {key} is not a key of wallet {wallet}"
REFUSALS = {
    ACCOUNT_UNKNOWN: "wallet {wallet} has no account on this network",
    WRONG_SIGNATURE: "the signature of {key} does not log in to wallet {wallet}",
    WRONG_WALLET: _NOT_ITS_KEY,
    SIGNER_UNKNOWN: _NOT_ITS_KEY,
    KEY_UNKNOWN: _NOT_ITS_KEY,
    ADDRESS_REFUSED: "session key {key} may not be used from this IP address",
    KEY_EXPIRED: "session key {key} of wallet {wallet} has expired: register another",
    SCOPE_MISSING: "session key {key} of wallet {wallet} lacks a scope",
}

_decode_subaccounts: Decoder[list[int]] = Decoder(list[int])
_decode_keys: Decoder[SessionKeys] = Decoder(SessionKeys)
_decode_subscribed: Decoder[Subscribed] = Decoder(Subscribed)


class WalletLogin:
    """Implements Login: one for the wallet, whichever subaccount it trades for.

    `signs_time` False: no refusal is our clock's fault. What is signed is the exchange's time, asked for just before.
    The exchange tells no end of a login. Ours is that of the session key: the key is looked at again and again, and
    the link given up before nothing can be signed with it any more, so that everything pauses while it still works.
    """

    signs_time = False

    def __init__(self, room: Room) -> None:
        self._room = room
        self._logged_in: Connection | None = None

    async def log_in(self, connection: Connection) -> float:
        if connection is not self._logged_in:
            await self._sign_in(connection)
            self._logged_in = connection
        return await self._look_at_key(connection)

    async def _sign_in(self, connection: Connection) -> None:
        room, identity = self._room, self._room.identity
        params = login_params(identity.key, identity.wallet, room.house.clock.now_ms())
        try:
            raw = await connection.call("public/login", params)
        except ExchangeRefused as error:
            if why := self._why_refused(error.code):
                raise LoginRefused(error.code, f"{why}: {error.message}") from error
            raise
        numbers = sorted(_decode_subaccounts(raw))
        if identity.subaccount not in numbers:
            has = ", ".join(map(str, numbers)) or "none"
            text = f"subaccount {identity.subaccount} is not one of wallet {room.signer.owner} that this key may use"
            raise LoginRefused(SUBACCOUNT_UNKNOWN, f"{text}: it may use {has}")

    def _why_refused(self, code: int) -> str:
        """In the words of whoever has to mend it; empty where the login is not what is refused."""
        known = REFUSALS.get(code) or (
            "session key {key} of wallet {wallet} was refused" if code in OF_ACCOUNTS else ""
        )
        return known.format(key=self._room.signer.name, wallet=self._room.signer.owner)

    # --- the key's life ---

    async def _look_at_key(self, connection: Connection) -> float:
        """Seconds until the next look, at the latest until the key is good for nothing any more.

        Where it cannot be read the link goes on with what is known: the exchange takes nothing that outlives its key.
        """
        room = self._room
        if room.identity.key.address == parse_address(room.identity.wallet):
            return float("inf")
        try:
            data = self._find(await connection.call("private/session_keys", {"wallet": room.signer.owner}))
        except (ExchangeRefused, ExchangeAmbiguous, ExchangeMalformed) as error:
            text = f"when session key {room.signer.name} ends, and what it may do, could not be read: {error}"
            room.house.sink.report("session_key.unknown", text)
            return self._next_look(LOOK_AGAIN_SECONDS)
        self._check_scopes(data)
        room.key_expires_sec = data.expiry_sec
        return self._next_look(LOOK_SECONDS)

    def _find(self, raw: msgspec.Raw) -> SessionKeyData:
        name = self._room.signer.name
        for data in _decode_keys(raw).public_session_keys:
            if data.public_session_key.lower() == name.lower():
                return data
        raise ExchangeMalformed(f"private/session_keys does not list {name}")

    def _check_scopes(self, data: SessionKeyData) -> None:
        if not may_trade(data.protocol_scopes):
            granted = ", ".join([*data.protocol_scopes, *data.offchain_scopes]) or "nothing"
            text = f"session key {self._room.signer.name} may not trade: granted is {granted}, wanted trade:all"
            raise LoginRefused(SCOPE_MISSING, text)

    def _next_look(self, within_seconds: float) -> float:
        """LoginRefused where the key ends too soon; told from 7 days before."""
        room = self._room
        if room.key_expires_sec is None:
            return within_seconds
        left_seconds = room.key_expires_sec - room.house.clock.now_ms() / 1000
        good_seconds = left_seconds - KEY_NEEDS_SECONDS
        name = room.signer.name
        if good_seconds <= 0:
            text = f"session key {name} ends in {max(0.0, left_seconds):.0f} s: too soon to quote with it"
            raise LoginRefused(KEY_EXPIRES, f"{text}; register another")
        if left_seconds < KEY_SOON_SECONDS:
            text = f"session key {name} ends in {duration(left_seconds)}"
            before = f"quoting ends {duration(KEY_NEEDS_SECONDS)} before"
            room.house.sink.report("session_key.ends_soon", f"{text}; {before}")
        return min(within_seconds, good_seconds)


class Pings:
    """Implements Beat: we send the text `ping`, and `pong` comes back. One for each link."""

    silent_seconds = SILENT_SECONDS

    def __init__(self) -> None:
        self._due_at = 0.0

    async def begin(self, connection: Connection) -> None:
        """The exchange does not have to be told."""

    def due(self, now: float) -> bytes:
        if now < self._due_at:
            return b""
        self._due_at = now + PING_SECONDS
        return b"ping"

    def took(self, message: bytes) -> bool:
        return message == b"pong"

    def heard(self, connection: Connection, head: Head) -> bool:
        return False


class Subscribing:
    """Implements Subscriptions. There is one method for public and private channels: who is logged in may have both."""

    def request(self, names: list[str], *, on: bool) -> tuple[str, object]:
        return "subscribe" if on else "unsubscribe", channels(names)

    def granted(self, raw: msgspec.Raw) -> set[str]:
        return set(_decode_subscribed(raw).current_subscriptions)

    def culprits(self, error: ExchangeRefused, names: list[str]) -> list[str]:
        """Single channels fail without an error; where all do, there is one."""
        return names if error.code == ALL_CHANNELS_INVALID else []


PUBLIC = PRIVATE = Subscribing()


def times(sent: Sent, head: Head) -> tuple[int, int] | None:
    """One method tells the clock, in whole ms: it showed that or up to 1 ms more. ExchangeMalformed if it does not."""
    if sent.method != TIME or head.error is not None:
        return None
    told_us = read_time(head.result) // NS_PER_US
    return told_us + US_PER_MS, told_us


def make_data_dialect(room: Room) -> Dialect:
    """For the link of market data, which nobody logs in."""
    return Dialect(
        login=None,
        beat=Pings(),
        paces=address_paces(),
        encode=encode,
        times=times,
        clock=TIME,
        clock_seconds=CLOCK_SECONDS,
        throttled_seconds=WINDOW_SECONDS,
        one_budget=False,  # that of an address, which others behind it use up as well
    )


def make_trade_dialect(room: Room) -> Dialect:
    return Dialect(
        login=WalletLogin(room),
        beat=Pings(),
        paces=room.paces,
        encode=encode,
        times=times,
        clock=TIME,
        clock_seconds=CLOCK_SECONDS,
        throttled_seconds=WINDOW_SECONDS,
        one_budget=True,
    )

"""How Deribit speaks on a link: login, heartbeats, credits, and the times in every answer."""

from random import Random

import msgspec

from mmd.domain.errors import ExchangeRefused
from mmd.exchanges.connection import Connection, Dialect, House
from mmd.exchanges.deribit import codec
from mmd.exchanges.deribit.errors import RAW_NEEDS_AUTH
from mmd.exchanges.jsonrpc import Head, Sent
from mmd.exchanges.paces import Pace, Paces

TEST = "public/test"

# Four fifths of the documented credits: the account's owner may be logged in elsewhere.
GENERAL_RATE, GENERAL_BURST = 16.0, 80.0
SUBSCRIBE_RATE, SUBSCRIBE_BURST = 2.6, 8.0
LISTING_RATE, LISTING_BURST = 0.8, 10.0
LOG_RATE, LOG_BURST = 0.8, 6.0


def account_credits() -> Paces:
    """One account's: its links share them."""
    subscribe = Pace(SUBSCRIBE_RATE, SUBSCRIBE_BURST)
    special = {
        "public/subscribe": subscribe,
        "private/subscribe": subscribe,
        "public/get_instruments": Pace(LISTING_RATE, LISTING_BURST),
        "private/get_transaction_log": Pace(LOG_RATE, LOG_BURST),
    }
    return Paces(Pace(GENERAL_RATE, GENERAL_BURST), special)


class Credentials:
    """What logs in. Nothing of it is ever shown."""

    def __init__(self, client_id: str, client_secret: str, grant: str) -> None:
        if grant not in ("client_signature", "client_credentials"):
            raise ValueError(f"grant {grant!r}: wanted client_signature or client_credentials")
        self._id = client_id
        self._secret = client_secret
        self._grant = grant
        self.signs_time = grant == "client_signature"  # which may be up to a minute off
        self._count = 0

    def params(self, scope: str, now_ms: int, rng: Random) -> msgspec.Struct:
        """Params of public/auth."""
        if self._grant == "client_credentials":
            return codec.credentials_auth(self._id, self._secret, scope)
        self._count += 1
        nonce = f"{now_ms:x}-{self._count:x}-{rng.getrandbits(32):08x}"
        return codec.signature_auth(self._id, self._secret, scope, timestamp_ms=now_ms, nonce=nonce)


class Auth:
    """Implements Login: public/auth for one scope. `link`: its name, for people."""

    def __init__(self, house: House, credentials: Credentials, link: str, scope: str) -> None:
        self.signs_time = credentials.signs_time
        self._house = house
        self._credentials = credentials
        self._link = link
        self._scope = scope

    async def log_in(self, connection: Connection) -> float:
        house = self._house
        params = self._credentials.params(self._scope, house.clock.now_ms(), house.rng)
        result = codec.decode_auth(await connection.call("public/auth", params))
        if short := codec.missing_scopes(self._scope, result.scope):
            house.sink.report("login.scope_narrowed", f"{self._link}: not granted: {' '.join(short)}")
        return float(result.expires_in)


class Heartbeat:
    """Implements Beat: the exchange beats, and wants an answer now and then."""

    def __init__(self, seconds: int) -> None:
        self.silent_seconds = 2.0 * seconds
        self._seconds = seconds

    async def begin(self, connection: Connection) -> None:
        await connection.call("public/set_heartbeat", {"interval": self._seconds})

    def due(self, now: float) -> bytes:
        return b""

    def took(self, message: bytes) -> bool:
        return False

    def heard(self, connection: Connection, head: Head) -> bool:
        if head.method != "heartbeat" or head.params is None:
            return False
        if head.params.type == "test_request" and not connection.link.lost:
            connection.ask(TEST)
        return True


class Subscribing:
    """Implements Subscriptions. `side`: public or private."""

    def __init__(self, side: str) -> None:
        self._side = side

    def request(self, names: list[str], *, on: bool) -> tuple[str, object]:
        return f"{self._side}/{'subscribe' if on else 'unsubscribe'}", codec.channels(names)

    def granted(self, raw: msgspec.Raw) -> set[str]:
        return set(codec.decode_channels(raw))

    def culprits(self, error: ExchangeRefused, names: list[str]) -> list[str]:
        """Raw books are for whoever is logged in: one of them costs all of the request."""
        if error.code != RAW_NEEDS_AUTH or self._side != "public":
            return []
        return [name for name in names if name.endswith(".raw")]


PUBLIC, PRIVATE = Subscribing("public"), Subscribing("private")


def times(sent: Sent, head: Head) -> tuple[int, int] | None:
    """Every answer has them; not every refusal."""
    return (head.us_in, head.us_out) if head.us_in and head.us_out else None


def told_us(house: House, head: Head) -> int:
    """When the exchange took the request of this answer, by its own clock, µs."""
    return head.us_in or house.clock.now_ms() * 1000


def make_dialect(
    house: House, credentials: Credentials, paces: Paces, *, link: str, scope: str, heartbeat_seconds: int
) -> Dialect:
    return Dialect(
        login=Auth(house, credentials, link, scope),
        beat=Heartbeat(heartbeat_seconds),
        paces=paces,
        encode=codec.encode,
        times=times,
        clock=TEST,
        clock_seconds=float("inf"),
        throttled_seconds=float("inf"),
        one_budget=True,
    )

"""What the parts of Derive's room share beside the House: who signs, what is listed, which orders are one."""

from mmd.domain.errors import LinkLost
from mmd.domain.instruments import Instrument
from mmd.domain.reasons import Side
from mmd.exchanges.api import UNLIMITED_SECONDS
from mmd.exchanges.connection import House
from mmd.exchanges.derive.chains import Chains
from mmd.exchanges.derive.instruments import Listed
from mmd.exchanges.derive.keys import Identity
from mmd.exchanges.derive.lifetimes import KeyExpires, Nonces, expiry_sec
from mmd.exchanges.derive.signing import Domain, SignedOrder, Signer
from mmd.exchanges.derive.windows import WalletPaces

MS = 1_000_000


class Room:
    """One exchange's. `key_expires_sec`: when the session key ends, Unix seconds; None = never, or not read yet.

    `indexes`: the last index of each symbol that the market data told.
    """

    def __init__(self, house: House, identity: Identity, domain: Domain, *, order_life_seconds: int) -> None:
        """`order_life_seconds`: how long an order's signature counts. ValueError for what cannot sign."""
        self.house = house
        self.identity = identity
        self.signer = Signer(identity.key, domain, identity.wallet, identity.subaccount)
        self.listed: dict[str, Listed] = {}
        self.indexes: dict[str, float] = {}
        self.chains = Chains(self._heritage)
        self.key_expires_sec: int | None = None
        self.paces = WalletPaces()
        self._life_seconds = order_life_seconds
        self._nonces = Nonces()

    @property
    def valid_ms(self) -> int:
        """How long after it left a request that makes an order may come, at the most."""
        return self.house.order_valid_ms or round(UNLIMITED_SECONDS * 1000)

    @property
    def subaccount(self) -> int:
        return self.identity.subaccount

    def _heritage(self) -> tuple[int, int]:
        """When an earlier process may have sent its last request, and until when that may come."""
        sent_ms = round(self.house.started_ns / MS + self.house.clock.skew_ms)
        return sent_ms, sent_ms + self.valid_ms

    def instrument(self, symbol: str) -> Instrument | None:
        """None where it is not listed (any more)."""
        return self.house.instruments.get(symbol)

    def sign(
        self, symbol: str, side: Side, price_ticks: int, size_lots: int, max_fee_e18: int, *, mmp: bool
    ) -> SignedOrder:
        """An order, with a nonce of its own. LinkLost where the key ends too soon for it to be taken."""
        listed, now_ns = self.listed[symbol], self.house.clock.now_ms() * MS
        try:
            expires = expiry_sec(now_ns, self._life_seconds, self.key_expires_sec, mmp=mmp)
        except KeyExpires as error:
            raise LinkLost(str(error)) from error
        price, amount = price_ticks * listed.tick_e18, size_lots * listed.lot_e18
        return self.signer.order(listed.asset, side, price, amount, max_fee_e18, self._nonces.take(now_ns), expires)

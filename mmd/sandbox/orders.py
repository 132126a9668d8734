"""Orders of the accounts: what is asked, what rests, what was executed, and why the engine said no.

Names and values are Deribit's; prices and amounts are Decimal in the instrument's own units, times Unix ms.
"""

from decimal import Decimal
from enum import StrEnum

import msgspec

from mmd.sandbox.model import Direction

ZERO = Decimal(0)


class TimeInForce(StrEnum):
    GOOD_TIL_CANCELLED = "good_til_cancelled"
    GOOD_TIL_DAY = "good_til_day"
    FILL_OR_KILL = "fill_or_kill"
    IMMEDIATE_OR_CANCEL = "immediate_or_cancel"


class OrderType(StrEnum):
    LIMIT = "limit"
    MARKET = "market"
    MARKET_LIMIT = "market_limit"


class OrderState(StrEnum):
    OPEN = "open"
    FILLED = "filled"
    CANCELLED = "cancelled"
    SPEED_BUMPED = "speed_bumped"
    EXPIRED = "expired"  # Derive only


class CancelReason(StrEnum):
    USER_REQUEST = "user_request"
    CANCEL_ON_DISCONNECT = "cancel_on_disconnect"
    MMP_TRIGGER = "mmp_trigger"
    EDIT_POST_ONLY_REJECT = "edit_post_only_reject"
    SETTLEMENT = "settlement"
    SELF_TRADE = "self_trade_prevention"
    REDUCE_ONLY = "reduce_only"
    NOT_FILLED = "not_filled"
    KEY_GONE = "session_key_deregistered"  # Derive only
    NONE = ""


class SelfTrading(StrEnum):
    """What happens when an order would meet one of the same account. ALLOW cannot be set over the wire."""

    REJECT_TAKER = "reject_taker"
    CANCEL_MAKER = "cancel_maker"
    ALLOW = "allow"


class Refuse(StrEnum):
    """Why the engine refused; the values are Deribit's error names."""

    QTY_TOO_LOW = "qty_too_low"
    ORDER_OVERLAP = "order_overlap"
    ORDER_NOT_FOUND = "order_not_found"
    PRICE_TOO_LOW = "price_too_low"
    PRICE_TOO_HIGH = "price_too_high"
    ALREADY_CLOSED = "already_closed"
    ALREADY_FILLED = "already_filled"
    BOOK_CLOSED = "book_closed"
    LOCKED = "locked_by_admin"
    BAD_INSTRUMENT = "invalid_or_unsupported_instrument"
    INVALID_AMOUNT = "invalid_amount"
    INVALID_PRICE = "invalid_price"
    NOT_WHOLE_CONTRACTS = "non_integer_contract_amount"
    NOT_OWNER = "not_owner_of_order"
    BAD_ARGUMENTS = "invalid_args_for_instrument"
    SETTLEMENT = "settlement_in_progress"
    WRONG_TICK = "price_wrong_tick"
    NO_ROOM_TO_SLIDE = "post_only_price_modification_not_possible"
    OTHER_REJECT = "other_reject"
    NOT_OPEN = "not_open_order"
    POST_ONLY_REJECT = "post_only_reject"
    POST_ONLY_NOT_ALLOWED = "post_only_not_allowed"
    EXPIRED_BOOK = "orderbook_closed"
    MMP_FROZEN = "mmp_trigger"
    MMP_REQUIRED = "mmp_required"
    NOT_UNIQUE = "non_unique_order_label"
    TIMED_OUT = "timed_out"


class Refused(Exception):
    """A definite no: nothing changed. `detail` follows the name in the message, as on the exchange."""

    def __init__(self, why: Refuse, detail: str = "") -> None:
        super().__init__(f"{why} {detail}".strip())
        self.why = why


class NewOrder(msgspec.Struct, frozen=True, kw_only=True):
    """A request to buy or sell; `price` None for market types, `link` the connection it came over."""

    account: str
    instrument_name: str
    direction: Direction
    amount: Decimal
    price: Decimal | None = None
    order_type: OrderType = OrderType.LIMIT
    time_in_force: TimeInForce = TimeInForce.GOOD_TIL_CANCELLED
    label: str = ""
    post_only: bool = False
    reject_post_only: bool = False
    reduce_only: bool = False
    mmp: bool = False
    valid_until: int | None = None
    link: int | None = None


class OrderChange(msgspec.Struct, frozen=True, kw_only=True):
    """A request to edit: `amount` is the new total including what is filled; None keeps what the order has."""

    amount: Decimal | None = None
    price: Decimal | None = None
    post_only: bool | None = None
    reject_post_only: bool | None = None
    reduce_only: bool | None = None
    valid_until: int | None = None


class Order(msgspec.Struct, kw_only=True, eq=False):
    """One order of an account, changed in place by the engine; what leaves the engine is a copy."""

    order_id: str
    account: str
    instrument_name: str
    direction: Direction
    order_type: OrderType
    price: Decimal
    amount: Decimal
    time_in_force: TimeInForce
    label: str
    post_only: bool
    reject_post_only: bool
    reduce_only: bool
    mmp: bool
    creation_timestamp: int
    last_update_timestamp: int
    link: int | None
    state: OrderState = OrderState.OPEN
    filled: Decimal = ZERO
    cost: Decimal = ZERO  # sum of price x amount over the fills
    fees: Decimal = ZERO  # paid over the fills
    replaced: bool = False
    cancel_reason: CancelReason = CancelReason.NONE
    release_ms: int = 0  # end of the speed bump

    @property
    def remaining(self) -> Decimal:
        return self.amount - self.filled

    @property
    def average_price(self) -> Decimal:
        return self.cost / self.filled if self.filled else ZERO


class UserTrade(msgspec.Struct, frozen=True, kw_only=True):
    """One execution as the owner of one side sees it. `fee` positive = paid, in `fee_currency`."""

    trade_id: str
    trade_seq: int
    account: str
    order_id: str
    label: str
    instrument_name: str
    timestamp: int
    direction: Direction  # the side of this account's order
    price: Decimal
    amount: Decimal
    fee: Decimal
    fee_currency: str
    maker: bool
    state: OrderState
    order_type: OrderType
    post_only: bool
    reduce_only: bool
    mmp: bool
    profit_loss: Decimal
    mark_price: Decimal
    index_price: Decimal
    underlying_price: Decimal | None
    iv: float | None
    tick_direction: int
    self_trade: bool = False


class Placed(msgspec.Struct, frozen=True):
    """The outcome of an order or an edit: the order as it stands and the executions it met at once."""

    order: Order
    trades: tuple[UserTrade, ...] = ()

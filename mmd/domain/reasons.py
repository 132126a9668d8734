"""Names that people, metrics and alerts rely on: sides, states, phases, reasons.

They are an interface: renaming one is a CHANGELOG line.
"""

from enum import StrEnum


class Side(StrEnum):
    BID = "bid"
    ASK = "ask"


class State(StrEnum):
    """What a human sees of a symbol."""

    PAUSED = "PAUSED"
    ACTIVE = "ACTIVE"
    HALTED = "HALTED"
    DRAINING = "DRAINING"
    GONE = "GONE"


class Mode(StrEnum):
    """Whether approved orders leave the house."""

    SHADOW = "shadow"
    LIVE = "live"


class Phase(StrEnum):
    """Life of one side's order."""

    EMPTY = "EMPTY"
    PLACING = "PLACING"
    LIVE = "LIVE"
    AMENDING = "AMENDING"
    CANCELLING = "CANCELLING"
    UNKNOWN = "UNKNOWN"


class Why(StrEnum):
    """Why a symbol is in its state."""

    STARTUP = "startup"
    OPERATOR = "operator"
    RESUMED = "resumed"
    RESET = "reset"
    AUTO_RESUMED = "auto_resumed"
    REMOVED = "removed"
    EXPIRED = "expired"
    STALE_BOOK = "stale_book"
    BOOK_GAP = "book_gap"
    BOOK_MALFORMED = "book_malformed"
    CROSSED_BOOK = "crossed_book"
    LOCKED_BOOK = "locked_book"
    PRICE_JUMP = "price_jump"
    EXCHANGE_DISCONNECTED = "exchange_disconnected"
    MARKET_HALTED = "market_halted"
    OUTCOME_UNKNOWN = "outcome_unknown"
    ORDERS_REFUSED = "orders_refused"
    REJECTION_STORM = "rejection_storm"
    POSITION_DRIFT = "position_drift"
    DRAWDOWN = "drawdown"
    DAILY_LOSS = "daily_loss"
    EXPOSURE = "exposure"
    VALUATION = "valuation"
    EVENT_LAG = "event_lag"
    REPEATED_FILLS = "repeated_fills"
    ACK_TIMEOUT = "ack_timeout"
    FOREIGN_ORDERS = "foreign_orders"
    CLOCK_SKEW = "clock_skew"
    DISCONNECT_STORM = "disconnect_storm"
    MAKER_PROTECTION = "maker_protection"
    SELF_TRADE = "self_trade"
    LEDGER = "ledger"
    RECONCILIATION = "reconciliation"
    JOURNAL_FAILURE = "journal_failure"
    WORKER_FAULT = "worker_fault"
    INBOX_OVERFLOW = "inbox_overflow"
    SHUTDOWN = "shutdown"


class Switch(StrEnum):
    """The kill switches; `mmd.domain.switches` says what each of them does."""

    EXPOSURE = "exposure"
    DRAWDOWN = "drawdown"
    DAILY_LOSS = "daily_loss"
    VALUATION = "valuation"
    MARKET_HALT = "market_halt"
    MARKET_DATA = "market_data"
    EVENT_LAG = "event_lag"
    REJECTION_STORM = "rejection_storm"
    REPEATED_FILLS = "repeated_fills"
    ACK_TIMEOUT = "ack_timeout"
    OUTCOME_UNKNOWN = "outcome_unknown"
    POSITION_DRIFT = "position_drift"
    FOREIGN_ORDERS = "foreign_orders"
    CLOCK_SKEW = "clock_skew"
    DISCONNECT_STORM = "disconnect_storm"
    MAKER_PROTECTION = "maker_protection"
    SELF_TRADE = "self_trade"
    LEDGER = "ledger"
    RECONCILIATION = "reconciliation"
    WORKER_FAULT = "worker_fault"
    INBOX_OVERFLOW = "inbox_overflow"
    JOURNAL_FAILURE = "journal_failure"
    ORDERS_LEFT = "orders_left"


class Response(StrEnum):
    """What a tripped switch does to the symbols in its scope. WARN alerts and changes no state."""

    WARN = "warn"
    PAUSE = "pause"
    HALT = "halt"


class Severity(StrEnum):
    """How soon somebody must look: CRITICAL at once, WARNING today, INFO never has to."""

    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"


class Scope(StrEnum):
    """Whom a tripped switch concerns."""

    SYMBOL = "symbol"
    EXCHANGE = "exchange"
    PORTFOLIO = "portfolio"


class CashKind(StrEnum):
    """Why cash moved without a trade of ours."""

    FUNDING = "funding"
    SETTLEMENT = "settlement"


class CaseKind(StrEnum):
    """In what the exchange and we may differ."""

    ORDERS = "orders"  # an order with our label that is in no journal of ours
    QUANTITIES = "quantities"  # an order's price or quantities
    AVERAGE = "average"  # average price or profit of a position
    POSITION = "position"  # its size
    JOURNAL = "journal"  # what the last process did could not be read back


# A pause for one of these may end by itself where the config says auto_resume.
MARKET_DATA_REASONS = frozenset(
    {
        Why.STALE_BOOK,
        Why.BOOK_GAP,
        Why.BOOK_MALFORMED,
        Why.CROSSED_BOOK,
        Why.LOCKED_BOOK,
        Why.PRICE_JUMP,
        Why.EXCHANGE_DISCONNECTED,
        Why.MARKET_HALTED,
    }
)


class Missing(StrEnum):
    """Why one side of a quote is withheld."""

    NO_BOOK = "no_book"
    NO_BID = "no_bid"
    NO_ASK = "no_ask"
    NO_INDEX = "no_index"
    NO_MARK = "no_mark"
    NO_VOLATILITY = "no_volatility"
    NO_ROOM = "no_room"
    OUTSIDE_BAND = "outside_band"
    BELOW_TICK = "below_tick"
    REFUSED = "refused"
    SELF_CROSS = "self_cross"
    STRAY_ORDER = "stray_order"
    POSITION_UNKNOWN = "position_unknown"
    MODE_CHANGE = "mode_change"
    NOT_ALLOWED = "not_allowed"
    NOT_ACTIVE = "not_active"


class Rule(StrEnum):
    """The gate's rules, named in every refusal."""

    STATE = "state"
    INSTRUMENT = "instrument"
    COLLAR = "collar"
    VOL_COLLAR = "vol_collar"
    DRIFT = "drift_collar"
    ORDER_VALUE = "order_value"
    REDUCE_ONLY = "reduce_only"
    MESSAGE_RATE = "message_rate"
    ORDER_SIZE = "order_size"
    POSITION = "position"
    ONE_ORDER = "one_order_per_side"
    OPEN_ORDERS = "open_orders"
    BUDGET = "message_budget"
    GRID = "grid"
    JOURNAL = "journal"


class Fault(StrEnum):
    """How an exchange's refusal is to be taken; the classes of the error tables."""

    RETRY = "retry"
    RATE_LIMIT = "rate_limit"
    ORDER = "order"
    STATE = "state"
    AUTH = "auth"
    CONFIG = "config"
    MARKET = "market"
    INFO = "info"
    AMBIGUOUS = "ambiguous"

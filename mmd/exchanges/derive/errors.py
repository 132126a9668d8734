"""Derive's error codes as data: what each means for the order it answers.

Source: the v2 table of docs.derive.xyz, which v3 kept, and codes that v3 clients have seen; the v3 table
could be read in part only. So a code that is not here is judged by its range.
"""

from mmd.domain.reasons import Fault
from mmd.exchanges.faults import ErrorTable

RATE_LIMITED = -32000  # refused before the engine saw it: it was not carried out
TOO_MANY_SOCKETS = -32100
MMP_FROZEN = 11015
NOT_LIVE = 11021
FILLED_DIFFERS = 11028  # of a replace: the old order was cancelled, and has no successor
NOT_THERE = frozenset({12000, 12001, 12002})
ALL_CHANNELS_INVALID = 13000
ACCOUNT_UNKNOWN, SUBACCOUNT_UNKNOWN = 14000, 14001
WRONG_SIGNATURE, WRONG_WALLET, SIGNER_UNKNOWN = 14014, 14020, 14023
KEY_UNKNOWN, ADDRESS_REFUSED, KEY_EXPIRED, SCOPE_MISSING = 14026, 14029, 14030, 14031
KEY_EXPIRES = 14038

# One row: class, then "code name" pairs.
_ROWS: tuple[tuple[Fault, str], ...] = (
    (Fault.RATE_LIMIT, "-32000 rate_limit_exceeded, -32100 too_many_connections"),
    (Fault.RETRY, "11002 rejected_from_queue, 14022 private_channel_not_allowed"),
    (
        Fault.AMBIGUOUS,
        "-32603 internal_error, 8001 server_error, 9000 order_confirmation_timeout, 9001 engine_confirmation_timeout, "
        # A nonce is used once: who sees it used has sent the request twice, and the first may have worked.
        "9002 engine_error, 11017 nonce_used",
    ),
    (
        Fault.ORDER,
        "-32602 invalid_params, 10004 multiple_currencies, 10007 asset_count_limit, 10008 expiry_count_limit, "
        "11000 insufficient_funds, 11007 self_crossing, 11008 post_only_reject, 11009 no_liquidity, "
        "11012 invalid_amount, 11013 invalid_price, 11014 fill_or_kill_not_filled, 11019 open_orders_limit, "
        "11020 negative_balance, 11023 max_fee_too_low, 11024 reduce_only_not_supported, "
        "11025 reduce_only_would_increase, 11029 open_interest_limit, 11050 trigger_order, 11051 trigger_order, "
        "11052 trigger_order, 11053 trigger_price_type, 11054 trigger_order_replaced, 11055 trigger_order, "
        "11100 legs_not_unique, 11104 rfq_not_open, 11105 wrong_rfq, 11106 wrong_counterparty, "
        "11107 total_cost_outside_band, 14028 cross_currency_rfq",
    ),
    (
        Fault.STATE,
        "11003 already_cancelled, 11004 already_filled, 11005 already_expired, 11006 order_not_found, "
        "11016 already_consumed, 11028 filled_amount_differs, 11101 rfq_not_found, 11102 quote_not_found",
    ),
    (
        Fault.AUTH,
        "401 not_logged_in, 403 forbidden, 14014 wrong_signature, 14020 wrong_wallet, 14021 wallet_missing, "
        "14023 signer_unknown, 14025 wallet_or_subaccount_missing, 14026 session_key_unknown, "
        "14027 not_an_rfq_maker, 14029 address_not_allowed, 14030 session_key_expired, "
        "14038 session_key_expires_first, 16000 restricted_region, 16001 account_disabled",
    ),
    (
        Fault.CONFIG,
        "-32700 parse_error, -32600 invalid_request, -32601 method_not_found, 11010 post_only_not_limit, "
        "11011 signature_expiry_out_of_bounds, 11018 nonce_out_of_window, 11027 under_liquidation, "
        "11103 legs_differ, 12000 asset_not_found, 12001 instrument_not_found, 12002 currency_not_found, "
        "13000 all_channels_invalid, 14000 account_unknown, 14001 subaccount_unknown, 14002 subaccount_closed, "
        # Not AUTH, over which a link is given up: the login is good, and orders of another kind rest by it.
        "14031 scope_missing",
    ),
    (Fault.MARKET, "11015 mmp_frozen, 11021 instrument_not_live"),
    (Fault.INFO, "11022 reject_timestamp_passed"),
)

# (first, last, fault) of codes that are not in the table. Where an order may be meant, it is looked up.
_RANGES: tuple[tuple[int, int, Fault], ...] = (
    (-32699, -32600, Fault.CONFIG),  # of JSON-RPC itself
    (401, 403, Fault.AUTH),
    (10000, 10999, Fault.ORDER),  # limits of accounts and assets: refused before the engine
    (12000, 12999, Fault.CONFIG),  # something is not there
    (13000, 13999, Fault.CONFIG),  # channels
    (14000, 14999, Fault.AUTH),
    (16000, 16999, Fault.AUTH),
)

ERRORS = ErrorTable(
    _ROWS,
    gone=frozenset({11003, 11004, 11005, 11006, 11016, FILLED_DIFFERS}),
    throttled=frozenset({RATE_LIMITED, TOO_MANY_SOCKETS}),
    timed_out=11022,  # `reject_timestamp` had passed
    not_live=frozenset({NOT_LIVE}),
    ranges=_RANGES,
)

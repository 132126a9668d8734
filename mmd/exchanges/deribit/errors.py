"""Deribit's error codes as data: what each means for the order it answers.

Source: the long table of docs.deribit.com "Error Codes", read in September 2026, and recordings.
"""

from mmd.domain.reasons import Fault
from mmd.exchanges.faults import ErrorTable

QUEUE_FULL = 10047
RAW_NEEDS_AUTH = 13778

# One row: class, then "code name" pairs.
_ROWS: tuple[tuple[Fault, str], ...] = (
    (
        Fault.RETRY,
        "10040 retry, 10041 settlement_in_progress, 10047 matching_engine_queue_full, 10048 not_on_this_server, "
        "11052 subscribe_error_unsubscribed, 13035 active_combo_limit_reached, 13036 unavailable_for_combo_books, "
        "13043 quotes_frozen, 13503 unavailable, 13780 move_positions_over_limit",
    ),
    (
        Fault.AMBIGUOUS,
        "10001 error, 10050 lock_time_exceeded, 11031 other_error, 11094 internal_server_error, "
        "13008 request_failed, 13028 temporarily_unavailable",
    ),
    (Fault.RATE_LIMIT, "10028 too_many_requests, 10066 too_many_concurrent_requests, 13903 too_many_quotes"),
    (
        Fault.ORDER,
        "10002 qty_too_low, 10003 order_overlap, 10005 price_too_low, 10006 price_too_low4idx, 10007 price_too_high, "
        "10008 price_too_high4idx, 10009 not_enough_funds, 10011 price_not_allowed, 10021 invalid_amount, "
        "10022 invalid_quantity, 10023 invalid_price, 10024 invalid_max_show, 10025 invalid_order_id, "
        "10026 price_precision_exceeded, 10027 non_integer_contract_amount, 10031 invalid_args_for_instrument, "
        "10032 whole_cost_too_low, 10034 trigger_price_too_high, 10035 trigger_price_too_low, "
        "10036 invalid_max_show_amount, 10039 not_enough_funds_in_currency, 10043 price_wrong_tick, "
        "10044 trigger_price_wrong_tick, 11013 max_spot_open_orders, 11021 post_only_price_modification_not_possible, "
        "11022 max_spot_order_quantity, 11029 invalid_arguments, 11030 other_reject, 11035 no_more_triggers, "
        "11036 invalid_trigger_price, 11037 outdated_instrument_for_IV_order, 11038 no_adv_for_futures, "
        "11039 no_adv_postonly, 11041 not_adv_order, 11046 outdated_instrument, 11048 wrong_max_show_for_option, "
        "11054 post_only_reject, 11055 post_only_not_allowed, 13901 no_more_oto_orders, "
        "13905 too_many_quotes_per_block_rfq, 13906 too_many_quotes_per_block_rfq_side, 13907 not_fully_filled, "
        "13910 quote_crossed, 13917 account_quote_limit_crossed, 13918 inverse_future_cross_trading",
    ),
    (
        Fault.STATE,
        "10004 order_not_found, 10010 already_closed, 11008 already_filled, 11044 not_open_order, "
        "13032 non_unique_order_label",
    ),
    (
        Fault.AUTH,
        "10000 authorization_required, 11056 unauthenticated_public_requests_temporarily_disabled, "
        "13004 invalid_credentials, 13009 unauthorized, 13778 raw_subscriptions_not_available_for_unauthorized",
    ),
    (
        Fault.CONFIG,
        "9999 api_not_enabled, 10013 pme_max_limit, 10014 pme_max_limit, 10015 pme_max_limit, "
        "10016 pme_max_limit, 10017 pme_max_limit, 10018 non_pme_max_future_position_size, "
        "10020 invalid_or_unsupported_instrument, "
        "10029 not_owner_of_order, 10030 must_be_websocket_request, 10033 not_implemented, "
        "10037 non_pme_total_short_options_positions_size, 10038 pme_max_risk_reducing_orders, "
        "10045 can_not_cancel_liquidation_order, 10046 can_not_edit_liquidation_order, "
        "10049 cancel_on_disconnect_failed, 10072 disabled_while_position_lock, 11042 permission_denied, "
        "11043 bad_argument, 11045 invalid_event, 11047 unsupported_arg_combination, 11049 bad_arguments, "
        "11050 bad_request, 11053 transfer_not_found, 11098 account_locked, 12003 login_over_limit, "
        "12004 registration_over_limit, 12005 country_is_banned, 12998 security_key_limit, 13007 user_not_found, "
        "13010 value_required, 13011 value_too_short, 13012 unavailable_in_subaccount, 13016 invalid_input, "
        "13018 invalid_content_type, 13020 not_found, 13021 forbidden, 13031 verification_required, "
        "13040 mmp_required, 13042 cod_not_enabled, 13403 scope_exceeded, 13668 security_key_authorization_error, "
        "13902 mass_quotes_disabled, -32000 missing_params, -32600 invalid_request, -32601 method_not_found, "
        "-32602 invalid_params, -32700 parse_error",
    ),
    (
        Fault.MARKET,
        "10012 book_closed, 10019 locked_by_admin, 11051 system_maintenance, 13019 orderbook_closed, "
        "13025 method_switched_off_by_admin",
    ),
    (Fault.INFO, "13030 mmp_trigger, 13666 request_cancelled_by_user, 13777 replaced, 13888 timed_out"),
)

ERRORS = ErrorTable(
    _ROWS,
    gone=frozenset({10004, 10010, 11008, 11044}),
    throttled=frozenset({10028}),
    timed_out=13888,  # `valid_until` had passed
    queue_full=frozenset({QUEUE_FULL}),
)

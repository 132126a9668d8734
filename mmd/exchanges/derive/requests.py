"""What Derive is sent about orders, and asked about them, as typed structs; amounts and prices as signed."""

import msgspec

from mmd.exchanges.derive.signing import SignedOrder

PAGE_ROWS = 1000


class OrderParams(SignedOrder, frozen=True, gc=False, kw_only=True):
    """For private/order. `reject_timestamp`: Unix ms; the engine refuses it later."""

    instrument_name: str
    label: str
    time_in_force: str
    order_type: str = "limit"
    mmp: bool = False
    reduce_only: bool | msgspec.UnsetType = msgspec.UNSET
    reject_post_only: bool | msgspec.UnsetType = msgspec.UNSET
    reject_timestamp: int | msgspec.UnsetType = msgspec.UNSET


class ReplaceParams(OrderParams, frozen=True, gc=False, kw_only=True):
    """For private/replace; `amount` is what the new order may fill, `expected_filled_amount` what the old one has."""

    order_id_to_cancel: str
    expected_filled_amount: str


class CancelParams(msgspec.Struct):
    subaccount_id: int
    instrument_name: str
    order_id: str


class LabelParams(msgspec.Struct):
    """For private/cancel_by_label; without an instrument it would not count."""

    subaccount_id: int
    instrument_name: str
    label: str


class SubaccountParams(msgspec.Struct):
    subaccount_id: int


class OrderIdParams(msgspec.Struct):
    subaccount_id: int
    order_id: str


class HistoryParams(msgspec.Struct):
    """For private/get_order_history and private/get_trade_history; pages from 1, times in Unix ms."""

    subaccount_id: int
    from_timestamp: int
    to_timestamp: int | msgspec.UnsetType = msgspec.UNSET
    instrument_name: str | msgspec.UnsetType = msgspec.UNSET
    page: int = 1
    page_size: int = PAGE_ROWS

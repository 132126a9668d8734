"""Derive's lists of cash that moved without a trade, as they are on the wire: see `messages`.

Source: the models of the official Python client, August 2026; docs.derive.xyz, "Get Funding History", for the signs.
"""

from decimal import Decimal

import msgspec

from mmd.exchanges.derive.messages import ZERO, Pagination


class FundingEvent(msgspec.Struct):
    """A row of private/get_funding_history: a payment of a perpetual. `funding` in USD, positive = received.

    `pnl`: profit that was paid out with it, which the position's value had shown before.
    """

    instrument_name: str
    subaccount_id: int
    timestamp: int
    funding: Decimal
    pnl: Decimal = ZERO


class FundingPage(msgspec.Struct):
    """Result of private/get_funding_history; rows are read one by one."""

    events: list[msgspec.Raw]
    pagination: Pagination

    @property
    def count(self) -> int:
        return self.pagination.count

    @property
    def pages(self) -> int:
        return self.pagination.num_pages


class OptionSettlement(msgspec.Struct, rename={"profit": "option_settlement_pnl_excl_fees"}):
    """A row of private/get_option_settlement_history. `expiry` in seconds; `settlement_price` is the index's.

    `settlement_value`: cash received. `profit`: that less average price times amount, None where it is not told.
    """

    instrument_name: str
    subaccount_id: int
    expiry: int
    amount: Decimal
    settlement_price: Decimal
    settlement_value: Decimal
    profit: Decimal | None = None


class OptionSettlements(msgspec.Struct):
    """Result of private/get_option_settlement_history: no pages, at most 1,000 rows; rows are read one by one."""

    settlements: list[msgspec.Raw]


class FundingParams(msgspec.Struct):
    """For private/get_funding_history; pages of at most 1,000 rows, from 1."""

    subaccount_id: int
    start_timestamp: int
    end_timestamp: int
    page: int = 1
    page_size: int = 1000

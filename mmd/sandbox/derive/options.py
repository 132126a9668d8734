"""What a sandbox that speaks Derive's dialect can be told: wallets, their session keys, request budgets."""

from decimal import Decimal
from enum import StrEnum

import msgspec

from mmd.sandbox.derive import known

MAINNET_CHAIN = 1


class Told(StrEnum):
    """When a private channel tells of what a replace did: BEFORE or AFTER its answer, or as the SEED has it."""

    BEFORE = "before"
    AFTER = "after"
    SEED = "seed"


class KeyLine(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A session key that the wallet has registered. No `subaccounts`: all; `expiry_sec` in Unix seconds."""

    address: str
    expiry_sec: int = known.FAR_SECOND
    scopes: tuple[str, ...] = ("trade:all", "account_info")
    subaccounts: tuple[int, ...] = ()
    label: str = ""


class WalletLine(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An owner and what is his. `usdc`: collateral of each subaccount, None = the sandbox's own balances."""

    address: str
    subaccounts: tuple[int, ...]
    keys: tuple[KeyLine, ...] = ()
    cancel_on_disconnect: bool = False
    usdc: Decimal | None = None


class Rates(msgspec.Struct, frozen=True, kw_only=True):
    """Requests a second: a window of 5 s holds five times as many, the bucket of an instrument `burst` times.

    `address`: of everybody who is not logged in, together. `labels`: cancel_by_label without an instrument.
    `enforced` False: nothing is ever refused. Source: docs.derive.xyz, Rate limits; its two pages disagree.
    """

    matching: int = 500
    non_matching: int = 500
    address: int = 500
    cancel_all: int = 1
    labels: int = 10
    perp: int = 10
    option: int = 10
    burst: int = 5
    enforced: bool = True


MARKET_MAKER = Rates()
TRADER = Rates(matching=1, non_matching=5, address=5, perp=1, option=1)

DEFAULT_WALLET = WalletLine(
    address=known.WALLET, subaccounts=(known.SUBACCOUNT,), keys=(KeyLine(address=known.SESSION_KEY, label="mmd"),)
)


class DeriveOptions(msgspec.Struct, frozen=True, kw_only=True):
    """`chain_id` of the domain under which actions are signed: 1, or 11155111 as on the testnet.

    `least_life_seconds`: a signature's least life; the exchange's texts disagree between 10 and 300.
    `mismatch_in_result`: whether 11028 comes as create_order_error of a result, instead of as an error.
    """

    chain_id: int = MAINNET_CHAIN
    wallets: tuple[WalletLine, ...] = (DEFAULT_WALLET,)
    rates: Rates = MARKET_MAKER
    least_life_seconds: int = 300
    replaced_told: Told = Told.SEED
    mismatch_in_result: bool = False

"""Wallets as Derive has them: owners, their subaccounts, their session keys; who may log in and who may sign.

An account of the engine is a subaccount, named by its number.
"""

from collections.abc import Iterable

import msgspec

from mmd.sandbox.derive import signing
from mmd.sandbox.derive.options import KeyLine, WalletLine
from mmd.sandbox.rpc import RpcError

OWNER_FRESH_MS = 300_000
"""Assumed: how old an owner's login signature may be. One of a session key may be of any age."""
SCOPES = {
    "trade": ("trade:all", "trade:orderbook:all", "trade:orderbook:perp", "trade:orderbook:option", "trade:rfq:all"),
    "perp": ("trade:all", "trade:orderbook:all", "trade:orderbook:perp"),
    "option": ("trade:all", "trade:orderbook:all", "trade:orderbook:option"),
    "wallet": ("trade:all",),
}
"""Scopes by what they allow: any trade, an order of a kind, what concerns the whole wallet. `admin` allows all."""


class SessionKey:
    """One registered key; levers shorten its life."""

    def __init__(self, line: KeyLine) -> None:
        self.line = line
        self.address = signing.address(line.address)
        self.expiry_sec = line.expiry_sec

    def allows(self, what: str) -> bool:
        """`what` is a key of SCOPES."""
        return any(scope == "admin" or scope in SCOPES[what] for scope in self.line.scopes)


class Wallet:
    """One owner."""

    def __init__(self, line: WalletLine) -> None:
        self.line = line
        self.address = signing.address(line.address)
        self.subaccounts = line.subaccounts
        self.keys = {key.address: key for key in map(SessionKey, line.keys)}
        self.cancel_on_disconnect = line.cancel_on_disconnect
        self.nonces: set[int] = set()
        """Used or burnt."""

    @property
    def accounts(self) -> tuple[str, ...]:
        return tuple(str(number) for number in self.subaccounts)


class Caller(msgspec.Struct, frozen=True, eq=False):
    """Who calls. `key` None: the owner himself."""

    wallet: Wallet
    key: SessionKey | None

    @property
    def subaccounts(self) -> list[int]:
        """Those that this key may use."""
        allowed = self.key.line.subaccounts if self.key is not None else ()
        return [number for number in self.wallet.subaccounts if not allowed or number in allowed]

    def check_live(self, now_ms: int) -> None:
        """RpcError (14026, 14030) once the key is gone or has expired."""
        if self.key is None:
            return
        if self.wallet.keys.get(self.key.address) is not self.key:
            raise RpcError(14026, "Session key not found")
        if now_ms >= self.key.expiry_sec * 1000:
            raise RpcError(14030, "Session key expired")

    def check_scope(self, what: str) -> None:
        """RpcError (14031) for a key without any scope for `what`."""
        if self.key is not None and not self.key.allows(what):
            raise RpcError(14031, "Session key scope missing", f"one of: admin, {', '.join(SCOPES[what])}")


class Wallets:
    """Everybody who is registered."""

    def __init__(self, lines: Iterable[WalletLine], chain_id: int) -> None:
        self.separator = signing.domain_separator(chain_id)
        self.by_address: dict[str, Wallet] = {}
        self.by_account: dict[str, Wallet] = {}
        for line in lines:
            wallet = Wallet(line)
            self.by_address[wallet.address] = wallet
            for account in wallet.accounts:
                if account in self.by_account:
                    raise ValueError(f"subaccount {account} belongs to two wallets")
                self.by_account[account] = wallet

    def log_in(self, address: str, timestamp: str, signature: str, now_ms: int) -> Caller:
        """RpcError: 14000 for an unknown wallet, 14014, 14026, 14030 for a signature that does not count."""
        try:
            wallet = self.by_address.get(signing.address(address))
        except ValueError:
            wallet = None
        if wallet is None:
            raise RpcError(14000, "Account not found")
        signer = signing.recover(signing.login_hash(timestamp), signature)
        if signer is None or not timestamp.isdecimal():
            raise RpcError(14014, "Signature invalid for message or transaction")
        if signer == wallet.address:
            if abs(now_ms - int(timestamp)) > OWNER_FRESH_MS:
                raise RpcError(14014, "Signature invalid for message or transaction", "timestamp is not fresh")
            return Caller(wallet, None)
        key = wallet.keys.get(signer)
        if key is None:
            raise RpcError(14026, "Session key not found")
        caller = Caller(wallet, key)
        caller.check_live(now_ms)
        return caller

    def signer(self, caller: Caller, signer: str, now_ms: int) -> Caller:
        """The owner or session key that an action names. RpcError: 14023 for anybody else, 14030 when it expired."""
        try:
            name = signing.address(signer)
        except ValueError:
            raise RpcError(14023, "Signer is neither owner nor session key") from None
        wallet = caller.wallet
        if name == wallet.address:
            return Caller(wallet, None)
        key = wallet.keys.get(name)
        if key is None:
            raise RpcError(14023, "Signer is neither owner nor session key")
        found = Caller(wallet, key)
        found.check_live(now_ms)
        return found


def key_row(key: SessionKey, wallet: Wallet) -> dict[str, object]:
    """As private/session_keys lists it."""
    off_chain = [scope for scope in key.line.scopes if scope == "account_info"]
    return {
        "public_session_key": key.address,
        "expiry_sec": key.expiry_sec,
        "registered_sec": 0,
        "protocol_scopes": [scope for scope in key.line.scopes if scope not in off_chain],
        "offchain_scopes": off_chain,
        "ip_whitelist": [],
        "label": key.line.label,
        "subaccount_ids": list(key.line.subaccounts or wallet.subaccounts),
    }

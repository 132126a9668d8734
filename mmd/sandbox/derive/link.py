"""A connection that speaks Derive's dialect: whoever logged in on it."""

from collections.abc import Callable

from mmd.sandbox import link
from mmd.sandbox.derive.wallets import Caller


class Link(link.Link):
    """A connection with Derive's state."""

    def __init__(
        self,
        number: int,
        *,
        websocket: bool,
        wake: Callable[[], None] = lambda: None,
        beat: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(number, websocket=websocket, wake=wake, beat=beat)
        self.caller: Caller | None = None

    def speaks_for(self, account: str) -> bool:
        """Its wallet's address, or one of its subaccounts."""
        if self.caller is None:
            return False
        wallet = self.caller.wallet
        return account == wallet.address or account in wallet.accounts

    @property
    def owner(self) -> str:
        """Whose request budgets count: the wallet's, or "" before it logged in."""
        return self.caller.wallet.address if self.caller is not None else ""

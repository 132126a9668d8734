"""A connection that speaks Deribit's dialect: its login, its heartbeats, what happens to its orders at its end."""

from collections.abc import Callable

from mmd.sandbox import link
from mmd.sandbox.deribit.auth import Grant


class Link(link.Link):
    """A connection with Deribit's state."""

    def __init__(
        self,
        number: int,
        *,
        websocket: bool,
        wake: Callable[[], None] = lambda: None,
        beat: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(number, websocket=websocket, wake=wake, beat=beat)
        self.grant: Grant | None = None
        self.cancel_on_disconnect = False
        self.test_pending = False
        self.logged_out = False

    def speaks_for(self, account: str) -> bool:
        return self.grant is not None and self.grant.account == account

    @property
    def owner(self) -> str:
        """Whose rate limits count: the account's, or the connection's own before it logged in."""
        return self.grant.account if self.grant is not None else f"#{self.number}"

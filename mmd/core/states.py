"""Which state a symbol may go to from which, and how a kill switch moves it there."""

from mmd.core.symbol import Latch, SymbolState
from mmd.domain.actions import Check, Reply, StateChanged, Tripped
from mmd.domain.reasons import MARKET_DATA_REASONS, Response, Scope, State, Switch, Why

# from, to: what `_move` may do. Anything else is a bug, found by the assertion.
MOVES: dict[State, frozenset[State]] = {
    State.PAUSED: frozenset({State.PAUSED, State.ACTIVE, State.HALTED, State.DRAINING}),
    State.ACTIVE: frozenset({State.PAUSED, State.HALTED, State.DRAINING}),
    State.HALTED: frozenset({State.HALTED, State.PAUSED, State.DRAINING}),
    State.DRAINING: frozenset({State.DRAINING, State.GONE}),
    State.GONE: frozenset(),
}


class Stateful(SymbolState):
    """The part of the machine that changes its state."""

    def _reply(self, request_id: int, ok: bool, detail: str, checks: tuple[Check, ...]) -> None:
        self._out.append(Reply(request_id, ok, detail, checks))

    def _move(self, state: State, why: Why, detail: str, by: str, now_ns: int) -> None:
        assert state in MOVES[self.state], f"{self.state} -> {state} is not in the table"
        self._out.append(StateChanged(self.state, state, why, by, detail))
        self.state, self.why, self.detail, self.by, self.since_ns = state, why, detail, by, now_ns
        self.healthy_since_ns = 0
        if state is State.HALTED:
            self.latch = Latch(why, detail, by, now_ns)
        elif state in (State.PAUSED, State.ACTIVE):
            self.latch = None
        if state is not State.ACTIVE:
            self.own.try_again()  # what is to be pulled now waits for no refusal of before
        self._dirty = True

    def _trip(self, switch: Switch, why: Why, detail: str, now_ns: int) -> bool:
        """A kill switch of this symbol: do what the configuration says; False if that changes nothing."""
        response = self.settings.switches.responses[switch]
        if not self._respond(response, why, detail, now_ns):
            return False
        self._out.append(Tripped(switch, Scope.SYMBOL, self.instrument.key, response, detail))
        return True

    def _respond(self, response: Response, why: Why, detail: str, now_ns: int) -> bool:
        """Pause or halt, where that is a step down from where it is.

        A pause for the market's sake may end by itself, one for any other reason never does.
        """
        for_market = self.state is State.PAUSED and self.why in MARKET_DATA_REASONS
        if response is Response.HALT and self.state in (State.ACTIVE, State.PAUSED):
            self._move(State.HALTED, why, detail, "mmd", now_ns)
        elif response is Response.PAUSE and (
            self.state is State.ACTIVE or (for_market and why not in MARKET_DATA_REASONS)
        ):
            self._move(State.PAUSED, why, detail, "mmd", now_ns)
        else:
            return False
        return True

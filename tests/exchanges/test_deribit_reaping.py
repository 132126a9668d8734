"""The reaper against scripted answers: what the exchange may list, and what it may not grant."""

import random
from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio
import trio.testing
from deribit_peer import Peer, Refuse, Wire, wall_clock_ns

from mmd.exchanges.deribit.reaping import DeribitReaper

Clock = trio.testing.MockClock

LABEL = "mmd-svc-BTC-PERPETUAL-b-abc-1"


class Grave:
    """Open orders by id, listed by type, and a reaper."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.peer = Peer(nursery)
        self.rows: dict[str, list[dict[str, Any]]] = {"all": [], "trigger_all": []}
        self.cancelled: list[str] = []
        self.peer.on("private/get_open_orders", lambda wire, params: self.rows[params["type"]])
        self.peer.on("private/cancel", self.cancel)
        self.reaper = DeribitReaper(
            name="deribit",
            network="test",
            service="svc",
            dial=self.peer.dial,
            host="test.example",
            path="/ws/api/v2",
            client_id="id",
            client_secret="mmd-test-secret",
            grant="client_signature",
            wall_clock_ns=wall_clock_ns,
            rng=random.Random(7),
            order_valid_ms=2000,
            settled=False,
        )

    def cancel(self, wire: Wire, params: dict[str, Any]) -> dict[str, Any]:
        self.cancelled.append(params["order_id"])
        for rows in self.rows.values():
            rows[:] = [row for row in rows if row.get("order_id") != params["order_id"]]
        return {"order_id": params["order_id"], "order_state": "cancelled"}

    async def reap(self, seconds: float = 20) -> None:
        with trio.move_on_after(seconds):
            await self.reaper.reap(only_look=False)


@pytest.fixture
async def grave(autojump_clock: Clock, nursery: trio.Nursery) -> AsyncIterator[Grave]:
    yield Grave(nursery)


async def test_a_trigger_order_that_only_its_own_list_shows(autojump_clock: Clock, grave: Grave) -> None:
    grave.rows["trigger_all"] = [{"order_id": "SLIS-1", "label": LABEL, "price": "market_price"}]
    await grave.reap()
    assert grave.cancelled == ["SLIS-1"]
    assert grave.reaper.progress.proven


async def test_an_order_in_both_lists_is_one_order(autojump_clock: Clock, grave: Grave) -> None:
    row = {"order_id": "SLIS-1", "label": LABEL, "instrument_name": "BTC-PERPETUAL", "direction": "sell"}
    grave.rows = {"all": [dict(row)], "trigger_all": [dict(row)]}
    await grave.reap()
    assert grave.cancelled == ["SLIS-1"]
    assert (grave.reaper.progress.before, grave.reaper.progress.proven) == (1, True)


async def test_an_exchange_that_knows_no_such_list_is_believed_about_the_other(
    autojump_clock: Clock, grave: Grave
) -> None:
    def listed(wire: Wire, params: dict[str, Any]) -> Any:
        return grave.rows["all"] if params["type"] == "all" else Refuse(-32602, "Invalid params")

    grave.peer.on("private/get_open_orders", listed)
    grave.rows["all"] = [{"order_id": "1", "label": LABEL}]
    await grave.reap()
    assert (grave.cancelled, grave.reaper.progress.proven) == (["1"], True)
    assert any("trigger orders" in error for error in grave.reaper.progress.errors)


@pytest.mark.parametrize(
    "strange",
    [
        pytest.param({"order_id": "9"}, id="nothing but an id"),
        pytest.param({"order_id": "9", "label": "", "direction": "sideways", "amount": "many"}, id="unknown words"),
        pytest.param({"order_id": "9", "quote": True, "order_state": "speed_bumped", "price": None}, id="a quote"),
    ],
)
async def test_somebody_elses_strange_order_is_no_obstacle(
    autojump_clock: Clock, grave: Grave, strange: dict[str, Any]
) -> None:
    grave.rows["all"] = [strange, {"order_id": "1", "label": LABEL}]
    await grave.reap()
    assert (grave.cancelled, grave.reaper.progress.proven) == (["1"], True)


async def test_a_list_that_cannot_be_read_proves_nothing(autojump_clock: Clock, grave: Grave) -> None:
    grave.peer.on("private/get_open_orders", {"orders": []})
    await grave.reap()
    assert (grave.reaper.progress.before, grave.reaper.progress.proven) == (None, False)
    assert grave.reaper.progress.errors


async def test_rights_that_are_missing_are_named(autojump_clock: Clock, grave: Grave) -> None:
    grave.peer.on("public/auth", {"expires_in": 900, "scope": "connection trade:read"})
    grave.peer.on("private/cancel", Refuse(13021, "forbidden"))
    grave.rows["all"] = [{"order_id": "1", "label": LABEL}]
    await grave.reap()
    assert not grave.reaper.progress.proven
    said = " ".join(grave.reaper.progress.errors)
    assert "trade:read_write" in said and "forbidden" in said


async def test_the_secret_is_nowhere_in_what_it_says(autojump_clock: Clock, grave: Grave) -> None:
    grave.peer.on("public/auth", Refuse(13004, "invalid_credentials"))
    await grave.reap()
    assert grave.reaper.progress.refused
    assert "mmd-test-secret" not in repr(grave.reaper.progress)
    assert "mmd-test-secret" not in repr(grave.peer.wires[0].requests)

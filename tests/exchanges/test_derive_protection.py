"""Maker protection of a currency as managed state, where nothing tells of a freeze but orders and answers."""

from collections.abc import AsyncIterator
from decimal import Decimal
from random import Random
from typing import Any

import msgspec
import pytest
import trio
import trio.testing
from deribit_peer import START_NS, Recorder, wall_clock_ns

from mmd.core.budget import Budget
from mmd.domain.errors import ExchangeMalformed, ExchangeRefused
from mmd.domain.events import ProtectionReported, ProtectionTripped
from mmd.domain.instruments import Contract, Instrument, Kind
from mmd.domain.settings import Protection, Reset
from mmd.domain.units import Grid
from mmd.exchanges.connection import House
from mmd.exchanges.derive.codec import encode_request
from mmd.exchanges.derive.errors import ERRORS, MMP_FROZEN, RATE_LIMITED
from mmd.exchanges.derive.keys import Identity, SessionKey
from mmd.exchanges.derive.messages import MmpConfig
from mmd.exchanges.derive.protection import DeriveProtection, mmp_difference, mmp_params
from mmd.exchanges.derive.room import Room
from mmd.exchanges.derive.signing import MAINNET
from mmd.exchanges.guards import CHECK_SECONDS, FROZEN_SECONDS, RETRY_SECONDS, Protections
from mmd.sandbox.derive.known import SESSION_SECRET, SUBACCOUNT, WALLET

Clock = trio.testing.MockClock

MS = 1_000_000
ETH = Instrument(
    exchange="derive",
    symbol="ETH-PERP",
    kind=Kind.PERPETUAL,
    contract=Contract.LINEAR,
    base="ETH",
    quote="USDC",
    settlement="USDC",
    index="ETH-USD",
    grid=Grid(Decimal("0.1")),
    lot=Decimal("0.1"),
    min_lots=1,
    contract_size=Decimal(1),
)
WANTED = Protection(
    underlying="ETH", interval_seconds=1.5, frozen_seconds=60, max_quantity=Decimal(20), max_delta=Decimal("2.5")
)
ROW: dict[str, Any] = {
    "subaccount_id": SUBACCOUNT,
    "currency": "ETH",
    "mmp_interval": 1500,
    "mmp_frozen_time": 60000,
    "mmp_amount_limit": "20",
    "mmp_delta_limit": "2.5",
    "is_frozen": False,
    "mmp_unfreeze_time": 0,
}


def wanted(**fields: Any) -> Protection:
    return msgspec.structs.replace(WANTED, **fields)


class Account:
    """The account there, and the connection to it. Rows by currency; `refuse` is for the next reads."""

    def __init__(self) -> None:
        self.rows: dict[str, dict[str, Any]] = {}
        self.asked: list[str] = []
        self.refuse: list[Exception] = []

    async def call(self, method: str, params: object) -> msgspec.Raw:
        await trio.lowlevel.checkpoint()
        self.asked.append(method)
        sent = msgspec.json.decode(encode_request(params))
        assert sent["subaccount_id"] == SUBACCOUNT
        if method == "private/get_mmp_config" and self.refuse:
            raise self.refuse.pop(0)
        return msgspec.Raw(msgspec.json.encode(self._answer(method, sent)))

    def _answer(self, method: str, sent: dict[str, Any]) -> Any:
        currency = sent["currency"]
        match method:
            case "private/get_mmp_config":
                return list(self.rows.values())
            case "private/set_mmp_config":
                state = {"is_frozen": False, "mmp_unfreeze_time": 0} | self.rows.get(currency, {})
                self.rows[currency] = state | sent
                return sent
            case "private/reset_mmp":
                self.thaw(currency)
                return "ok"
        raise AssertionError(method)

    def freeze(self, until_ms: int, currency: str = "ETH") -> None:
        self.rows[currency] |= {"is_frozen": True, "mmp_unfreeze_time": until_ms}

    def thaw(self, currency: str = "ETH") -> None:
        self.rows[currency] |= {"is_frozen": False, "mmp_unfreeze_time": 0}

    def reads(self) -> int:
        return self.asked.count("private/get_mmp_config")


class Scene:
    """An account, and what watches it."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.nursery = nursery
        self.account = Account()
        self.sink = Recorder()
        house = House(
            name="derive",
            service="svc",
            errors=ERRORS,
            wall_clock_ns=wall_clock_ns,
            rng=Random(1),
            started_ns=START_NS,
            budget=Budget(5.0, 5.0, 1.0),
            order_valid_ms=None,
        )
        house.sink = self.sink
        house.instruments, house.watched = {ETH.symbol: ETH}, (ETH.symbol,)
        self.room = Room(
            house, Identity(SessionKey(SESSION_SECRET), WALLET, SUBACCOUNT), MAINNET, order_life_seconds=600
        )
        self.protections = Protections(house, DeriveProtection(self.room), channels=None)

    async def protect(self, protection: Protection = WANTED) -> None:
        self.protections.protect([protection])
        self.nursery.start_soon(self.protections.serve, self.account)
        await self.settle()

    async def settle(self) -> None:
        await trio.testing.wait_all_tasks_blocked()

    async def wait(self, seconds: float) -> None:
        await trio.sleep(seconds)
        await self.settle()

    def told(self) -> list[tuple[bool, str]]:
        return [(event.armed, event.detail) for event in self.sink.of(ProtectionReported)]

    @property
    def armed(self) -> bool:
        return self.told()[-1][0]


@pytest.fixture
async def scene(autojump_clock: Clock, nursery: trio.Nursery) -> AsyncIterator[Scene]:
    yield Scene(nursery)
    nursery.cancel_scope.cancel()


# --- what is set ---------------------------------------------------------------------------------


def test_limits_go_out_as_plain_decimals_and_whole_milliseconds() -> None:
    params = mmp_params(7, wanted(max_quantity=Decimal("2E+3"), max_delta=None, interval_seconds=0.029))
    assert msgspec.json.decode(encode_request(params)) == {
        "subaccount_id": 7,
        "currency": "ETH",
        "mmp_interval": 29,
        "mmp_frozen_time": 60000,
        "mmp_amount_limit": "2000",
        "mmp_delta_limit": "0",
    }


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        pytest.param({"max_vega": Decimal(1)}, "no limit of vega", id="vega"),
        pytest.param({"interval_seconds": 0.0001}, "is too short, the least is 1 ms", id="no interval"),
    ],
)
async def test_what_it_does_not_have_is_never_asked_for(
    autojump_clock: Clock, scene: Scene, fields: dict[str, Any], text: str
) -> None:
    with pytest.raises(ValueError, match=text):
        mmp_params(7, wanted(**fields))
    await scene.protect(wanted(**fields))
    (told,) = scene.told()
    assert not told[0] and text in told[1] and scene.account.asked == []


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        pytest.param({}, "", id="as wanted"),
        pytest.param({"mmp_amount_limit": "20.000"}, "", id="as wanted, with zeros"),
        pytest.param({"mmp_interval": 0}, "nothing is set there", id="off"),
        pytest.param({"mmp_delta_limit": "0"}, "mmp_delta_limit is 0, wanted 2.5", id="a limit that is off"),
        pytest.param({"mmp_delta_limit": "sNaN"}, "mmp_delta_limit is sNaN, wanted 2.5", id="no number"),
        pytest.param(
            {"mmp_interval": 1000, "mmp_frozen_time": 0},
            "mmp_interval is 1000, wanted 1500; mmp_frozen_time is 0, wanted 60000",
            id="times",
        ),
    ],
)
def test_every_field_is_compared(fields: dict[str, Any], text: str) -> None:
    found = msgspec.convert(ROW | fields, MmpConfig, strict=False)
    assert mmp_difference(found, mmp_params(SUBACCOUNT, WANTED)) == text


async def test_it_is_set_and_read_back(autojump_clock: Clock, scene: Scene) -> None:
    await scene.protect()
    assert scene.account.asked == ["private/get_mmp_config", "private/set_mmp_config", "private/get_mmp_config"]
    assert scene.account.rows["ETH"] == ROW
    assert scene.told() == [(True, "as configured")]


async def test_rows_of_others_are_not_ours(autojump_clock: Clock, scene: Scene) -> None:
    scene.account.rows = {
        "another subaccount": ROW | {"subaccount_id": 1, "is_frozen": True},
        "BTC": ROW | {"currency": "BTC", "is_frozen": True},
    }
    await scene.protect()
    assert scene.account.asked[1] == "private/set_mmp_config"
    assert scene.told() == [(True, "as configured")]


# --- freezes -------------------------------------------------------------------------------------


async def test_a_pulled_order_is_a_trip_that_is_looked_up_and_ends_at_its_time(
    autojump_clock: Clock, scene: Scene
) -> None:
    await scene.protect()
    begun = trio.current_time()
    until_ms = wall_clock_ns() // MS + 3000
    scene.account.freeze(until_ms)
    scene.protections.suspect(ETH.symbol, "it pulled order mmd-svc-x")
    (trip,) = scene.sink.of(ProtectionTripped)
    assert "ETH: it pulled order" in trip.detail
    assert not scene.armed  # before anybody has looked: no resume passes meanwhile
    assert scene.told()[-1] == (False, "it pulled order mmd-svc-x; whether it is frozen is asked")
    await scene.settle()
    assert not scene.armed and "frozen until" in scene.told()[-1][1]
    assert scene.protections.statuses()[0].frozen_until_ns == until_ms * MS
    scene.nursery.start_soon(_thaw_at, scene, begun + 3.0)
    await scene.wait(3.5)
    assert scene.armed and scene.protections.statuses()[0].frozen_until_ns is None


async def _thaw_at(scene: Scene, at: float) -> None:
    await trio.sleep_until(at)
    scene.account.thaw()


async def test_a_refused_order_is_a_trip_too_and_one_freeze_is_told_once(autojump_clock: Clock, scene: Scene) -> None:
    await scene.protect()
    scene.account.freeze(0)
    scene.protections.refused(ETH.symbol, MMP_FROZEN, "MMP frozen")
    scene.protections.suspect(ETH.symbol, "it pulled an order")
    await scene.settle()
    assert len(scene.sink.of(ProtectionTripped)) == 1
    assert scene.told()[-1] == (False, "frozen until it is reset")


async def test_while_it_is_frozen_it_is_polled_for_nobody_would_tell_of_the_end(
    autojump_clock: Clock, scene: Scene
) -> None:
    await scene.protect()
    scene.account.freeze(0)
    scene.protections.suspect(ETH.symbol, "it pulled an order")
    await scene.wait(0)
    before = scene.account.reads()
    await scene.wait(FROZEN_SECONDS * 3 + 1)
    assert scene.account.reads() == before + 3
    scene.account.thaw()  # somebody resets it on the exchange's page
    await scene.wait(FROZEN_SECONDS)
    assert scene.armed
    assert "private/reset_mmp" not in scene.account.asked
    before = scene.account.reads()
    await scene.wait(CHECK_SECONDS - 2 * FROZEN_SECONDS)
    assert scene.account.reads() == before


async def test_a_long_freeze_is_polled_before_its_end_as_well(autojump_clock: Clock, scene: Scene) -> None:
    await scene.protect()
    scene.account.freeze(wall_clock_ns() // MS + 3_600_000)
    scene.protections.suspect(ETH.symbol, "it pulled an order")
    await scene.settle()
    scene.account.thaw()
    await scene.wait(FROZEN_SECONDS + 0.1)
    assert scene.armed


async def test_a_freeze_that_lasts_beyond_its_time_is_no_busy_loop(autojump_clock: Clock, scene: Scene) -> None:
    await scene.protect()
    scene.account.freeze(wall_clock_ns() // MS + 1000)
    scene.protections.suspect(ETH.symbol, "it pulled an order")
    await scene.wait(2)
    before = scene.account.reads()
    await scene.wait(RETRY_SECONDS * 4)
    assert before < scene.account.reads() <= before + 5
    assert not scene.armed


async def test_what_is_frozen_is_not_set_and_a_difference_is_named(autojump_clock: Clock, scene: Scene) -> None:
    scene.account.rows["ETH"] = ROW | {"mmp_amount_limit": "5", "is_frozen": True}
    await scene.protect()
    assert "private/set_mmp_config" not in scene.account.asked
    assert scene.told() == [(False, "frozen until it is reset; mmp_amount_limit is 5, wanted 20")]
    assert len(scene.sink.of(ProtectionTripped)) == 1
    scene.account.thaw()
    await scene.wait(FROZEN_SECONDS + 0.1)
    assert scene.account.rows["ETH"] == ROW and scene.armed


async def test_a_reset_by_hand_and_one_by_itself(autojump_clock: Clock, scene: Scene) -> None:
    await scene.protect(wanted(frozen_seconds=0, reset=Reset.AUTOMATIC))
    scene.account.freeze(0)
    scene.protections.suspect(ETH.symbol, "it pulled an order")
    await scene.wait(1.0)
    assert not scene.armed
    await scene.wait(WANTED.interval_seconds)
    assert scene.armed and scene.account.asked.count("private/reset_mmp") == 1
    scene.account.freeze(0)
    scene.protections.suspect(ETH.symbol, "it pulled an order")
    await scene.settle()
    await scene.protections.reset(scene.account, "ETH")
    assert scene.armed and scene.account.asked.count("private/reset_mmp") == 2


# --- answers -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(ExchangeRefused(RATE_LIMITED, "slower"), id="too much was asked"),
        pytest.param(ExchangeMalformed("no list"), id="unreadable"),
    ],
)
async def test_an_answer_that_says_nothing_is_asked_for_again_soon(
    autojump_clock: Clock, scene: Scene, error: Exception
) -> None:
    scene.account.refuse.append(error)
    await scene.protect()
    assert scene.told() == [(False, str(error))]
    await scene.wait(RETRY_SECONDS + 0.1)
    assert scene.armed

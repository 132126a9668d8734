"""A look at Deribit over HTTP, against the sandbox: what it finds, and that it leaves everything as it was."""

import random
import time
from decimal import Decimal
from typing import Any

import httpx
import msgspec
import pytest
import trio
from preflight_kit import PROFILE, Chooser, grades, of, wanted

from mmd.domain.settings import Protection, Style
from mmd.exchanges.deribit.preflight import DeribitPreflight, Key
from mmd.exchanges.preflight import Finding
from mmd.sandbox.deribit import auth
from mmd.sandbox.markets import generated_market
from mmd.sandbox.serve import Sandbox, SandboxOptions

BTC = "BTC-PERPETUAL"
SECRET = "hunter2"
PROTECTION = Protection(underlying="BTC", interval_seconds=5, frozen_seconds=60, max_quantity=Decimal(2))
TRADER = auth.Key(client_id="trader", client_secret=SECRET)
READER = auth.Key(client_id="reader", client_secret=SECRET, scope="account:read trade:read")
POOR = auth.Key(client_id="poor", client_secret=SECRET, balances={"BTC": Decimal(0)})


class Place:
    """A sandbox on a port, and whoever looks at it."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.nursery = nursery
        market = generated_market(3, now_ms=time.time_ns() // 1_000_000)
        options = SandboxOptions(seed=3, keys=(TRADER, READER, POOR), without_mmp=frozenset({"poor"}))
        self.sandbox = Sandbox(market, options)
        self.port = 0

    async def start(self) -> None:
        await self.nursery.start(self.sandbox.run)
        self.port = await self.nursery.start(self.sandbox.serve_tcp, "127.0.0.1", 0)

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.port}/api/v2"

    async def look(
        self,
        chooser: Chooser | None = None,
        client_id: str | None = "trader",
        secret: str = SECRET,
        grant: str = "client_signature",
        **changes: Any,
    ) -> list[Finding]:
        key = None if client_id is None else Key(client_id, secret, grant, random.Random(1))
        room = DeribitPreflight(name="deribit", network="testnet", base=self.base, key=key, wall_ns=time.time_ns)
        found = await room.look(wanted(chooser or Chooser([BTC]), **changes))
        assert SECRET not in repr(found)
        return found


@pytest.fixture
async def place(nursery: trio.Nursery) -> Place:
    made = Place(nursery)
    await made.start()
    return made


@pytest.mark.parametrize("grant", ["client_signature", "client_credentials"])
async def test_all_is_well(place: Place, grant: str) -> None:
    chooser = Chooser([BTC])
    found = await place.look(chooser, grant=grant)
    assert grades(found) == {
        "reach": ["ok"],
        "clock": ["ok"],
        "instruments": ["ok"],
        "tick": ["ok"],
        "fees": ["ok"],
        "login": ["ok"],
        "rights": ["ok"],
        "cancel_on_disconnect": ["ok"],
        "account": ["ok"],
        "budget": ["ok"],
        "maker_protection": ["ok"],
    }
    assert of(found, "login") == [("ok", "as trader")]
    assert of(found, "instruments") == [("ok", "1 to quote: BTC-PERPETUAL")]
    assert 1_000 < chooser.prices["BTC"] < 1_000_000
    assert len(chooser.listed) > 100


async def test_it_changes_nothing_and_opens_no_socket(place: Place) -> None:
    floor = place.sandbox.engine.floor
    await place.look(protections=(PROTECTION,))
    account = floor.accounts["trader"]
    assert not account.open_orders
    assert not account.protections
    assert not account.cancel_on_disconnect
    assert not place.sandbox.server.links


# --- reach and clock -----------------------------------------------------------------------------


async def test_nobody_there(place: Place) -> None:
    place.port = 1
    (only,) = await place.look()
    assert (only.check, only.grade.value) == ("reach", "fail")
    assert only.found.startswith("http://127.0.0.1:1/api/v2: ")


@pytest.mark.parametrize(("ahead_ms", "grade"), [(5000, "fail"), (-5000, "fail"), (300, "ok")])
async def test_a_clock_that_is_off(place: Place, ahead_ms: int, grade: str) -> None:
    place.sandbox.levers.shift_clock(ahead_ms)
    found = await place.look()
    ((found_grade, text),) = of(found, "clock")
    assert found_grade == grade
    assert f"ms {'behind' if ahead_ms > 0 else 'ahead of'} the exchange's" in text
    assert of(found, "login") == [("ok", "as trader")]  # it is signed by the exchange's clock


async def test_maintenance_is_what_it_says(place: Place) -> None:
    place.sandbox.levers.begin_maintenance()
    (only,) = await place.look()
    assert (only.check, only.grade.value) == ("reach", "fail")
    assert "system_maintenance (11051)" in only.found


async def test_a_lock_is_a_warning(place: Place) -> None:
    place.sandbox.levers.lock_platform("btc_usd")
    assert of(await place.look(), "status") == [("warn", "locked: btc_usd")]


# --- instruments ---------------------------------------------------------------------------------


async def test_what_is_not_listed_fails_and_what_has_expired_does_not(place: Place) -> None:
    chooser = Chooser([BTC, "BTC-25DEC20-60000-C", "BTC-25DEC99-60000-C"])
    found = await place.look(chooser)
    assert of(found, "instruments") == [("fail", "lists no BTC-25DEC99-60000-C"), ("ok", "1 to quote: BTC-PERPETUAL")]
    assert list(chooser.ends) == ["BTC-25DEC20-60000-C"]


async def test_figures_that_do_not_fit_the_grid(place: Place) -> None:
    improve = msgspec.structs.replace(PROFILE, style=Style.IMPROVE, improve_by=Decimal("0.7"))
    ((grade, text),) = of(await place.look(Chooser([BTC], improve)), "tick")
    assert (grade, text.partition(": ")[2]) == ("warn", "improve_by 0.7 counts as 0.5")
    narrow = msgspec.structs.replace(PROFILE, spread_bps=0.01)
    found = await place.look(Chooser([BTC], narrow))
    ((grade, text),) = of(found, "tick")
    assert grade == "warn"
    assert "less than a tick" in text


# --- the account ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("client_id", "secret"), [("trader", "wrong"), ("nobody", SECRET)])
async def test_a_key_that_is_not_taken(place: Place, client_id: str, secret: str) -> None:
    found = await place.look(client_id=client_id, secret=secret)
    assert of(found, "login") == [("fail", "public/auth: invalid_credentials (13004)")]
    assert "rights" not in grades(found)
    assert of(found, "instruments") == [("ok", "1 to quote: BTC-PERPETUAL")]


async def test_a_key_that_may_only_read(place: Place) -> None:
    found = await place.look(client_id="reader")
    assert of(found, "rights") == [("fail", "granted: connection mainaccount account:read trade:read")]
    assert of(found, "cancel_on_disconnect") == [("fail", "cannot be armed with this key")]
    assert grades(await place.look(client_id="reader", needs_cancel_on_disconnect=False))["cancel_on_disconnect"] == [
        "warn"
    ]


async def test_without_a_key_the_public_half_is_looked_at(place: Place) -> None:
    assert set(grades(await place.look(client_id=None))) == {"reach", "clock", "instruments", "tick", "fees"}


async def test_an_empty_account_is_a_warning(place: Place) -> None:
    assert of(await place.look(client_id="poor"), "account") == [("warn", "no BTC")]


async def test_many_symbols_want_more_than_the_budget(place: Place) -> None:
    everything = list(place.sandbox.engine.floor.listings)
    found = await place.look(Chooser([name for name in everything if name.startswith("BTC-")]))
    assert grades(found)["budget"] == ["warn"]


# --- maker protection ----------------------------------------------------------------------------


async def test_maker_protection_is_compared(place: Place) -> None:
    assert of(await place.look(protections=(PROTECTION,)), "maker_protection") == [
        ("ok", "btc_usd: nothing is set there")
    ]
    async with httpx.AsyncClient(base_url=place.base, auth=("trader", SECRET)) as client:
        params = {"index_name": "btc_usd", "interval": 5, "frozen_time": 60, "quantity_limit": 2}
        answer = await client.get("/private/set_mmp_config", params=params | {"max_quote_quantity": 2})
        assert answer.is_success
    assert of(await place.look(protections=(PROTECTION,)), "maker_protection") == [("ok", "btc_usd: as it is wanted")]
    place.sandbox.levers.trip_protection("trader", "btc_usd")
    assert of(await place.look(protections=(PROTECTION,)), "maker_protection")[0] == ("warn", "btc_usd: frozen now")
    more = msgspec.structs.replace(PROTECTION, max_quantity=Decimal(3))
    _, (grade, text) = of(await place.look(protections=(more,)), "maker_protection")
    assert grade == "ok"
    assert "quantity_limit is 2, wanted 3" in text


async def test_an_account_without_maker_protection(place: Place) -> None:
    found = await place.look(client_id="poor", protections=(PROTECTION,))
    assert of(found, "maker_protection") == [("fail", "btc_usd: private/get_mmp_config: mmp_required (13040)")]

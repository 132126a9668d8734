"""The daemon in one process, live, and the exchange in another: what each knows of the other's orders."""

from pathlib import Path
from typing import Any

import pytest
from house import Daemon, Exchange, Program, write_config

PERP = "BTC-PERPETUAL"


class Pair:
    """An exchange, and daemons that trade on it."""

    def __init__(self, folder: Path, programs: list[Program], exchange: Exchange) -> None:
        self.folder = folder
        self.programs = programs
        self.exchange = exchange
        exchange.account = folder.name

    def config(self, **changes: Any) -> Path:
        network = f'{{url: "{self.exchange.url}"}}'
        return write_config(self.folder / "mmd.yaml", network=network, mode="live", **changes)

    def daemon(self, **changes: Any) -> Daemon:
        daemon = Daemon(self.folder, self.config(**changes), env={"E2E_ID": self.exchange.account})
        self.programs.append(daemon)
        return daemon.ready()

    def place(self, side: str, price: float, label: str, amount: int = 10) -> str:
        """An order on the daemon's account that does not come from the daemon; its id."""
        placed = self.exchange.call(
            f"private/{side}",
            instrument_name=PERP,
            amount=amount,
            type="limit",
            price=price,
            label=label,
            post_only="true",
        )
        return str(placed["order"]["order_id"])

    def trade(self, side: str, amount: int) -> None:
        """Take from the market on the daemon's account."""
        placed = self.exchange.call(f"private/{side}", instrument_name=PERP, amount=amount, type="market")
        assert placed["trades"], placed


@pytest.fixture
def pair(tmp_path: Path, programs: list[Program], shared_exchange: Exchange) -> Pair:
    return Pair(tmp_path, programs, shared_exchange)


def known(daemon: Daemon) -> dict[str, tuple[str, float, float, str]]:
    """What the daemon says of its orders: side, price, size and label by id."""
    sides = {"bid": "buy", "ask": "sell"}
    return {
        line["order_id"]: (sides[line["side"]], line["price"], line["size"], line["label"])
        for line in daemon.ask("orders")["orders"]
    }


def resting(exchange: Exchange) -> dict[str, tuple[str, float, float, str]]:
    """The same of the exchange."""
    return {
        number: (order["direction"], order["price"], order["amount"] - order["filled_amount"], order["label"])
        for number, order in exchange.open_orders().items()
    }


def same_orders(daemon: Daemon, exchange: Exchange) -> bool:
    """Both say the same, twice: nothing was under way in between."""
    return known(daemon) == resting(exchange) == known(daemon)


def test_the_exchange_holds_exactly_the_orders_that_mmdctl_shows(pair: Pair) -> None:
    daemon, exchange = pair.daemon(), pair.exchange
    assert resting(exchange) == {}
    daemon.start_quoting()
    daemon.until(lambda: len(known(daemon)) == 4 and same_orders(daemon, exchange), "the same four orders")
    said = daemon.ctl("orders", PERP, "--json")
    assert (said.status, len(said.json["orders"])) == (0, 2)
    assert {line["phase"] for line in said.json["orders"]} == {"LIVE"}
    assert daemon.ctl("pause", PERP).status == 0  # returns once nothing of it rests
    assert {label.split("-")[2] for *_, label in resting(exchange).values()} == {"ETH"}
    assert daemon.ctl("halt", "all").status == 0
    assert resting(exchange) == {}
    assert daemon.stop() == 0


def test_a_reload_moves_only_what_changed_at_the_exchange(pair: Pair) -> None:
    daemon, exchange = pair.daemon(), pair.exchange
    daemon.start_quoting()
    before = daemon.until(lambda: same_orders(daemon, exchange) and resting(exchange), "all orders")
    config = pair.folder / "mmd.yaml"
    text = config.read_text()
    config.write_text(text.replace("  - {exchange: deribit, symbol: ETH-PERPETUAL, spread: wide}\n", ""))
    assert daemon.ctl("reload").status == 0
    daemon.until(lambda: len(resting(exchange)) == 2, "the removed symbol's orders to go")
    assert resting(exchange).items() <= before.items()
    daemon.until(lambda: list(daemon.symbols()) == [PERP], "the removed symbol to go")
    config.write_text(text)
    assert daemon.ctl("reload").status == 0
    assert daemon.states()["ETH-PERPETUAL"] == ("PAUSED", "startup")  # what is new waits for a word
    assert resting(exchange).items() <= before.items()
    daemon.start_quoting()
    daemon.until(lambda: len(known(daemon)) == 4 and same_orders(daemon, exchange), "all four orders again")
    assert {label for *_, label in before.values()} & {label for *_, label in resting(exchange).values()} == {
        label for *_, label in before.values() if PERP in label
    }
    assert daemon.stop() == 0
    assert resting(exchange) == {}


@pytest.mark.parametrize(
    "auto_resume",
    [pytest.param(False, id="by hand"), pytest.param(True, id="by itself", marks=pytest.mark.slow)],
)
def test_the_exchange_dies_and_comes_back(auto_resume: bool, tmp_path: Path, programs: list[Program]) -> None:
    pair = Pair(tmp_path, programs, Exchange(tmp_path))
    programs.append(pair.exchange)
    daemon = pair.daemon(auto_resume=auto_resume)
    daemon.start_quoting()
    pair.exchange.kill()
    lost = {("PAUSED", "exchange_disconnected")}
    daemon.until(lambda: set(daemon.states().values()) == lost, "both symbols paused")
    said = daemon.ctl("resume", "all", "--timeout", "1", "--json")
    assert (said.status, said.json["outcome"]) == (1, "refused")
    assert "trade_link" in said.json["symbols"][0]["detail"]
    exchange = Exchange(tmp_path, port=pair.exchange.port)
    exchange.account = pair.exchange.account
    programs.append(exchange)
    daemon.until(lambda: all(one["data_link"] and one["trade_link"] for one in daemon.status()["exchanges"]), "links")
    if auto_resume:
        daemon.until(daemon.quoting, "quotes by themselves")
        assert {why for _, why in daemon.states().values()} == {"auto_resumed"}
    else:
        daemon.until(lambda: all(not row["resting"] for row in daemon.symbols().values()), "the old orders' end")
        assert set(daemon.states().values()) == lost
        daemon.start_quoting()
    daemon.until(lambda: same_orders(daemon, exchange), "the same orders on both sides")
    assert daemon.stop() == 0
    assert resting(exchange) == {}


def test_a_daemon_killed_leaves_nothing_and_the_next_knows_the_position(pair: Pair) -> None:
    exchange = pair.exchange
    pair.trade("buy", 120)
    first = pair.daemon()
    assert first.symbols()[PERP]["position"] == 120
    first.start_quoting()
    pair.trade("sell", 50)  # on the same account, by somebody else
    first.until(lambda: first.symbols()[PERP]["position"] == 70, "the fill from elsewhere")
    first.kill()
    exchange.until(lambda: not resting(exchange), "cancel on disconnect")
    second = pair.daemon()
    assert set(second.states().values()) == {("PAUSED", "startup")}
    assert second.symbols()[PERP]["position"] == exchange.position(PERP) == 70
    assert second.stop() == 0


def test_orders_of_an_earlier_life_are_found_and_cancelled(pair: Pair) -> None:
    """Nothing cancelled them: they were placed over a connection that asks for no such thing."""
    exchange = pair.exchange
    ticker = exchange.call("public/ticker", instrument_name=PERP)
    low = round(ticker["mark_price"] * 0.99)
    strays = {
        pair.place("buy", low, f"mmd-e2e-{PERP}-b-abc123-1"),
        pair.place("buy", low - 1, f"mmd-e2e-{PERP}-b-abc123-2"),
    }
    unwatched = exchange.call(
        "private/buy",
        instrument_name="ETH-PERPETUAL",
        amount=1,
        type="limit",
        price=round(exchange.call("public/ticker", instrument_name="ETH-PERPETUAL")["mark_price"] * 0.99),
        label="mmd-e2e-ETH-PERPETUAL-b-abc123-3",
    )["order"]["order_id"]
    foreign = {pair.place("buy", low, "mmd-other-BTC-PERPETUAL-b-abc123-1"), pair.place("buy", low, "by-hand")}
    assert set(exchange.open_orders()) == {*strays, unwatched, *foreign}
    daemon = pair.daemon(symbols=[PERP])
    daemon.until(lambda: set(exchange.open_orders()) == foreign, "the strays' end")
    found = [event["detail"] for event in daemon.events("order.stray")]
    assert len(found) == 2
    daemon.start_quoting()
    daemon.until(lambda: set(exchange.open_orders()) - foreign == set(known(daemon)), "only orders that it knows")
    assert daemon.stop() == 0
    assert set(exchange.open_orders()) == foreign  # what is not ours is not touched


@pytest.mark.slow
def test_a_stray_that_appears_while_it_runs_is_not_left_after_a_restart(pair: Pair) -> None:
    """The daemon dies; its label rests on another connection, as another order: somebody uses our name."""
    exchange = pair.exchange
    daemon = pair.daemon(symbols=[PERP])
    rows = daemon.start_quoting()
    label, price = rows[PERP]["bid"]["label"], rows[PERP]["bid"]["price"]
    daemon.kill()
    exchange.until(lambda: not exchange.open_orders(), "cancel on disconnect")
    pair.place("buy", price, label)
    again = pair.daemon(symbols=[PERP])
    again.until(lambda: not exchange.open_orders(), "the stray's end")
    again.until(lambda: again.symbols()[PERP]["resting"] == 0, "nothing of ours")
    assert again.symbols()[PERP]["state"] == "HALTED"
    (case,) = again.ask("cases", symbols=["all"], closed=False)["cases"]
    assert (case["kind"], case["subject"]) == ("orders", label)
    again.until(lambda: again.ask("reset", symbols=["all"], reason="seen")["outcome"] == "done", "reset")
    assert again.ask("accept", number=case["number"], reason="it was us")["outcome"] == "done"
    again.start_quoting()
    assert again.stop() == 0
    assert exchange.open_orders() == {}

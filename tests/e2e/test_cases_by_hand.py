"""A case from end to end: found by a daemon after a crash, kept by the next one, accepted by an operator."""

from pathlib import Path

from house import Daemon, Exchange, Program, write_config

PERP = "BTC-PERPETUAL"
STRANGER = "mmd-desk-BTC-PERPETUAL-b-t4k2x-1"


def test_an_order_that_no_journal_knows_keeps_its_symbol_until_it_is_accepted(
    tmp_path: Path, programs: list[Program]
) -> None:
    exchange = Exchange(tmp_path)
    programs.append(exchange)
    network = f'{{url: "{exchange.url}"}}'
    config = write_config(tmp_path / "mmd.yaml", network=network, mode="live", service="desk")

    def started() -> Daemon:
        daemon = Daemon(tmp_path, config)
        programs.append(daemon)
        return daemon.ready()

    daemon = started()
    daemon.start_quoting()
    daemon.kill()
    order = {"instrument_name": PERP, "amount": 10, "type": "limit", "price": 30000, "post_only": "true"}
    exchange.call("private/buy", label=STRANGER, **order)

    daemon = started()
    (case,) = daemon.ask("cases")["cases"]
    assert (case["number"], case["kind"], case["subject"], case["state"]) == (1, "orders", STRANGER, "open")
    assert (case["ours"], case["theirs"]) == ("not in the journal", "bid 10 at 30000.0")
    daemon.until(lambda: exchange.open_orders() == {}, "everything that rested to be cancelled")
    refused = daemon.ctl("resume", "all")
    assert refused.status == 1 and "no_open_cases" in refused.out
    assert daemon.states()["ETH-PERPETUAL"] == ("ACTIVE", "resumed")
    daemon.kill()

    daemon = started()  # nothing of it rests any more, and still it is not forgotten
    assert daemon.ask("cases")["cases"] == [case]
    assert [alert["name"] for alert in daemon.ask("alerts")["alerts"]] == ["MmdReconciliation"]
    assert daemon.ctl("accept", "1").status == 2
    accepted = daemon.ctl("accept", "1", "--reason", "a script of ours, ticket 4711")
    assert accepted.status == 0 and "nothing is resumed" in accepted.out
    assert daemon.states()[PERP] == ("PAUSED", "startup")
    daemon.start_quoting()
    (closed,) = daemon.ask("cases", closed=True)["cases"]
    assert (closed["state"], closed["reason"]) == ("accepted", "a script of ours, ticket 4711")
    assert daemon.ask("cases")["cases"] == [] == daemon.ask("alerts")["alerts"]
    assert daemon.stop() == 0

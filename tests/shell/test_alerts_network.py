"""Alerts over real sockets: loopback servers, a port where nobody listens, one that never answers, an Alertmanager.

Time runs ten times as fast as on the wall, so that pauses before a retry cost little.
"""

import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import httpx
import pytest
import trio
from alert_kit import SERVICE, House, Post, Server, webhook
from trio.testing import MockClock

from mmd.config.model import WebhookFormat
from mmd.config.secrets import Secret, Source

PATIENCE_SECONDS = 200.0  # of the quick clock
ALERTMANAGER = "prometheus-alertmanager"


@pytest.fixture
async def server(mock_clock: MockClock) -> AsyncIterator[Server]:
    mock_clock.rate = 10.0
    server = Server()
    async with trio.open_nursery() as nursery:
        await nursery.start(server.run)
        yield server
        nursery.cancel_scope.cancel()


async def next_post(server: Server) -> Post:
    with trio.fail_after(PATIENCE_SECONDS):
        return await server.posts.receive()


async def delivered(house: House) -> None:
    with trio.fail_after(PATIENCE_SECONDS):
        await house.alerts.wait_delivered()


async def failed(house: House, name: str) -> None:
    """Return once a post to this webhook has failed."""
    with trio.fail_after(PATIENCE_SECONDS):
        while not house.posts_of(name).get("failed"):
            await trio.lowlevel.checkpoint()


def free_port() -> int:
    """A port where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def test_an_alert_and_its_end_arrive_over_one_connection(
    mock_clock: MockClock, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MMD_TOKEN", "bearer-of-news")
    house = House()
    house.configure(webhook(url=server.url, bearer=Secret(Source.ENV, "MMD_TOKEN")))
    async with house.running():
        house.fire(symbol="A")
        first = await next_post(server)
        await delivered(house)
        house.alerts.clear("MmdTest", symbol="A")
        second = await next_post(server)
        await delivered(house)
    assert (first.body["status"], second.body["status"]) == ("firing", "resolved")
    assert first.headers["authorization"] == "Bearer bearer-of-news"
    assert first.headers["content-type"] == "application/json"
    assert house.posts_of("pager") == {"delivered": 2}


@pytest.mark.parametrize("status", [500, 503, 429])
async def test_a_failure_is_tried_again(mock_clock: MockClock, server: Server, status: int) -> None:
    server.script = [(status, {}), (status, {"connection": "close"})]
    house = House()
    house.configure(webhook(url=server.url))
    async with house.running():
        house.fire()
        posts = [await next_post(server) for _ in range(3)]
        await delivered(house)
    assert posts[0].body == posts[1].body == posts[2].body
    assert house.posts_of("pager") == {"failed": 2, "delivered": 1}


@pytest.mark.parametrize(
    "lines", [pytest.param(0, id="nothing"), pytest.param(10, id="a little"), pytest.param(500_000, id="a lot")]
)
async def test_whatever_is_answered_is_taken(mock_clock: MockClock, server: Server, lines: int) -> None:
    server.lines = lines
    house = House()
    house.configure(webhook(url=server.url))
    async with house.running():
        for name in ("A", "B"):
            house.fire(name)
            assert (await next_post(server)).names == [name]
            await delivered(house)
    assert house.posts_of("pager") == {"delivered": 2}


async def test_a_refusal_is_not(mock_clock: MockClock, server: Server) -> None:
    server.script = [(400, {})]
    house = House()
    house.configure(webhook(url=server.url))
    async with house.running():
        house.fire("A")
        await next_post(server)
        await delivered(house)
        house.fire("B")
        assert (await next_post(server)).names == ["B"]
        await delivered(house)
    assert house.posts_of("pager") == {"refused": 1, "delivered": 1}


async def test_a_receiver_that_comes_up_later_is_told(mock_clock: MockClock, server: Server) -> None:
    port = free_port()
    late = Server()
    house = House()
    house.configure(webhook("late", f"http://127.0.0.1:{port}/"), webhook("pager", server.url))
    async with trio.open_nursery() as nursery, house.running():
        house.fire()
        await next_post(server)  # nobody waits for the one that is not there
        await failed(house, "late")
        await nursery.start(late.run, port)
        assert (await next_post(late)).names == ["MmdTest"]
        await delivered(house)
        nursery.cancel_scope.cancel()
    assert house.posts_of("late")["delivered"] == 1


async def test_one_that_accepts_and_never_answers_delays_nobody(mock_clock: MockClock, server: Server) -> None:
    with socket.create_server(("127.0.0.1", 0)) as dead:
        house = House()
        house.configure(webhook("dead", f"http://127.0.0.1:{dead.getsockname()[1]}/"), webhook("pager", server.url))
        async with house.running():
            for name in ("A", "B", "C"):
                began = time.perf_counter()
                house.fire(name)
                assert time.perf_counter() - began < 0.05
                assert (await next_post(server)).names == [name]
            assert house.counters.webhook("dead").waiting == 3
            await failed(house, "dead")


@pytest.mark.parametrize(
    "url",
    [
        pytest.param("http://" + "a" * 70 + ".test/", id="a name that cannot be"),
        pytest.param("https://127.0.0.1:{port}/", id="no TLS where TLS should be"),
    ],
)
async def test_what_cannot_work_fails_and_is_counted(mock_clock: MockClock, server: Server, url: str) -> None:
    house = House()
    house.configure(webhook(url=url.format(port=server.port)))
    async with house.running():
        house.fire()
        await failed(house, "pager")


async def test_a_certificate_that_nobody_signed_is_not_believed(mock_clock: MockClock, tmp_path: Path) -> None:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed: TLS goes untested")
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    request = [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", certificate]
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    await trio.run_process([*request, "-days", "2", *names], capture_stdout=True, capture_stderr=True)
    mock_clock.rate = 10.0
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    house = House()
    async with trio.open_nursery() as nursery:
        listeners = await trio.open_ssl_over_tcp_listeners(0, context, host="127.0.0.1")

        async def handshake(stream: trio.SSLStream[trio.SocketStream]) -> None:
            with pytest.raises(trio.BrokenResourceError):
                await stream.receive_some(1)

        nursery.start_soon(trio.serve_listeners, handshake, listeners)
        port = listeners[0].transport_listener.socket.getsockname()[1]
        house.configure(webhook(url=f"https://127.0.0.1:{port}/"))
        async with house.running():
            house.fire()
            await failed(house, "pager")
        nursery.cancel_scope.cancel()
    assert "delivered" not in house.posts_of("pager")


async def test_an_alertmanager_takes_what_we_post(tmp_path: Path) -> None:
    program = shutil.which(ALERTMANAGER)
    if program is None:
        pytest.skip(f"{ALERTMANAGER} is not installed (Debian package {ALERTMANAGER}): its format goes unchecked")
    config = tmp_path / "alertmanager.yml"
    config.write_text("route: {receiver: nobody}\nreceivers: [{name: nobody}]\n")
    address = f"127.0.0.1:{free_port()}"
    command = [program, f"--config.file={config}", f"--storage.path={tmp_path}/data", "--cluster.listen-address="]
    house = House(wall_ns=time.time_ns)  # an alert that begins in the future would be refused
    hook = webhook(url=f"http://{address}/api/v2/alerts", form=WebhookFormat.ALERTMANAGER)
    house.configure(hook, labels={"team": "quant"})
    async with trio.open_nursery() as nursery:
        quiet = partial(trio.run_process, check=False, stderr=subprocess.DEVNULL)
        nursery.start_soon(quiet, [*command, f"--web.listen-address={address}"])
        async with httpx.AsyncClient(base_url=f"http://{address}", trust_env=False) as client, house.running():
            house.fire("A", exchange="deribit", symbol="BTC-PERPETUAL")
            house.fire("B")
            with trio.fail_after(30):
                await house.alerts.wait_delivered()
            found = {row["labels"]["alertname"]: row for row in (await client.get("/api/v2/alerts")).json()}
            house.alerts.clear("B")
            with trio.fail_after(30):
                await house.alerts.wait_delivered()
            left = [row["labels"]["alertname"] for row in (await client.get("/api/v2/alerts")).json()]
        nursery.cancel_scope.cancel()
    assert found.keys() == {"A", "B"}
    assert found["A"]["labels"] == {
        "alertname": "A",
        "severity": "critical",
        "service": SERVICE,
        "exchange": "deribit",
        "symbol": "BTC-PERPETUAL",
        "team": "quant",
    }
    assert found["A"]["annotations"] == {"summary": "too much", "description": "5 > 3", "runbook": "look at it"}
    assert found["A"]["generatorURL"] == "mmd://mm1/deribit/BTC-PERPETUAL"
    assert left == ["A"]  # the end arrived as well
    assert "refused" not in house.posts_of("pager")

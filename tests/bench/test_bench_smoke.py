"""The benchmark programs run, and their stop-watch measures what it says."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench import derive, latency, micro, report
from bench.frames import FrameReader, frame, unmask
from bench.peer import Feed, Progress
from bench.processes import bare, peer
from bench.venue import Account, Market
from mmd.domain.events import BookTop
from mmd.exchanges.deribit.book import L2Book
from mmd.exchanges.deribit.codec import decode_book

ROOT = Path(__file__).parents[2]


def test_the_peers_book_is_whole_and_moves_by_a_dollar() -> None:
    stage = micro.Stage()
    market, book = Market("BTC-PERPETUAL"), L2Book(stage.instrument)
    top = book.apply(decode_book(micro.data_of(market.snapshot())), 0)
    for _ in range(500):
        top = book.apply(decode_book(micro.data_of(market.advance())), 0)
        assert isinstance(top, BookTop)
        assert (top.bids[0][0] + top.asks[0][0]) == 4 * market.mid  # two prices, two ticks a dollar
        assert len(book.bids) == len(book.asks) == 100


def test_frames_survive_any_cut() -> None:
    class Nobody:
        def sendall(self, data: bytes) -> None:
            raise AssertionError("there was no ping")

    masked = b""
    texts = [b"x" * size for size in (0, 5, 125, 126, 70_000)]
    for text in texts:
        plain = frame(text)
        head = plain[: len(plain) - len(text)]
        masked += bytes((head[0], head[1] | 0x80)) + head[2:] + b"mask" + unmask(text, b"mask")
    for step in (1, 7, 1000, len(masked)):
        reader = FrameReader(Nobody())  # type: ignore[arg-type]  # only its sendall is used
        got = [text for at in range(0, len(masked), step) for text in reader.feed(masked[at : at + step])]
        assert got == texts


def test_an_order_answers_the_oldest_update_that_it_can_mean() -> None:
    progress = Progress(Account(["X"]).markets["X"])
    for sample, mid in enumerate([100, 101, 100]):
        progress.note(mid, sample, sample)
    assert progress.find(100) == 0
    progress.answered = 2
    assert progress.find(100) == 2
    assert progress.find(99) is None


def test_an_update_without_an_answer_is_late_for_ever() -> None:
    feed = Feed([1.0] * 98 + [None, None], updates=100)
    assert latency.p99(feed.times_us) == float("inf")
    assert latency.block(feed, 1.0).answered == 0.98


def test_every_step_of_a_tick_takes_some_time() -> None:
    steps = micro.measure(repeats=1)
    assert all(getattr(steps, name) > 0 for name in steps.__struct_fields__ if name != "pump")
    assert steps.tick_path > steps.decide


def test_signing_is_a_part_of_tick_to_order_on_derive() -> None:
    found = derive.measure(20)
    assert set(found.steps) == set(derive.STEPS) and all(taken > 0 for taken in found.steps.values())
    assert found.tick.p50 <= found.tick.p99
    assert 0 < found.share < 1


def test_the_peer_measures_the_script() -> None:
    with peer(1) as exchange, bare(exchange.port):
        exchange.orders("bare", 2)
        feed = exchange.feed("bare", 500, 0.2)
    assert feed.updates == 100
    assert 200 <= feed.orders <= 202  # the two that answer the snapshot may come late
    assert all(time is not None and time > 0 for time in feed.times_us)


@pytest.mark.slow
def test_the_whole_benchmark(tmp_path: Path) -> None:
    out = tmp_path / "bench.json"
    command = [sys.executable, "-m", "bench", "--quick", "--json", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found = json.loads(out.read_text())
    assert set(found) == set(report.Report.__struct_fields__)
    assert found["load"]["answered"] > 0.9
    assert found["tick_to_order"]["mmd"]["pairs_in_one_read"] > 0.9
    assert max(len(line) for line in done.stdout.splitlines()) <= 100

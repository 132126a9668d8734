"""What one seed draws for `killing.py`, the exchange and configuration that it is done to, what a round has to say.

Every round: at which moment, how long after its beginning, whether what is left rests on, how often it is
traded with while nobody is there, and whether `mmd reap` comes first.
"""

import os
import random
from dataclasses import dataclass
from enum import StrEnum

from house import ENTRIES

from mmd.sandbox.derive.known import SUBACCOUNT

CONFIG = """\
version: 1
service: {{name: e2e, mode: live, metrics: {{listen: "127.0.0.1:0"}}}}
exchanges:
{entry}
market_data: {{stale_seconds: 30, max_jump_bps: 100000, max_jump_ticks: 100000}}
spreads:
  perp: {{style: around, spread_bps: {width}, band_bps: 1000, size: {size}, tolerance_bps: 0.3, refresh_seconds: 0.1}}
  option: {{style: around, spread_bps: 400, band_bps: 8000, size: 0.5, tolerance_bps: 20, refresh_seconds: 0.1,
    requote: replace}}
instruments:
  - {{exchange: {exchange}, symbol: {perp}, spread: perp}}
{other}  - {{exchange: {exchange}, symbol: {option}, spread: option}}
limits:
  per_symbol: {{max_position: {max_position}, max_order_size: 1000, collar_bps: 2000, max_fills: 100000,
    max_rejects: 1000}}
  per_kind: {{option: {{max_position: 20, max_order_size: 1, collar_bps: 20000}}}}
  portfolio: {{max_exposure: {{BTC: 200, ETH: 500}}, max_notional_usd: 500000000, max_drawdown_usd: 500000}}
kill_switches: {{ack_timeout: {{max_timeouts: 1000}}, disconnect_storm: {{max_disconnects: 1000}}}}
reconciliation: {{interval_seconds: 2}}
journal: {{segment_mib: 0.25, reserve_mib: 1, fsync: {fsync}}}
"""


@dataclass(frozen=True, kw_only=True)
class Spoken:
    """What of all this hangs on the exchange. `other`: the perpetual that is left out now and then."""

    exchange: str
    account: str
    coin: str
    perp: str
    other: str
    other_size: str
    sizes: tuple[str, str]
    max_position: str
    by_hand: str
    network: str
    # An order is shown under its label, because its id changes with every replace; and a connection's end
    # cancels the orders of the whole wallet.
    derive: bool = False

    def config(self, *, url: str, generation: int, option: str, fsync: str) -> str:
        """Different each time; every third has a symbol less."""
        entry = ENTRIES[self.exchange].format(network=self.network.format(url=url)).rstrip()
        other = f"  - {{exchange: {self.exchange}, symbol: {self.other}, spread: perp{self.other_size}}}\n"
        return CONFIG.format(
            entry=entry,
            exchange=self.exchange,
            perp=self.perp,
            other="" if generation % 3 == 2 else other,
            option=option,
            width=(6, 8, 10)[generation % 3],
            size=self.sizes[generation % 2],
            max_position=self.max_position,
            fsync=fsync,
        )

    def shown(self, order_id: str, label: str) -> str:
        """The id under which the daemon shows an order of ours."""
        return label if self.derive else order_id

    def mark(self, trade_id: str, order_id: str, side: str) -> tuple[str, str]:
        """One execution of one order; `side`: bid or ask. No two orders of ours meet in one trade on one side."""
        return trade_id, side if self.derive else order_id


DERIBIT = Spoken(
    exchange="deribit",
    account="killing",
    coin="BTC",
    perp="BTC-PERPETUAL",
    other="ETH-PERPETUAL",
    other_size="",
    sizes=("100", "150"),
    max_position="100000",
    by_hand="50",
    network='{{url: "{url}"}}',
)
DERIVE = Spoken(
    exchange="derive",
    account=str(SUBACCOUNT),
    coin="ETH",
    perp="ETH-PERP",
    other="BTC-PERP",
    other_size=", size: 0.05",
    sizes=("1", "1.5"),
    max_position="200",
    by_hand="1",
    network='{{url: "{url}", chain: mainnet}}',
    derive=True,
)
SPOKEN = {spoken.exchange: spoken for spoken in (DERIBIT, DERIVE)}


class Moment(StrEnum):
    """In the middle of what it is killed."""

    START = "start-up"
    RESUME = "resume"
    TRADE = "trading"
    SNAPSHOT = "snapshots"
    RELOAD = "reload"
    HALT = "halt"
    STOP = "stop"


# The longest wait between the beginning of it and the signal.
WINDOW_SECONDS = {
    Moment.START: 3.5,
    Moment.RESUME: 0.1,
    Moment.TRADE: 0.1,
    Moment.SNAPSHOT: 0.02,
    Moment.RELOAD: 0.25,
    Moment.HALT: 0.05,
    Moment.STOP: 0.15,
}
DECK = (*Moment, Moment.TRADE, Moment.START, Moment.RELOAD)  # some more often than others


@dataclass(frozen=True, kw_only=True)
class Draw:
    """One round as the seed has it."""

    number: int
    moment: Moment
    share: float  # of the moment's window
    kept: bool  # cancel-on-disconnect is without effect
    dead_hits: int  # so often what rests is traded with while nobody is there
    pace: float  # trades with our orders a second, while the next life begins
    by_hand: bool  # a person trades on the account meanwhile
    reap: bool
    requests_ms: int  # how late requests arrive, and answers
    answers_ms: int
    outlive_ms: int  # orders of the last moments arrive so much later; 0: with the others
    fills: int  # to wait for in this life


def draws(seed: str, count: int) -> list[Draw]:
    """Every moment about as often as the deck has it, half of the rounds with orders left over.

    Of these every third is reaped, of the others every eighth.
    """
    drawn, deck = random.Random(seed), list[Moment]()
    kept = [number % 2 == 0 for number in range(count)]
    reaps = [number % (6 if number % 2 == 0 else 16) in (0, 1) for number in range(count)]
    both = drawn.sample(list(zip(kept, reaps, strict=True)), count)
    rounds = []
    for number in range(count):
        if not deck:
            deck = drawn.sample(DECK, len(DECK))
        late = drawn.choice([(0, 0), (0, 0), (drawn.randint(5, 80), 0), (0, drawn.randint(5, 80))])
        rounds.append(
            Draw(
                number=number,
                moment=deck.pop(),
                share=drawn.random(),
                kept=both[number][0],
                dead_hits=drawn.choice([0, 1, 2, 4]),
                pace=drawn.choice([0.0, 3.0, 10.0]),
                by_hand=drawn.random() < 0.15,
                reap=both[number][1],
                requests_ms=late[0],
                answers_ms=late[1],
                outlive_ms=drawn.choice([0, drawn.randint(100, 1900), drawn.randint(1200, 1900)]),
                fills=drawn.choice([1, 2, 4]),
            )
        )
    return rounds


@dataclass
class Seen:
    """What happened in one round."""

    draw: Draw
    alive: int = 0  # executions until the kill
    dead: int = 0  # between the kill and the next word of a daemon
    starting: int = 0  # while the next life began
    outlived: int = 0  # requests that arrived after the one who sent them was dead
    left: int = 0  # orders of ours that rested after the kill
    reaped: int = 0
    seconds: float = 0.0


def chosen_seed(usual: str) -> str:
    """The usual one; with MMD_RANDOM=1 another each time, with any other value of it that one."""
    wanted = os.environ.get("MMD_RANDOM", "")
    return usual if not wanted else str(random.SystemRandom().randrange(10**9)) if wanted == "1" else wanted

"""The seeded generator: a market that lives by itself, deterministic given its seed and the times of its steps.

Every wanted instrument has makers that requote around the fair price, takers that trade, and a
reference that is published several times a second. All of them are events on one heap. What
nobody wants costs nothing but a slow round of reference updates.
"""

import heapq
import math
import random
from collections import deque
from collections.abc import Callable, Mapping
from decimal import Decimal
from functools import partial

import msgspec

from mmd.sandbox.flow import FlowStyle, Takers
from mmd.sandbox.makers import Levels, Makers, MakerStyle
from mmd.sandbox.model import InstrumentState, Reference, SandboxInstrument, Trade, Venue
from mmd.sandbox.pricing import Model, OptionModel, rounded, usd_digits, widest_tick
from mmd.sandbox.world import IndexPath, World


class GeneratorSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Rates are events per second, times milliseconds, amounts USD."""

    # Multiplies all taker rates: how fast money changes hands.
    intensity: float = 1.0
    perpetual_book_hz: float = 15.0
    future_book_hz: float = 4.0
    option_book_hz: float = 2.0
    # Beyond so many wanted instruments the rates of each fall: the whole stays affordable.
    full_rate_instruments: int = 300
    reference_ms: int = 450
    index_ms: int = 1_000
    idle_ms: int = 250
    idle_batch: int = 4
    # What informed takers of futures know in advance.
    lead_ms: int = 4_500
    # Makers of options believe a piece of news only after this long.
    news_ms: int = 700
    # Late events further back than this are not made up for.
    catch_up_ms: int = 2_000
    maker_usd: float = 20_000.0
    taker_usd: float = 2_000.0
    option_maker_usd: float = 150_000.0
    option_taker_usd: float = 15_000.0
    # Half-width of the makers: futures in bps of the price (never under half a tick), options in volatility points.
    future_half_bps: float = 0.5
    option_half_points: float = 1.0


PERPETUAL_FLOW = FlowStyle(
    noise_hz=0.45, informed_hz=1.2, near_halves=4.0, patience_halves=2.0, sweep_share=0.2, sweep_bps=16.0,
    news_halves=0.0, news_keep=0.0, median_lots=1.0, spread_lots=1.0,
)  # fmt: skip
FUTURE_FLOW = msgspec.structs.replace(PERPETUAL_FLOW, noise_hz=0.15, informed_hz=0.2)
OPTION_FLOW = FlowStyle(
    noise_hz=0.15, informed_hz=0.15, near_halves=0.6, patience_halves=0.7, sweep_share=0.0, sweep_bps=0.0,
    news_halves=0.75, news_keep=0.5, median_lots=1.0, spread_lots=0.8,
)  # fmt: skip

# Average of the index over the last half hour before delivery, sampled so often.
DELIVERY_WINDOW_MS = 1_800_000
SAMPLE_MS = 10_000
OFFSET_LIMIT_HALVES = 2.0
# How much of what the makers believe the exchange's mark follows.
BELIEF_IN_MARK = 0.7
# Makers come back so soon after somebody traded, ms.
REFILL_MS = (20, 80)


class Life:
    """One instrument that somebody wanted: its model, its makers and takers, its own randomness."""

    def __init__(
        self, instrument: SandboxInstrument, model: Model, settings: GeneratorSettings, seed: int, index: float
    ) -> None:
        self.name = instrument.instrument_name
        self.instrument = instrument
        self.model = model
        self.rng = random.Random(f"{seed}/{self.name}")
        self.tick = float(instrument.tick_size)
        self.option = isinstance(model, OptionModel)
        flow, maker, self.book_hz = styles(instrument, settings, index)
        self.flow = flow
        self.makers = Makers(instrument, maker, self.rng)
        self.takers = Takers(self.name, flow, self.makers, self.rng)
        # Books differ: some instruments are made a little wider than others.
        self.width = math.exp(0.25 * self.rng.gauss(0.0, 1.0)) if self.option else 1.0
        self.step_ticks = float(widest_tick(instrument)) / self.tick
        self.recorded: Reference | None = None  # while a recording speaks for it

    def fair_ticks(self, now_ms: int) -> float:
        """What it is worth, by the makers' model or by the recording."""
        if self.recorded is not None:
            return float(self.recorded.mark_price) / self.tick
        return self.model.worth(self.model.asset.price, now_ms) / self.tick

    def size_makers(self, settings: GeneratorSettings, mark: float) -> None:
        """The half-width of the makers, from what the last reference said."""
        ticks = mark / self.tick
        if self.option:
            step = self.makers.grid.step_at(ticks)
            wanted = settings.option_half_points * self.model.vega * self.width / self.tick
            self.makers.half_ticks = max(wanted, 0.7 * step)
        elif self.instrument.is_perpetual:
            self.makers.half_ticks = 0.6
        else:
            self.makers.half_ticks = max(0.7, settings.future_half_bps * 1e-4 * ticks)


Action = Callable[[Life, int], None]


class GeneratedMarket:
    """A `Market`. `recorded` and `paths` let the world start from, and first follow, a recording."""

    def __init__(
        self,
        instruments: Mapping[str, SandboxInstrument],
        seed: int,
        settings: GeneratorSettings,
        recorded: Mapping[str, Reference] | None = None,
        paths: Mapping[str, IndexPath] | None = None,
    ) -> None:
        self._instruments = dict(instruments)
        self._seed = seed
        self._settings = settings
        self._recorded = dict(recorded or {})
        self._paths = dict(paths or {})
        self._lives: dict[str, Life] = {}
        self._wanted: dict[str, None] = {}
        self._delivered: set[str] = set()
        self._heap: list[tuple[int, int, Callable[[int], None]]] = []
        self._count = 0
        self._published: dict[str, float] = {}  # indices as last published
        self._samples: dict[str, deque[tuple[int, float]]] = {}
        self._pinned_until = {path.index_name: path.times_ms[-1] for path in self._paths.values()}
        self._idle: deque[str] = deque(self._instruments)

    # --- the Market protocol ---------------------------------------------------------------------

    def instruments(self) -> list[SandboxInstrument]:
        return list(self._instruments.values())

    def start(self, venue: Venue, now_ms: int) -> None:
        self._venue = venue
        self._world = World(self._instruments, self._seed, now_ms, self._recorded, self._paths)
        self._publish_indices(now_ms, everything=True)
        for name, model in self._world.models.items():
            reference = self._recorded.get(name) or model.reference(self._index(name), now_ms)
            venue.set_reference(name, reference, now_ms)
        self._at(now_ms + self._settings.index_ms, self._on_indices)
        self._at(now_ms + self._settings.idle_ms, self._on_idle)
        for expiry in sorted({one.expiration_timestamp for one in self._instruments.values() if not one.is_perpetual}):
            self._at(max(expiry, now_ms), partial(self._on_expiry, expiry))

    def want(self, name: str, now_ms: int) -> None:
        if name in self._wanted or name in self._delivered:
            return
        self._world.assets.advance(now_ms)
        life = self.life(name, now_ms)
        self._wanted[name] = None
        self._publish(life, now_ms)
        if life.recorded is None:
            bids, asks = self._venue.anonymous_levels(name)
            if bids or asks:
                self._requote(life, now_ms)
            else:
                bids, asks = life.makers.snapshot(life.fair_ticks(now_ms))
                self._venue.set_levels(name, bids, asks, now_ms, snapshot=True)
        self._after(self._settings.reference_ms, life, self._on_reference, now_ms)
        self._again(life, self._on_book, life.book_hz, now_ms)
        self._again(life, self._on_noise, life.flow.noise_hz * self._settings.intensity, now_ms)
        informed = self._on_news if life.option else self._on_informed
        self._again(life, informed, life.flow.informed_hz * self._settings.intensity, now_ms)

    def step(self, now_ms: int) -> int:
        earliest = now_ms - self._settings.catch_up_ms
        heap, assets = self._heap, self._world.assets
        while heap[0][0] <= now_ms:
            at, _, action = heapq.heappop(heap)
            at = max(at, earliest)
            assets.advance(at)
            action(at)
        assets.advance(now_ms)
        return heap[0][0]

    # --- for the replay of a recording -----------------------------------------------------------

    def life(self, name: str, now_ms: int) -> Life:
        """The instrument's life, begun if need be."""
        life = self._lives.get(name)
        if life is None:
            model = self._world.models[name]
            life = Life(self._instruments[name], model, self._settings, self._seed, model.asset.price)
            life.size_makers(self._settings, float(model.reference(self._index(name), now_ms).mark_price))
            self._lives[name] = life
        return life

    def is_delivered(self, name: str) -> bool:
        return name in self._delivered

    def hold(self, name: str, reference: Reference, now_ms: int) -> None:
        """The recording speaks for this instrument: publish what it says, leave its book alone."""
        self.life(name, now_ms).recorded = reference
        self.learn(name, reference, now_ms)
        self._venue.set_reference(name, reference, now_ms)

    def release(self, name: str, bids: Levels, asks: Levels, now_ms: int) -> None:
        """The recording of this instrument ended with this book: go on from there."""
        self._world.assets.advance(now_ms)
        life = self.life(name, now_ms)
        if life.recorded is not None:
            spot = life.model.asset.price
            life.model.calibrate(life.recorded, spot, now_ms)
            life.size_makers(self._settings, float(life.model.reference(spot, now_ms).mark_price))
            life.recorded = None
        life.makers.adopt(bids, asks, life.fair_ticks(now_ms))

    def learn(self, name: str, reference: Reference, now_ms: int) -> None:
        """Let the recorded forward of this expiry hold for the whole expiry."""
        self._world.learn(name, reference, now_ms)

    def publish_index(self, index_name: str, price: Decimal, now_ms: int) -> None:
        """A recorded index price."""
        if index_name in self._world.indices:
            self._published[index_name] = float(price)
            self._venue.set_index(index_name, price, now_ms)

    # --- events ----------------------------------------------------------------------------------

    def _at(self, at_ms: int, action: Callable[[int], None]) -> None:
        self._count += 1
        heapq.heappush(self._heap, (at_ms, self._count, action))

    def _after(self, wait_ms: int, life: Life, action: Action, now_ms: int) -> None:
        self._at(now_ms + wait_ms, lambda at: self._run(life, action, at))

    def _again(self, life: Life, action: Action, rate_hz: float, now_ms: int) -> None:
        """At the next arrival of a Poisson stream; the whole market shares what it can afford."""
        crowd = min(1.0, self._settings.full_rate_instruments / max(len(self._wanted), 1))
        rate_hz *= crowd
        if rate_hz > 0.0:
            self._after(max(1, round(1000.0 / rate_hz * life.rng.expovariate(1.0))), life, action, now_ms)

    def _run(self, life: Life, action: Action, now_ms: int) -> None:
        if life.name not in self._delivered:
            action(life, now_ms)

    def _on_reference(self, life: Life, now_ms: int) -> None:
        self._publish(life, now_ms)
        self._after(self._settings.reference_ms, life, self._on_reference, now_ms)

    def _on_book(self, life: Life, now_ms: int) -> None:
        self._requote(life, now_ms)
        self._again(life, self._on_book, life.book_hz, now_ms)

    def _on_noise(self, life: Life, now_ms: int) -> None:
        fair = life.fair_ticks(now_ms)
        if life.recorded is None:
            self._refill(life, life.takers.noise(self._venue, fair + life.makers.offset_ticks, now_ms), now_ms)
        else:
            life.takers.improved(self._venue, fair, now_ms)
        self._again(life, self._on_noise, life.flow.noise_hz * self._settings.intensity, now_ms)

    def _on_informed(self, life: Life, now_ms: int) -> None:
        """Takers of a future know its path a few seconds ahead."""
        if life.recorded is None:
            future = life.model.worth(life.model.asset.ahead(self._settings.lead_ms), now_ms) / life.tick
            self._refill(life, life.takers.informed(self._venue, future, now_ms), now_ms)
        self._again(life, self._on_informed, life.flow.informed_hz * self._settings.intensity, now_ms)

    def _on_news(self, life: Life, now_ms: int) -> None:
        """Somebody learns what the makers of an option will believe a moment later."""
        if life.recorded is None:
            makers, flow = life.makers, life.flow
            bound = OFFSET_LIMIT_HALVES * makers.half_ticks
            shock = makers.half_ticks * flow.news_halves * life.rng.gauss(0.0, 1.0)
            offset = min(max(flow.news_keep * makers.offset_ticks + shock, -bound), bound)
            acts = now_ms + round(life.rng.uniform(0.1, 0.9) * self._settings.news_ms)
            self._at(acts, lambda at: self._run(life, lambda life, at: self._on_insider(life, offset, at), at))
            believed = now_ms + self._settings.news_ms
            self._at(believed, lambda at: self._run(life, lambda life, at: self._on_believed(life, offset, at), at))
        self._again(life, self._on_news, life.flow.informed_hz * self._settings.intensity, now_ms)

    def _on_insider(self, life: Life, offset_ticks: float, now_ms: int) -> None:
        life.takers.informed(self._venue, life.fair_ticks(now_ms) + offset_ticks, now_ms)

    def _on_believed(self, life: Life, offset_ticks: float, now_ms: int) -> None:
        life.makers.offset_ticks = offset_ticks
        self._requote(life, now_ms)

    def _on_indices(self, now_ms: int) -> None:
        self._publish_indices(now_ms, everything=False)
        self._at(now_ms + self._settings.index_ms, self._on_indices)

    def _on_idle(self, now_ms: int) -> None:
        """A slow round over the references that nobody wants."""
        for _ in range(min(self._settings.idle_batch, len(self._idle))):
            name = self._idle[0]
            self._idle.rotate(-1)
            life = self._lives.get(name)
            if name not in self._wanted and (life is None or life.recorded is None):
                reference = self._world.models[name].reference(self._index(name), now_ms)
                self._venue.set_reference(name, reference, now_ms)
        self._at(now_ms + self._settings.idle_ms, self._on_idle)

    def _on_expiry(self, expiry_ms: int, now_ms: int) -> None:
        for name in [name for name, one in self._instruments.items() if one.expiration_timestamp == expiry_ms]:
            self._venue.set_state(name, InstrumentState.SETTLEMENT, now_ms)
            self._venue.deliver(name, self._delivery_price(name, expiry_ms), now_ms)
            self._delivered.add(name)
            self._wanted.pop(name, None)
            self._lives.pop(name, None)
            self._idle.remove(name)

    # --- doing it --------------------------------------------------------------------------------

    def _index(self, name: str) -> float:
        return self._published[self._instruments[name].price_index]

    def _publish(self, life: Life, now_ms: int) -> None:
        reference = life.recorded
        if reference is None:
            belief = BELIEF_IN_MARK * life.makers.offset_ticks * life.tick
            reference = life.model.reference(self._index(life.name), now_ms, belief)
            life.size_makers(self._settings, float(reference.mark_price))
        self._venue.set_reference(life.name, reference, now_ms)

    def _publish_indices(self, now_ms: int, *, everything: bool) -> None:
        for index_name, asset in self._world.indices.items():
            if everything or now_ms > self._pinned_until.get(index_name, 0):
                self._published[index_name] = asset.price
                self._venue.set_index(index_name, rounded(asset.price, usd_digits(asset.price)), now_ms)
        for index_name, price in self._published.items():
            samples = self._samples.setdefault(index_name, deque(maxlen=DELIVERY_WINDOW_MS // SAMPLE_MS))
            if not samples or now_ms - samples[-1][0] >= SAMPLE_MS:
                samples.append((now_ms, price))

    def _requote(self, life: Life, now_ms: int) -> None:
        if life.recorded is not None:
            return
        bids, asks = self._venue.anonymous_levels(life.name)
        bid_changes, ask_changes = life.makers.requote(bids, asks, life.fair_ticks(now_ms))
        if bid_changes or ask_changes:
            self._venue.set_levels(life.name, bid_changes, ask_changes, now_ms, snapshot=False)

    def _refill(self, life: Life, trades: list[Trade], now_ms: int) -> None:
        if trades:
            wait = life.rng.randint(*REFILL_MS)
            self._at(now_ms + wait, lambda at: self._run(life, self._requote, at))

    def _delivery_price(self, name: str, expiry_ms: int) -> Decimal:
        """Average of the published index over the half hour before expiry, as far as this market was alive."""
        samples = self._samples[self._instruments[name].price_index]
        window = [price for at, price in samples if expiry_ms - DELIVERY_WINDOW_MS <= at <= expiry_ms]
        average = sum(window) / len(window) if window else self._index(name)
        return rounded(average, usd_digits(average))


def styles(
    instrument: SandboxInstrument, settings: GeneratorSettings, index: float
) -> tuple[FlowStyle, MakerStyle, float]:
    """Takers, makers and book changes per second of this kind of instrument; `index` in USD."""
    lot = float(instrument.min_trade_amount)
    in_usd = instrument.kind == "future" and instrument.instrument_type == "reversed"
    lot_usd = lot if in_usd else lot * index
    if instrument.kind == "option":
        step = float(widest_tick(instrument) / instrument.tick_size)
        maker = MakerStyle(
            levels=5, spacing_ticks=3.0 * step, median_lots=settings.option_maker_usd / lot_usd, spread_lots=0.8
        )
        flow, rate, taker_usd = OPTION_FLOW, settings.option_book_hz, settings.option_taker_usd
    else:
        spacing = max(5e-4 * index / float(instrument.tick_size), 2.0)
        maker = MakerStyle(levels=14, spacing_ticks=spacing, median_lots=settings.maker_usd / lot_usd, spread_lots=0.8)
        perpetual = instrument.is_perpetual
        flow = PERPETUAL_FLOW if perpetual else FUTURE_FLOW
        rate = settings.perpetual_book_hz if perpetual else settings.future_book_hz
        taker_usd = settings.taker_usd
    return msgspec.structs.replace(flow, median_lots=taker_usd / lot_usd), maker, rate

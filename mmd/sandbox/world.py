"""The world behind a market: underlyings, expiries with carry and volatility, and a model for every instrument.

Where a recording says something (index, forward, implied volatility) the world starts from it;
elsewhere from neighbouring expiries, and last from the packaged table of assumptions.
"""

import math
from collections.abc import Iterable, Mapping
from statistics import median_low

import msgspec

from mmd.sandbox.assets import AssetAssumption, Assets, assumption, assumptions
from mmd.sandbox.model import Reference, SandboxInstrument
from mmd.sandbox.pricing import FutureModel, Model, OptionModel, Term
from mmd.sandbox.smile import Point, Surface, assumed, fit
from mmd.sandbox.universe import YEAR_MS, date_code

# Annual growth of the forward where no future was recorded.
ASSUMED_CARRY = 0.05
MIN_YEARS = 1_000 / YEAR_MS


class IndexPath(msgspec.Struct, frozen=True):
    """A recorded index, by its name: times in ms (rising) and prices in USD."""

    index_name: str
    times_ms: list[int]
    prices: list[float]


class World:
    """Everything that has a price, by name. `recorded`: the first recorded reference of some instruments."""

    def __init__(
        self,
        instruments: Mapping[str, SandboxInstrument],
        seed: int,
        now_ms: int,
        recorded: Mapping[str, Reference],
        paths: Mapping[str, IndexPath],
    ) -> None:
        self.instruments = instruments
        starts = starting_points(instruments.values(), paths)
        surfaces = {
            base: surface_of(base, start, instruments, recorded, now_ms) for base, start in sorted(starts.items())
        }
        self.assets = Assets(starts, seed, now_ms)
        for base, path in paths.items():
            if base in self.assets.by_base:
                self.assets.by_base[base].pin(path.times_ms, path.prices)
        for base, surface in surfaces.items():
            self.assets.by_base[base].volatility = surface.sigma_atm(30 / 365)
        self.assets.foresee()
        self.surfaces = surfaces
        self.terms = self._terms(recorded, now_ms)
        self.models = {name: self._model(instrument) for name, instrument in instruments.items()}
        self.indices = {one.price_index: self.assets.by_base[one.base_currency] for one in instruments.values()}

    def term(self, instrument: SandboxInstrument) -> Term:
        return self.terms[instrument.base_currency, instrument.expiration_timestamp]

    def learn(self, name: str, reference: Reference, now_ms: int) -> None:
        """Take the carry of this instrument's expiry from its recorded underlying price."""
        instrument = self.instruments[name]
        if reference.underlying_price and not instrument.is_perpetual:
            term = self.term(instrument)
            term.carry = carry(reference, term.years(now_ms))

    def _terms(self, recorded: Mapping[str, Reference], now_ms: int) -> dict[tuple[str, int], Term]:
        dated = sorted(
            {(one.base_currency, one.expiration_timestamp) for one in self.instruments.values() if not one.is_perpetual}
        )
        known: dict[str, dict[int, float]] = {}
        for name, reference in recorded.items():
            instrument = self.instruments[name]
            expiry = instrument.expiration_timestamp
            if reference.underlying_price and not instrument.is_perpetual:
                years = max((expiry - now_ms) / YEAR_MS, MIN_YEARS)
                known.setdefault(instrument.base_currency, {})[expiry] = carry(reference, years)
        terms: dict[tuple[str, int], Term] = {}
        for base, expiry in dated:
            years = max((expiry - now_ms) / YEAR_MS, MIN_YEARS)
            grown = neighbour(known.get(base, {}), expiry)
            terms[base, expiry] = Term(base, expiry, grown, self.surfaces[base].sigma_atm(years))
        return terms

    def _model(self, instrument: SandboxInstrument) -> Model:
        asset = self.assets.by_base[instrument.base_currency]
        if instrument.kind == "future":
            return FutureModel(instrument, asset, None if instrument.is_perpetual else self.term(instrument))
        term = self.term(instrument)
        stem = instrument.instrument_name.split("-", 1)[0]
        future = f"{stem}-{date_code(term.expiry_ms)}"
        underlying = future if future in self.instruments else f"SYN.{future}"
        return OptionModel(instrument, asset, term, self.surfaces[instrument.base_currency].shape, underlying)


def carry(reference: Reference, years: float) -> float:
    """Annual log growth from the index to the forward."""
    if not reference.underlying_price:
        return ASSUMED_CARRY
    return math.log(float(reference.underlying_price) / float(reference.index_price)) / years


def neighbour(known: Mapping[int, float], expiry: int) -> float:
    """The carry of the nearest known expiry."""
    if not known:
        return ASSUMED_CARRY
    return known[min(sorted(known), key=lambda other: abs(other - expiry))]


def starting_points(
    instruments: Iterable[SandboxInstrument], paths: Mapping[str, IndexPath]
) -> dict[str, AssetAssumption]:
    """Every coin's start: its recorded index, else the table's price, but one that its strikes surround."""
    table = assumptions()
    strikes: dict[str, dict[int, list[float]]] = {}
    bases: set[str] = set()
    for one in instruments:
        bases.add(one.base_currency)
        if one.strike is not None:
            strikes.setdefault(one.base_currency, {}).setdefault(one.expiration_timestamp, []).append(float(one.strike))
    starts: dict[str, AssetAssumption] = {}
    for base in sorted(bases):
        start = assumption(base, table)
        if base in paths:
            start = msgspec.structs.replace(start, price=paths[base].prices[0])
        elif base in strikes:
            nearest = strikes[base][min(strikes[base])]
            if not min(nearest) <= start.price <= max(nearest):
                start = msgspec.structs.replace(start, price=median_low(sorted(set(nearest))))
        starts[base] = start
    return starts


def surface_of(
    base: str,
    start: AssetAssumption,
    instruments: Mapping[str, SandboxInstrument],
    recorded: Mapping[str, Reference],
    now_ms: int,
) -> Surface:
    """Fitted to the recorded volatilities of this coin's options; assumed where there are none."""
    points = []
    for name, reference in sorted(recorded.items()):
        one = instruments[name]
        if one.base_currency == base and one.strike and reference.mark_iv and reference.underlying_price:
            years = (one.expiration_timestamp - now_ms) / YEAR_MS
            x = math.log(float(one.strike) / float(reference.underlying_price))
            if years > 0:
                points.append(Point(years, x, reference.mark_iv / 100))
    return fit(points) if points else assumed(start.volatility)

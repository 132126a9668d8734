"""Prometheus families in parts: small enough that the loop may turn between two of them."""

from collections.abc import Iterable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from mmd.shell.counters import Histogram

# A sample costs about 5 µs to make and write; between two parts the loop may quote.
SLICE_SAMPLES = 100

Row = tuple[tuple[str, ...], float | None]
"""Label values and the number; None leaves the series out."""


def number(value: object) -> float | None:
    """A price or size for display."""
    return None if value is None else float(str(value))


def gauge(name: str, text: str, labels: tuple[str, ...], rows: Iterable[Row]) -> Iterator[Metric]:
    """A family of gauges, in parts of at most SLICE_SAMPLES samples."""
    family = GaugeMetricFamily(f"mmd_{name}", text, labels=labels)
    for values, number in rows:
        if number is not None:
            family.add_metric(values, number)
            if len(family.samples) >= SLICE_SAMPLES:
                yield family
                family = GaugeMetricFamily(f"mmd_{name}", text, labels=labels)
    yield family


def counter(name: str, text: str, labels: tuple[str, ...], rows: Iterable[Row]) -> Iterator[Metric]:
    """A family of counters, in parts; `_total` is added to the name."""
    family = CounterMetricFamily(f"mmd_{name}", text, labels=labels)
    for values, number in rows:
        if number is not None:
            family.add_metric(values, number)
            if len(family.samples) >= SLICE_SAMPLES:
                yield family
                family = CounterMetricFamily(f"mmd_{name}", text, labels=labels)
    yield family


def histogram(
    name: str, text: str, labels: tuple[str, ...], rows: Iterable[tuple[tuple[str, ...], Histogram]]
) -> Iterator[Metric]:
    """A family of histograms, in parts, cumulative as the format wants it."""
    family = HistogramMetricFamily(f"mmd_{name}", text, labels=labels)
    for values, found in rows:
        running, buckets = 0, []
        for bound, number in zip((*map(repr, found.bounds), "+Inf"), found.counts, strict=True):
            running += number
            buckets.append((bound, running))
        family.add_metric(values, buckets, found.total)
        if len(family.samples) >= SLICE_SAMPLES:
            yield family
            family = HistogramMetricFamily(f"mmd_{name}", text, labels=labels)
    yield family

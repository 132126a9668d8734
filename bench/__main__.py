"""`python -m bench`: measure everything, print one table, optionally write JSON. Loopback only; about two minutes."""

import argparse
import sys
from pathlib import Path

import msgspec

from bench import latency, life, micro, report
from bench.processes import peer

SYMBOLS = 120


def measure(*, quick: bool) -> report.Report:
    """`quick` proves that the programs run; its figures mean nothing."""
    on = report.machine()
    with peer(SYMBOLS) as exchange:
        say("tick to order, in turns with the bare script")
        ticks = latency.tick_to_order(exchange, 2 if quick else 12, 0.2 if quick else 1.5)
        say("12,000 updates/s")
        loaded = latency.load(exchange, 0.5 if quick else 10.0)
        say("memory, start, reload")
        lived = life.measure(exchange, starts=1 if quick else 3)
    say("single steps")
    steps = micro.measure(repeats=2 if quick else 15)
    return report.Report(on, ticks, loaded, lived, steps)


def say(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--json", metavar="FILE", type=Path, help="write every figure there as well")
    parser.add_argument("--quick", action="store_true", help="only see that everything runs: the figures mean nothing")
    args = parser.parse_args()
    found = measure(quick=args.quick)
    print(report.table(found))
    if args.json is not None:
        args.json.write_bytes(msgspec.json.format(msgspec.json.encode(found)) + b"\n")


if __name__ == "__main__":
    main()

"""`python -m tests.soak`: hours of simulated trading in minutes; a line for each, then what grew and what did not."""

import argparse
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import msgspec
from soak_market import Pace
from soak_plan import Plan
from soak_report import HEAD, findings, journal_table, line, quote_bytes, summary
from soak_run import Sample, play
from soak_verdict import SLOPE_CYCLES, judge


def arguments() -> argparse.Namespace:
    plan, pace = Plan(), Pace()
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    add = parser.add_argument
    add(
        "--hours",
        type=float,
        default=plan.hours,
        help=f"simulated, default {plan.hours:g}; slopes from {SLOPE_CYCLES * plan.cycle_hours:g} on",
    )
    add("--symbols", type=int, default=plan.symbols, help=f"default {plan.symbols}")
    add("--books", type=float, default=pace.books, help=f"book changes a second and symbol, default {pace.books:g}")
    add("--marks", type=float, default=pace.marks, help=f"new marks a second and symbol, default {pace.marks:g}")
    add("--takers", type=float, default=pace.takers, help=f"takers a second and symbol, default {pace.takers:g}")
    add("--seed", type=int, default=plan.seed, help=f"default {plan.seed}")
    add("--young", action="store_true", help="begin with empty memories: they fill for days")
    add("--large", action="store_true", help="memories as large as in production: only some of them turn over")
    add("--every", type=float, default=0.5, help="simulated hours between two lines, default 0.5")
    add("--directory", type=Path, help="where the state is kept while it runs, default the system's for such things")
    add("--json", type=Path, help="write every sample there")
    return parser.parse_args()


def main() -> int:
    words = arguments()
    plan = Plan(
        hours=words.hours,
        symbols=words.symbols,
        pace=Pace(words.books, words.marks, words.takers),
        seed=words.seed,
        aged=not words.young,
        small=not words.large,
    )
    shown: list[Sample] = []

    def told(sample: Sample) -> None:
        if not shown:
            print(HEAD)
            shown.append(sample)
        elif sample.at_hours >= shown[-1].at_hours + words.every - 1e-9:
            print(line(shown[-1], sample), flush=True)
            shown[:] = [sample]

    with tempfile.TemporaryDirectory(dir=words.directory) as directory:
        played = play(plan, Path(directory), told)
    found = judge(played)
    for text in (*summary(played), "", quote_bytes(played), *journal_table(played), "", *findings(found)):
        print(text)
    if words.json is not None:
        words.json.write_bytes(msgspec.json.encode(played))
    return 0 if all(one.ok for one in found) else 1


if __name__ == "__main__":
    sys.exit(main())

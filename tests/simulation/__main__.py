"""`python -m tests.simulation`: play seeds, print failures with the line that shows each again."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from sim_exact import again, needs_new_process


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--exchange", choices=("deribit", "derive", "both"), default="deribit", help="default deribit")
    parser.add_argument("--seeds", type=int, default=100, help="how many, default 100")
    parser.add_argument("--first", type=int, default=1, help="the first of them, default 1")
    parser.add_argument("--seed", type=int, help="this one alone, with a longer story")
    parser.add_argument("--minutes", type=float, default=3.0, help="simulated minutes of storms each, default 3")
    parser.add_argument("--only", help="these kinds of trouble alone, separated by commas; `none` for good weather")
    parser.add_argument("--jobs", type=int, default=2, help="processes, default 2")
    parser.add_argument("--failures", type=int, default=10, help="stop after so many, default 10")
    parser.add_argument("--lines", type=int, default=40, help="of the story that are shown, default 40")
    parser.add_argument("--story", action="store_true", help="with --seed: tell it whatever comes of it")
    parser.add_argument("--exact", action="store_true", help="with --seed: say nothing that differs between two runs")
    parser.add_argument("--planted", help="plant this bug (`all`: one after the other) until it is caught")
    return parser.parse_args()


def run() -> int:
    words = arguments()
    from sim_ground import GROUNDS
    from sim_plan import weights_on
    from sim_planted import bugs_on
    from sim_run import hunt, main, play

    exchanges = list(GROUNDS) if words.exchange == "both" else [words.exchange]
    only = None if words.only is None else frozenset(words.only.split(",")) - {"none"}
    kinds = {kind for exchange in exchanges for kind in weights_on(GROUNDS[exchange])}
    unknown = sorted((only or frozenset()) - kinds)
    if unknown:
        print(f"unknown: {', '.join(unknown)}; there are: {', '.join(sorted(kinds))}", file=sys.stderr)
        return 2
    bugs = dict.fromkeys(name for exchange in exchanges for name in bugs_on(exchange))
    if words.planted and words.planted not in {"all", *bugs}:
        print(f"no such bug on {words.exchange}; there are: all, {', '.join(bugs)}", file=sys.stderr)
        return 2
    seeds = list(range(words.first, words.first + words.seeds))
    if words.planted and words.seed is None:
        planted = [(each, name) for each in exchanges for name in bugs_on(each) if words.planted in ("all", name)]
        return hunt(planted, seeds, words.minutes, words.jobs)
    if words.seed is None:
        return main(
            [(each, seed) for seed in seeds for each in exchanges], words.minutes, words.jobs, only, words.failures
        )
    if len(exchanges) > 1:
        print("one seed is of one exchange: --exchange deribit or derive", file=sys.stderr)
        return 2
    (exchange,) = exchanges
    outcome = play(exchange, words.seed, words.minutes, only, words.lines, told=words.story, bug=words.planted or "")
    print(outcome.report() if outcome.failure else "\n".join(outcome.story))
    took = "" if words.exact else f" in {outcome.seconds:.2f} s"
    print(f"{outcome.simulated_seconds:.0f} simulated seconds{took}, wire {outcome.digest[:16]}")
    print(", ".join(f"{name} {count}" for name, count in sorted(outcome.counts.items())))
    return 1 if outcome.failure else 0


if __name__ == "__main__":
    if needs_new_process():
        again()
    sys.exit(run())

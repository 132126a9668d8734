"""`python -m tests.simulation`: play seeds, print failures with the line that shows each again."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from sim_exact import again, needs_new_process


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
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
    from sim_plan import WEIGHTS
    from sim_planted import BUGS
    from sim_run import hunt, main, play

    only = None if words.only is None else frozenset(words.only.split(",")) - {"none"}
    unknown = sorted((only or frozenset()) - WEIGHTS.keys())
    if unknown:
        print(f"unknown: {', '.join(unknown)}; there are: {', '.join(sorted(WEIGHTS))}", file=sys.stderr)
        return 2
    if words.planted and words.planted != "all" and words.planted not in BUGS:
        print(f"no such bug; there are: all, {', '.join(BUGS)}", file=sys.stderr)
        return 2
    if words.planted and words.seed is None:
        names = list(BUGS) if words.planted == "all" else [words.planted]
        return hunt(names, list(range(words.first, words.first + words.seeds)), words.minutes, words.jobs)
    if words.seed is None:
        seeds = list(range(words.first, words.first + words.seeds))
        return main(seeds, words.minutes, words.jobs, only, words.failures)
    outcome = play(words.seed, words.minutes, only, words.lines, told=words.story, bug=words.planted or "")
    print(outcome.report() if outcome.failure else "\n".join(outcome.story))
    took = "" if words.exact else f" in {outcome.seconds:.2f} s"
    print(f"{outcome.simulated_seconds:.0f} simulated seconds{took}, wire {outcome.digest[:16]}")
    print(", ".join(f"{name} {count}" for name, count in sorted(outcome.counts.items())))
    return 1 if outcome.failure else 0


if __name__ == "__main__":
    if needs_new_process():
        again()
    sys.exit(run())

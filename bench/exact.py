"""What exp, log and N(x) of our own cost, beside the C library's.

python -m bench.exact
"""

from timeit import repeat

CALLS = 200_000
SETUP = "import math; from mmd.core import exact"


def microseconds(statement: str) -> float:
    """The best of five rounds, per call."""
    return min(repeat(statement, SETUP, number=CALLS, repeat=5)) / CALLS * 1e6


def main() -> None:
    for ours, theirs in (
        ("exact.exp(-0.37)", "math.exp(-0.37)"),
        ("exact.log(1.0003)", "math.log(1.0003)"),
        ("exact.normal_cdf(0.3)", "0.5 * math.erfc(-0.3 / 1.4142135623730951)"),
    ):
        print(f"{ours:24} {microseconds(ours):6.3f} us    {theirs:45} {microseconds(theirs):6.3f} us")


if __name__ == "__main__":
    main()

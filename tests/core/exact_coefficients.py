"""Where the coefficients of `mmd.core.exact` come from: Chebyshev fits of e^(x²) erfc(x), computed to 60 digits.

    python -m tests.core.exact_coefficients

prints the tables as they stand in the module. Between 0 and 6 there are twelve pieces, each with a
polynomial in y = 4 (x - middle), -1 <= y <= 1; beyond, √π x e^(x²) erfc(x) is one in y = 2 (6/x)² - 1.
"""

from collections.abc import Callable
from decimal import Decimal, localcontext
from functools import cache
from textwrap import wrap

DIGITS = 60
PIECES = 12
DEGREE = 14
TAIL_DEGREE = 12
D = Decimal


@cache
def pi() -> Decimal:
    """Machin's formula, to the precision of the context."""

    def arctan_inverse(n: int) -> Decimal:
        term = total = D(1) / n
        k = 1
        while abs(term) > D(10) ** -(DIGITS + 8):
            term = -term / (n * n)
            k += 2
            total += term / k
        return total

    return 4 * (4 * arctan_inverse(5) - arctan_inverse(239))


def scaled_erfc(x: Decimal) -> Decimal:
    """e^(x²) erfc(x) for x >= 0: from the all-positive series of erf up to 4, by its continued fraction beyond."""
    if x < 4:
        term = total = x
        n = 0
        while term > D(10) ** -(DIGITS + 20):
            n += 1
            term = term * 2 * x * x / (2 * n + 1)
            total += term
        return (x * x).exp() - 2 * total / pi().sqrt()
    rest = x
    for n in range(1200, 0, -1):
        rest = x + D(n) / 2 / rest
    return 1 / (rest * pi().sqrt())


def cosine(angle: Decimal) -> Decimal:
    """By its series; angles of 0 to π."""
    term = total = D(1)
    n = 0
    while abs(term) > D(10) ** -(DIGITS + 8):
        n += 2
        term = -term * angle * angle / (n * (n - 1))
        total += term
    return total


def fit(function: Callable[[Decimal], Decimal], degree: int) -> list[float]:
    """Coefficients, lowest power first, of the polynomial that meets the function at the Chebyshev nodes of [-1, 1]."""
    nodes = degree + 1
    angles = [pi() * (2 * k + 1) / (2 * nodes) for k in range(nodes)]
    values = [function(cosine(angle)) for angle in angles]
    chebyshev = [
        2 * sum((v * cosine_of(j, a) for v, a in zip(values, angles, strict=True)), D(0)) / nodes for j in range(nodes)
    ]
    chebyshev[0] /= 2
    before, now = [D(1)], [D(0), D(1)]
    powers = [D(0)] * nodes
    powers[0] = chebyshev[0]
    for j in range(1, nodes):
        for power, coefficient in enumerate(now):
            powers[power] += chebyshev[j] * coefficient
        following = [D(0), *(2 * c for c in now)]
        for power, coefficient in enumerate(before):
            following[power] -= coefficient
        before, now = now, following
    return [float(power) for power in powers]


def cosine_of(multiple: int, angle: Decimal) -> Decimal:
    """cos(multiple x angle), the angle brought into [0, π] first."""
    turned = (angle * multiple) % (2 * pi())
    return cosine(2 * pi() - turned if turned > pi() else turned)


def pieces() -> list[list[float]]:
    """Coefficients of each piece, of half a unit of x."""
    with localcontext() as context:
        context.prec = DIGITS + 40
        found = []
        for number in range(PIECES):
            middle = (D(number) + D("0.5")) / 2

            def piece(y: Decimal, middle: Decimal = middle) -> Decimal:
                return scaled_erfc(middle + y / 4)

            found.append(fit(piece, DEGREE))
        return found


def tail() -> list[float]:
    """Of √π x e^(x²) erfc(x) in y = 2 (6/x)² - 1."""

    def function(y: Decimal) -> Decimal:
        share = (y + 1) / 2
        if share <= 0:
            return D(1)
        x = D(6) / share.sqrt()
        return scaled_erfc(x) * x * pi().sqrt()

    with localcontext() as context:
        context.prec = DIGITS + 40
        return fit(function, TAIL_DEGREE)


def table() -> str:
    """As in the module: a line or more for each polynomial, highest power first, an empty line after each."""
    lines = []
    for coefficients in [*pieces(), tail()]:
        lines += wrap(" ".join(repr(coefficient) for coefficient in reversed(coefficients)), 118)
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())

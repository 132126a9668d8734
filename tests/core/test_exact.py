"""exp, log, erfc: right to the last digits, and the same digits everywhere."""

import math
import os
import subprocess
import sys
from decimal import Decimal, localcontext
from hashlib import sha256
from random import Random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mmd.core import exact
from tests.core.exact_coefficients import scaled_erfc, table

# Of 4,000 results of each function. A machine that gets another one cannot replay another machine's journal.
DIGEST = "9e64ed4f4a87afc77afc27845b3b2d3e0c1b009968a13ef50be7446f3b196ec2"


def ulps(found: float, wanted: Decimal) -> float:
    """How far off, in units of the last place of the right answer."""
    return abs(float((Decimal(found) - wanted) / Decimal(math.ulp(float(wanted)))))


@given(st.floats(-700.0, 700.0))
@example(-0.0)
@example(0.34657359027997264)
def test_exp(x: float) -> None:
    with localcontext() as context:
        context.prec = 60
        assert ulps(exact.exp(x), Decimal(x).exp()) <= 1.5


@given(st.floats(5e-324, 1.7e308) | st.floats(0.5, 2.0))
@example(1.0)
@example(math.nextafter(1.0, 0.0))
@example(math.nextafter(1.0, 2.0))
@example(0.7071067811865476)
def test_log(x: float) -> None:
    with localcontext() as context:
        context.prec = 60
        wanted = Decimal(x).ln()
        assert exact.log(x) == 0.0 if x == 1.0 else ulps(exact.log(x), wanted) <= 1.5


@given(st.floats(0.0, 26.0))
@example(5.999999999999999)
@example(6.0)
@example(0.5)
def test_erfc_in_its_tail(x: float) -> None:
    with localcontext() as context:
        context.prec = 80
        exactly = Decimal(x)
        wanted = scaled_erfc(exactly) * (-exactly * exactly).exp()
        assert ulps(exact.erfc(x), wanted) <= 8.0
        assert ulps(exact.erfc(-x), 2 - wanted) <= 5.0


def test_where_floats_end() -> None:
    assert exact.exp(-746.0) == 0.0
    assert exact.exp(710.0) == exact.exp(math.inf) == math.inf
    assert exact.exp(-745.0) == 5e-324
    assert exact.exp(709.782712893384) == math.exp(709.782712893384)
    assert exact.exp(709.7827128933841) == math.inf
    assert exact.erfc(40.0) == 0.0 and exact.erfc(-40.0) == 2.0
    assert exact.erfc(math.inf) == 0.0 and exact.erfc(-math.inf) == 2.0
    assert math.isnan(exact.exp(math.nan)) and math.isnan(exact.erfc(math.nan))
    assert exact.log(math.inf) == math.inf


@pytest.mark.parametrize("x", [0.0, -1.0, -math.inf, math.nan])
def test_no_logarithm(x: float) -> None:
    with pytest.raises(ValueError, match="allowed: above 0"):
        exact.log(x)


def test_the_table_is_what_its_program_computes() -> None:
    assert exact._TABLE.strip() == table().strip()


def test_the_same_digits_on_every_machine() -> None:
    random = Random(76)
    found = sha256()
    for _ in range(4000):
        found.update(exact.exp(random.uniform(-100.0, 20.0)).hex().encode())
        found.update(exact.log(random.uniform(1e-9, 3.0)).hex().encode())
        found.update(exact.erfc(random.uniform(-6.0, 26.0)).hex().encode())
    assert found.hexdigest() == DIGEST


MODELS = """
from hashlib import sha256
from random import Random
from mmd.core.options.black76 import OptionType, value
from mmd.core.volatility import Volatility

random, found, price, volatility = Random(7), sha256(), 3000.0, Volatility(30.0, 600.0)
for number in range(30_000):
    price *= 1.0 + random.uniform(-0.001, 0.001)
    volatility.observe(price, (number + 1) * 100_000_000)
    found.update(repr(volatility.snapshot()).encode())
    option = random.choice(list(OptionType))
    found.update(repr(value(option, price, random.uniform(1500.0, 6000.0), random.uniform(0.001, 1.0), 0.8)).encode())
print(found.hexdigest())
"""
LIBRARY = "import math; print([math.exp(n / 97).hex() for n in range(20_000)])"
# The C library then computes as on a processor without fused multiply-add: exp and log end in other digits.
ELSEWHERE = {"GLIBC_TUNABLES": "glibc.cpu.hwcaps=-FMA,-FMA4,-AVX2"}


def printed(program: str, more: dict[str, str]) -> str:
    environment = {**os.environ, **more}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    return done.stdout


def test_models_do_not_see_which_c_library_there_is() -> None:
    if printed(LIBRARY, {}) == printed(LIBRARY, ELSEWHERE):
        pytest.skip("this C library computes the same either way: there is no other machine to imitate")
    assert printed(MODELS, {}) == printed(MODELS, ELSEWHERE)

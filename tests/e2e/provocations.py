"""Every way in which the tests trip a kill switch, in one list."""

from provoke_exchange import EXCHANGE, ORDERS
from provoke_house import HALTS, MACHINE
from provoke_market import MARKET, TOTALS

CASES = [*TOTALS, *MARKET, *EXCHANGE, *ORDERS, *MACHINE, *HALTS]

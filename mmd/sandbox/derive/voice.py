"""Derive's dialect, put together for one sandbox."""

from mmd.sandbox.derive.catalogue import Catalogue
from mmd.sandbox.derive.context import Context, Trouble
from mmd.sandbox.derive.dialect import Dialect
from mmd.sandbox.derive.levers import DeriveLevers
from mmd.sandbox.derive.margin import USDC
from mmd.sandbox.derive.naming import UuidNames
from mmd.sandbox.derive.options import DeriveOptions
from mmd.sandbox.derive.tickets import Tickets
from mmd.sandbox.derive.wallets import Wallets
from mmd.sandbox.publisher import Publisher
from mmd.sandbox.truth import Panel
from mmd.sandbox.voice import Voice


def speak(panel: Panel, options: DeriveOptions, seed: int) -> Voice:
    """ValueError for wallets that are none, or that share a subaccount."""
    floor, names = panel.engine.floor, UuidNames(seed)
    floor.names = names
    tickets = Tickets(floor.accounts)
    trouble = Trouble(options, seed)
    publisher = Publisher(floor, Catalogue(floor, tickets, lambda: trouble.books_late_ms), lambda: panel.faults)
    wallets = Wallets(options.wallets, options.chain_id)
    context = Context(
        panel.engine, options, publisher, wallets, tickets, panel.alarms, panel.wall_us, panel.want, names, trouble
    )
    dialect = Dialect(context, panel.faults, panel.publish)
    for account, wallet in wallets.by_account.items():
        if wallet.line.usdc is not None:
            floor.given_balances[account] = {USDC: wallet.line.usdc}
        floor.account(account, panel.now_ms)
    return Voice(dialect, publisher, DeriveLevers(panel, dialect))

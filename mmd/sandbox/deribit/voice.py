"""Deribit's dialect, put together for one sandbox."""

from mmd.sandbox.deribit.auth import Key, Registry
from mmd.sandbox.deribit.catalogue import Catalogue
from mmd.sandbox.deribit.context import Context
from mmd.sandbox.deribit.dialect import Dialect
from mmd.sandbox.levers import Levers
from mmd.sandbox.limits import Budgets
from mmd.sandbox.publisher import Publisher
from mmd.sandbox.truth import Panel
from mmd.sandbox.voice import Voice


def speak(panel: Panel, keys: tuple[Key, ...] | None, budgets: Budgets, seed: int) -> Voice:
    """`keys` None: any credentials are welcome."""
    publisher = Publisher(panel.engine.floor, Catalogue(panel.engine.floor), lambda: panel.faults)
    registry = Registry(None if keys is None else list(keys), seed)
    context = Context(panel.engine, registry, budgets, publisher, panel.wall_us, panel.want)
    for key in keys or ():
        if key.balances:
            floor = panel.engine.floor
            floor.given_balances[key.client_id] = {**floor.balances, **key.balances}
    return Voice(Dialect(context, panel.faults, panel.publish), publisher, Levers(panel))

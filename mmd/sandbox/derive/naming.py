"""Ids as Derive has them: UUIDs, made of a seed."""

import random
import uuid

from mmd.sandbox.model import SandboxInstrument


class UuidNames:
    """The ids of orders, trades and HTTP answers: same seed, same ids."""

    def __init__(self, seed: int) -> None:
        self._orders = random.Random(f"{seed}/orders")
        self._trades = random.Random(f"{seed}/trades")
        self._requests = random.Random(f"{seed}/requests")

    def order(self, instrument: SandboxInstrument) -> str:
        return _uuid(self._orders)

    def trade(self, instrument: SandboxInstrument) -> str:
        return _uuid(self._trades)

    def request(self) -> str:
        """Of an HTTP request, which has none of its own."""
        return _uuid(self._requests)


def _uuid(chance: random.Random) -> str:
    return str(uuid.UUID(int=chance.getrandbits(128), version=4))

"""What a sandbox needs of an exchange's dialect."""

from typing import Any, NamedTuple

from mmd.sandbox.answering import Answering
from mmd.sandbox.levers import Levers
from mmd.sandbox.publisher import Publisher


class Voice(NamedTuple):
    """How one exchange speaks: calls and answers, notifications, and what can be made to go wrong."""

    dialect: Answering[Any, Any]
    publisher: Publisher[Any]
    levers: Levers

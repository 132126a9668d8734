"""Nothing is left to chance: the scheduler, the masks on the wire and every key come from the seed."""

import gc
import os
import random
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import trio
import websockets.client

T = TypeVar("T")
HASH_SEED = "0"


def needs_new_process() -> bool:
    """Sets of strings are walked in another order in every process unless it was started for that."""
    return os.environ.get("PYTHONHASHSEED") != HASH_SEED


def again() -> None:
    """The same command in this process once more, with the order of sets fixed; does not return."""
    os.environ["PYTHONHASHSEED"] = HASH_SEED
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


@contextmanager
def exactly(seed: int) -> Iterator[None]:
    """Within, trio shuffles its tasks by the seed, and what asks the kernel for random bytes gets the seed's."""
    chance = random.Random(f"{seed}/kernel")

    def key() -> str:
        return "c2ltdWxhdGlvbiBrZXkhIQ=="  # of the handshake: it keeps nothing secret

    internals: Any = trio._core._run
    shuffler = internals._r.getstate()
    collects = gc.isenabled()
    with (
        _replaced(os, "urandom", chance.randbytes),
        _replaced(websockets.client, "generate_key", key),
        _replaced(trio.to_thread, "run_sync", here),
    ):
        deterministic = internals._ALLOW_DETERMINISTIC_SCHEDULING
        internals._ALLOW_DETERMINISTIC_SCHEDULING = True
        internals._r.seed(seed)
        gc.disable()  # a generator that is collected at another moment would be closed at another moment
        try:
            yield
        finally:
            if collects:
                gc.enable()
            internals._ALLOW_DETERMINISTIC_SCHEDULING = deterministic
            internals._r.setstate(shuffler)


async def here(work: Callable[..., T], *arguments: Any, **how: Any) -> T:
    """Instead of a thread, whose end no seed decides."""
    await trio.lowlevel.checkpoint()
    done = work(*arguments)
    await trio.lowlevel.checkpoint()
    return done


@contextmanager
def _replaced(owner: Any, name: str, by: Callable[..., Any]) -> Iterator[None]:
    before = getattr(owner, name)
    setattr(owner, name, by)
    try:
        yield
    finally:
        setattr(owner, name, before)

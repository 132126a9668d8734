"""The reaper: after a daemon's death, cancel what carries its label on every exchange, and prove that nothing is left.

No strategy, no machine, no gate: places to look at, one reaper for each, all at once, and a time limit.
It looks where the configuration file says, and where the last daemon was, which need not be the same.
"""

import signal
import socket
from collections.abc import Callable, Sequence
from enum import StrEnum
from functools import partial
from pathlib import Path

import msgspec
import trio

import mmd
from mmd.config.load import load
from mmd.config.model import ExchangeConfig, NetworkKind
from mmd.config.salvage import salvage
from mmd.config.secrets import ExposedSecret
from mmd.domain.errors import ConfigError, CredentialError
from mmd.exchanges.api import Reaped, Reaper, Reaping
from mmd.shell.certificate import Certificate, ConfigFound, ExchangeLine, journal_head, utc
from mmd.shell.clock import Clock
from mmd.shell.locks import AccountName, account_holder, account_name, state_holder
from mmd.shell.logs import redact
from mmd.shell.whereabouts import recall
from mmd.shell.wiring import credentials, wire_reaper

WATCH_SECONDS = 0.5
BY_HAND = "by hand"
# systemd's $SERVICE_RESULT, $EXIT_CODE and $EXIT_STATUS of a daemon that has proven itself that nothing rests, and has
# waited for that: nothing of it can be under way.
STOPPED_WELL = "success-exited-0"


class Trouble(StrEnum):
    """Why an exchange is not proven empty, where trying again would not help."""

    NONE = ""
    PERMISSION = "permission"  # the exchange does not take the key, or others may read it
    SETUP = "setup"  # the key is not there


class Place(msgspec.Struct, frozen=True):
    """An account that may hold orders of a service. `last_run`: the file does not name it, the last daemon used it."""

    service: str
    config: ExchangeConfig
    last_run: bool = False

    @property
    def same(self) -> tuple[object, ...]:
        """Equal for places that are one."""
        config = self.config
        return (self.service, config.type, config.network, config.url, config.credentials)

    @property
    def server(self) -> tuple[object, ...]:
        return self.same[:-1]


class Places(msgspec.Struct, frozen=True, kw_only=True):
    """`incomplete`: an exchange may be missing. `service`, `state_dir`: as far as the file could be read."""

    service: str
    state_dir: str | None
    found: tuple[Place, ...]
    config: ConfigFound
    incomplete: bool


def read_places(path: Path, state_of: Callable[[str | None], Path]) -> Places:
    """Of the file, whatever its state, and of the last run. `state_of`: the state directory, given the file's word."""
    problems: tuple[str, ...] = ()
    sha256 = ""
    try:
        config = load(path)
        service, state_dir, sha256 = config.service.name, config.service.state_dir, config.sha256
        exchanges, broken = tuple(config.exchanges.values()), False
    except ConfigError as error:
        saved = salvage(path)
        service, state_dir, exchanges = saved.service, saved.state_dir, saved.exchanges
        problems, broken = tuple(error.lines), bool(saved.problems)
    found = [Place(service, each) for each in exchanges]
    last, last_sha256 = recall(state_of(state_dir))
    known = {place.same for place in found}
    for each in last.exchanges:
        place = Place(last.service, each, last_run=True)
        if place.same not in known:
            found.append(place)
    return Places(
        service=service or last.service,
        state_dir=state_dir,
        found=tuple(found),
        config=ConfigFound(str(path), sha256, last_sha256, (*problems, *last.problems)),
        incomplete=not found or (broken and not last.exchanges),
    )


class Job(msgspec.Struct):
    """A place and who reaps it; without a reaper, why not."""

    place: Place
    reaper: Reaper | None
    progress: Reaping
    trouble: Trouble = Trouble.NONE


def make_jobs(places: Sequence[Place], now_ns: Callable[[], int], *, settled: bool) -> list[Job]:
    """A key that cannot be read spoils its own exchange only."""
    named = {place.server for place in places if not place.last_run}
    jobs: list[Job] = []
    for place in places:
        try:
            reaper = wire_reaper(place.config, place.service, now_ns, settled=settled)
        except CredentialError as error:
            if place.last_run and place.server in named:
                continue  # the file has it under another key
            progress = Reaping(account="", errors=[f"{place.config.name}: {error}"])
            trouble = Trouble.PERMISSION if isinstance(error, ExposedSecret) else Trouble.SETUP
            jobs.append(Job(place, None, progress, trouble))
            continue
        jobs.append(Job(place, reaper, reaper.progress))
    return jobs


async def run_jobs(jobs: Sequence[Job], *, seconds: float, only_look: bool, taken_over: Callable[[], str]) -> str:
    """All at once, until all are done. Why it ended earlier: out of time, a signal, or a daemon took over; else ""."""
    why = ""
    with trio.move_on_after(seconds) as limit, trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with trio.open_nursery() as outer:

            def end(text: str) -> None:
                nonlocal why
                why = text
                outer.cancel_scope.cancel()

            async def heed() -> None:
                async for number in signals:
                    end(f"{signal.Signals(number).name} received")

            async def watch() -> None:
                while True:
                    if text := taken_over():
                        end(text)
                    await trio.sleep(WATCH_SECONDS)

            outer.start_soon(heed)
            outer.start_soon(watch)
            async with trio.open_nursery() as reaping:
                for job in jobs:
                    if job.reaper is not None:
                        reaping.start_soon(partial(job.reaper.reap, only_look=only_look))
            outer.cancel_scope.cancel()
    for job in jobs:
        if job.progress.refused:
            job.trouble = Trouble.PERMISSION
    return why or (f"out of time after {seconds:g} s" if limit.cancelled_caught else "")


async def reap(
    places: Places,
    *,
    state: Path,
    seconds: float,
    only_look: bool,
    after: str,
    taken_over: Callable[[], str],
) -> tuple[Certificate, list[Job]]:
    """The whole errand, but for writing the certificate. Raises nothing that an exchange or a disk can cause.

    `after`: how the daemon ended, "" if nobody says.
    """
    clock = Clock()
    started_ns = clock.now_ns()
    jobs = make_jobs(places.found, clock.now_ns, settled=after == STOPPED_WELL)
    ended = await run_jobs(jobs, seconds=seconds, only_look=only_look, taken_over=taken_over)
    lines = tuple(_line(job) for job in jobs)
    certificate = Certificate(
        service=places.service,
        host=socket.gethostname(),
        version=mmd.__version__,
        cause=f"the daemon's end: {after}" if after else BY_HAND,
        started=utc(started_ns),
        finished=utc(clock.now_ns()),
        dry_run=only_look,
        proven=all(line.proven for line in lines) and not places.incomplete,
        ended=ended,
        config=places.config,
        journal=journal_head(state),
        exchanges=lines,
    )
    return certificate, jobs


def _line(job: Job) -> ExchangeLine:
    progress, config = job.progress, job.place.config
    outcomes = [order.outcome for order in progress.orders]
    return ExchangeLine(
        exchange=config.name,
        network=job.reaper.network if job.reaper is not None else (config.url or str(config.network)),
        account=progress.account,
        service=job.place.service,
        before=progress.before,
        later=progress.later,
        cancelled=outcomes.count(Reaped.CANCELLED),
        gone=outcomes.count(Reaped.GONE),
        after=progress.after,
        proven=progress.proven,
        orders=tuple(progress.orders),
        errors=tuple(redact(error) for error in progress.errors),
    )


# --- whether now ---------------------------------------------------------------------------------


class Sentry:
    """Knows whether a daemon lives that would look after these orders itself."""

    def __init__(self, state: Path, places: Sequence[Place]) -> None:
        self._state = state
        self._accounts: list[AccountName] = []
        self.problem = ""  # why the state directory cannot be asked
        for place in places:
            if place.config.network is NetworkKind.SANDBOX:
                continue
            try:
                self._accounts.append(account_name(place.config, credentials(place.config)[0]))
            except CredentialError:
                continue  # without the daemon's own key we do not know whose account to look for

    def alive(self) -> str:
        """Which daemon lives, in words; empty where none is known."""
        try:
            holder = state_holder(self._state)
        except OSError as error:
            self.problem = f"{self._state}: {error.strerror}: whether a daemon lives cannot be seen there"
            holder = None
        if holder is not None:
            return f"a daemon lives: {_process(holder)} holds {self._state}"
        for account in self._accounts:
            holder = account_holder(account)
            if holder is not None:
                return f"a daemon lives: {_process(holder)} trades on {account}"
        return ""


def _process(pid: int) -> str:
    return f"pid {pid}" if pid else "a process of unknown number"

"""The reaper: after a daemon's death, cancel what carries its label on every exchange, and prove that nothing is left.

No strategy, no machine, no gate: places to look at, one reaper for each, all at once, and a time limit.
It looks where the configuration file says, and where the last daemon was, which need not be the same.
"""

import signal
import socket
from collections.abc import Callable, Mapping, Sequence
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
from mmd.shell.certificate import Certificate, ConfigFound, ExchangeLine, in_utf8, journal_head, utc
from mmd.shell.clock import Clock
from mmd.shell.locks import AccountName, account_holder, account_name, state_holder
from mmd.shell.logs import redact
from mmd.shell.whereabouts import Whereabouts, account_of, recall
from mmd.shell.wiring import wire_reaper

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
    """An account that may hold orders of a service. `last_run`: not the file names it, but what a daemon left.

    `account`: the one that the daemon has, or had then, as `account_of` has it. `former`: the last daemon was not
    there.
    """

    service: str
    config: ExchangeConfig
    last_run: bool = False
    account: str = ""
    former: bool = False

    @property
    def server(self) -> tuple[object, ...]:
        """Whose orders, and where; but for the account."""
        return (self.service, self.config.type, self.config.network, self.config.url, self.config.chain)

    @property
    def key(self) -> tuple[object, ...]:
        """Where the daemon's key is, and what is written beside it."""
        wallet = self.config.wallet
        owner = () if wallet is None else (wallet.address, wallet.subaccount, wallet.session_key)
        return (self.config.credentials, *owner)

    def is_same(self, other: "Place") -> bool:
        """One key at one server, as far as anybody knows."""
        if self.server != other.server or self.key != other.key:
            return False
        return self.account == other.account or not (self.account and other.account)


class Places(msgspec.Struct, frozen=True, kw_only=True):
    """`incomplete`: an exchange may be missing. `service`, `state_dir`: as far as the file could be read.

    `left_out`: names of exchanges that nobody wants looked at now. `content`: what the last daemon left.
    """

    service: str
    state_dir: str | None
    found: tuple[Place, ...]
    config: ConfigFound
    incomplete: bool
    left_out: tuple[str, ...] = ()
    content: Whereabouts | None = None


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
    recalled = recall(state_of(state_dir))
    every = [Place(service, each, account=account_of(each)) for each in exchanges]
    for old in recalled.places:
        account = old.account or account_of(old.config)
        every.append(Place(old.service, old.config, last_run=True, account=account, former=old.former))
    found: list[Place] = []
    for place in every:
        if not any(place.is_same(other) for other in found):
            found.append(_patient(place, every))
    return Places(
        service=service or recalled.saved.service,
        state_dir=state_dir,
        found=tuple(found),
        config=ConfigFound(str(path), sha256, recalled.sha256, (*problems, *recalled.problems)),
        incomplete=not found or bool(recalled.problems) or (broken and not recalled.saved.exchanges),
        content=recalled.content,
    )


def _patient(place: Place, every: Sequence[Place]) -> Place:
    """With the longest that an order may take there, of all who know: who edits the file did not send the orders."""
    known = [each.config.order_valid_ms for each in every if each.server == place.server]
    limits = [each for each in known if each is not None]
    longest = max(limits) if len(limits) == len(known) else None
    config = msgspec.structs.replace(place.config, order_valid_ms=longest)
    return msgspec.structs.replace(place, config=config)


NOBODY: Mapping[Place, str] = {}


class Job(msgspec.Struct):
    """A place and who reaps it; without a reaper, why not."""

    place: Place
    reaper: Reaper | None
    progress: Reaping
    trouble: Trouble = Trouble.NONE


def make_jobs(
    places: Sequence[Place], now_ns: Callable[[], int], *, settled: bool, held: Mapping[Place, str] = NOBODY
) -> list[Job]:
    """A key that cannot be read spoils its own exchange only. `held`: what is not to be touched, and why.

    `settled`: the last daemon has seen to it that nothing is under way where it was.
    """
    named = [place for place in places if not place.last_run]
    jobs: list[Job] = []
    for place in places:
        if place in held:
            jobs.append(Job(place, None, Reaping(account=place.account, errors=[held[place]])))
            continue
        try:
            reaper = wire_reaper(place.config, place.service, now_ns, settled=settled and not place.former)
            _check_account(place, reaper.progress.account)
        except CredentialError as error:
            if place.last_run and any(_covers(other, place) for other in named):
                continue  # the file has the same account under another key
            progress = Reaping(account=place.account, errors=[f"not looked at: no credentials: {error}"])
            trouble = Trouble.PERMISSION if isinstance(error, ExposedSecret) else Trouble.SETUP
            jobs.append(Job(place, None, progress, trouble))
            continue
        jobs.append(Job(place, reaper, reaper.progress))
    return jobs


def _check_account(place: Place, account: str) -> None:
    """Raises CredentialError where the last daemon's key has become another account's. The reaper's own may differ."""
    changed = place.account and account != place.account
    if place.last_run and changed and account == account_of(place.config):
        raise CredentialError(f"they are of {account} now, and orders may rest on {place.account}")


def _covers(named: Place, place: Place) -> bool:
    return named.server == place.server and named.account == place.account != ""


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
    held: Mapping[Place, str] = NOBODY,
) -> tuple[Certificate, list[Job]]:
    """The whole errand, but for writing the certificate. Raises nothing that an exchange or a disk can cause.

    `after`: how the daemon ended, "" if nobody says. `held`: places that are not to be touched, and why.
    """
    clock = Clock()
    started_ns = clock.now_ns()
    jobs = make_jobs(places.found, clock.now_ns, settled=after == STOPPED_WELL, held=held)
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
        proven=all(line.proven for line in lines) and not places.incomplete and not places.left_out,
        left_out=places.left_out,
        ended=ended,
        config=places.config,
        journal=journal_head(state),
        exchanges=lines,
    )
    return in_utf8(certificate), jobs


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
    """Knows whether a daemon lives: the one of this state directory, which looks after these orders itself, or another.

    Another one on the same account may have our service's name, and then its orders have our label. Nobody can tell
    from outside, so what it trades on is not touched.
    """

    def __init__(self, state: Path, places: Sequence[Place]) -> None:
        self._state = state
        self._accounts: dict[Place, AccountName] = {}
        self.problem = ""  # why the state directory cannot be asked
        for place in places:
            # Without the daemon's own key we do not know whose account to look for.
            if place.account and place.config.network is not NetworkKind.SANDBOX:
                self._accounts[place] = account_name(place.config, place.account)
        self._known = self.held()

    def alive(self) -> str:
        """Which daemon holds this state directory, in words; empty where none is known."""
        try:
            holder = state_holder(self._state)
        except OSError as error:
            self.problem = f"{self._state}: {error.strerror}: whether a daemon lives cannot be seen there"
            return ""
        return "" if holder is None else f"a daemon lives: {_process(holder)} holds {self._state}"

    def held(self) -> dict[Place, str]:
        """Places on whose account a daemon trades, and what there is to say about that."""
        found = {}
        for place, account in self._accounts.items():
            holder = account_holder(account)
            if holder is not None:
                found[place] = (
                    f"a daemon lives: {_process(holder)} trades on {account} and does not hold {self._state}: "
                    "it may have our service's name, so nothing is touched there. Stop it, or say --even-if-running"
                )
        return found

    def taken(self) -> str:
        """A daemon that lives and was not there at first, in words."""
        fresh = [text for place, text in self.held().items() if place not in self._known]
        return self.alive() or (fresh[0] if fresh else "")


def _process(pid: int) -> str:
    return f"pid {pid}" if pid else "a process of unknown number"

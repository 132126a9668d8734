"""The daemon as a service: metrics, statistics, systemd's watchdog and status line, signals."""

import signal
from collections.abc import Callable

import trio

from mmd.shell import logs, scrape
from mmd.shell.daemon import Daemon
from mmd.shell.metrics import watch_loop_lag
from mmd.shell.notify import Notifier, watchdog_interval
from mmd.shell.statistics import sentence, statistics, totals

STATUS_SECONDS = 10.0
log = logs.get("mmd")


async def serve_metrics(
    daemon: Daemon, listen: tuple[str, int], *, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED
) -> None:
    """The Prometheus endpoint until cancelled; reports its port. Raises OSError if the address is taken."""
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(scrape.serve, daemon, *listen)
        port = listeners[0].socket.getsockname()[1]
        log.info("metrics.listening", address=f"{listen[0]}:{port}")
        task_status.started(port)


async def attend(daemon: Daemon, notifier: Notifier, statistics_seconds: float, outlet: logs.Outlet) -> None:
    """Statistics, status line, watchdog and loop lag, until cancelled."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch_loop_lag, daemon.counters)
        nursery.start_soon(write_statistics, daemon, statistics_seconds, outlet)
        nursery.start_soon(write_status, daemon, notifier)
        interval = watchdog_interval()
        if interval is not None:
            nursery.start_soon(feed_watchdog, daemon, notifier, interval)


async def write_statistics(daemon: Daemon, seconds: float, outlet: logs.Outlet) -> None:
    before = totals(daemon.status(["all"]))
    while True:
        await trio.sleep(seconds)
        status = daemon.status(["all"])
        daemon.counters.log_lost = outlet.lost
        log.info("statistics.written", **statistics(status, before))
        before = totals(status)


async def write_status(daemon: Daemon, notifier: Notifier) -> None:
    while True:
        if daemon.phase == "running":
            notifier.status(sentence(daemon.status(["all"])))
        await trio.sleep(STATUS_SECONDS)


async def feed_watchdog(daemon: Daemon, notifier: Notifier, interval: float) -> None:
    """Only while every worker makes progress: mail that waits between two of our turns is a stall."""
    while True:
        if not daemon.stuck():
            notifier.watchdog()
        await trio.sleep(interval)


async def heed_signals(
    daemon: Daemon,
    notifier: Notifier,
    reload: Callable[[], None],
    now: Callable[[], None],
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """HUP reloads; the first TERM or INT stops in order, the second one `now`."""
    stopping = False
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
        task_status.started()
        async for number in signals:
            name = signal.Signals(number).name
            if number == signal.SIGHUP:
                log.info("signal.received", signal=name, effect="reload")
                reload()
            elif not stopping:
                stopping = True
                log.info("signal.received", signal=name, effect="stop")
                notifier.stopping("cancelling every order")
                notifier.extend_timeout(daemon.drain_seconds + 10.0)
                daemon.stop()
            else:
                log.warning("signal.received", signal=name, effect="stop at once")
                now()

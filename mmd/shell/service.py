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


async def attend(daemon: Daemon, notifier: Notifier, outlet: logs.Outlet) -> None:
    """Statistics, status line, watchdog and loop lag, until cancelled."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch_loop_lag, daemon.counters)
        nursery.start_soon(write_statistics, daemon, outlet)
        nursery.start_soon(follow_log_settings, daemon, outlet)
        nursery.start_soon(write_status, daemon, notifier)
        interval = watchdog_interval()
        if interval is not None:
            nursery.start_soon(feed_watchdog, daemon, notifier, interval)


async def follow_log_settings(daemon: Daemon, outlet: logs.Outlet) -> None:
    """Level and format as a reload changes them; what `mmdctl log-level` said holds until then."""
    before = daemon.in_force.service
    while True:
        await daemon.reconfigured.wait()
        after = daemon.in_force.service
        if after.log_format is not before.log_format:
            outlet.reshape(logs.Format(after.log_format))
        if after.log_level != before.log_level:
            logs.set_level(after.log_level)
        before = after


async def write_statistics(daemon: Daemon, outlet: logs.Outlet) -> None:
    """Every `statistics_seconds` of the configuration in force."""
    before = totals(daemon.status(["all"]))
    written_at = trio.current_time()
    while True:
        with trio.move_on_at(written_at + daemon.in_force.service.statistics_seconds) as due:
            await daemon.reconfigured.wait()
        if not due.cancelled_caught:
            continue
        written_at = trio.current_time()
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

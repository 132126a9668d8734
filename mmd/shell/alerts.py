"""What somebody must look at: alerts that last until they are cleared, said once, in many places.

`fire` and `clear` never wait and never fail: they write the log and the diary, count, and hand notices to the
queues of the webhooks. `run` delivers them, in tasks of its own. docs/alerts.md lists every alert.
"""

import random
from collections.abc import Callable

import httpx
import msgspec
import trio

from mmd.config.model import AlertSettings, Heartbeat, Webhook
from mmd.config.secrets import Secret
from mmd.domain.actions import Tripped
from mmd.domain.errors import ConfigError, CredentialError
from mmd.domain.reasons import Response, Scope, Severity, Switch
from mmd.domain.switches import SWITCHES
from mmd.journal.records import Alerted
from mmd.journal.writer import Journal
from mmd.shell import logs
from mmd.shell.clock import Clock
from mmd.shell.counters import Counters
from mmd.shell.desk import AlertLine
from mmd.shell.diary import Diary
from mmd.shell.notices import SEVERITIES, Notice, Sender
from mmd.shell.webhooks import HEARTBEAT, Beat, Channel, Network, Token

ACTIVE_MAX = 5_000
TEXT_MAX = 2_000
# How often the daemon asks itself whether it is well; the metric is as fresh as this.
PULSE_SECONDS = 5.0

log = logs.get("mmd.alerts")

Name = tuple[str, str | None, str | None]
"""Name, exchange, symbol: what tells one alert from another."""


class Alert(msgspec.Struct, kw_only=True):
    """One that lasts. `times`: how often it was fired since."""

    name: str
    severity: Severity
    exchange: str | None
    symbol: str | None
    summary: str
    detail: str
    runbook: str
    since_ns: int
    times: int = 1

    @property
    def line(self) -> AlertLine:
        return AlertLine(
            name=self.name,
            severity=str(self.severity),
            exchange=self.exchange,
            symbol=self.symbol,
            summary=self.summary,
            detail=self.detail,
            runbook=self.runbook,
            since=self.since_ns * 1e-9,
        )

    def notice(self, ended_ns: int = 0) -> Notice:
        """What to tell of it; with a time, that it is over."""
        return Notice(
            name=self.name,
            severity=self.severity,
            exchange=self.exchange,
            symbol=self.symbol,
            summary=self.summary,
            detail=self.detail,
            runbook=self.runbook,
            started_ns=self.since_ns,
            ended_ns=ended_ns,
            resolved=bool(ended_ns),
        )


class Prepared(msgspec.Struct, frozen=True):
    """Settings whose secrets were readable. The tokens show nothing of themselves."""

    settings: AlertSettings
    tokens: tuple[Token, ...]
    heartbeat_token: Token


def never() -> bool:
    """Whoever was not told when the daemon is well must not say that it is."""
    return False


def switch_alert(switch: Switch) -> str:
    """The alert of a kill switch: MmdDailyLoss for daily_loss."""
    return "Mmd" + "".join(word.capitalize() for word in switch.split("_"))


def switch_severity(switch: Switch, response: Response) -> Severity:
    """A pause can wait; a halt, and orders that a halt could not pull, cannot."""
    if response is Response.HALT or switch is Switch.ORDERS_LEFT:
        return Severity.CRITICAL
    return Severity.WARNING


def scope_of(tripped: Tripped) -> tuple[str | None, str | None]:
    """Exchange and symbol that a trip is about."""
    if tripped.scope is Scope.PORTFOLIO:
        return None, None
    exchange, _, symbol = tripped.target.partition("/")
    return exchange or None, symbol or None


class Alerts:
    """Made inside trio. `healthy` may be set later; until then there is no heartbeat."""

    def __init__(
        self,
        clock: Clock,
        diary: Diary,
        counters: Counters,
        service_name: str,
        healthy: Callable[[], bool] = never,
        *,
        transport: Callable[[], httpx.AsyncBaseTransport] | None = None,
        journal: Journal | None = None,
    ) -> None:
        """`transport` replaces sockets under the HTTP clients. `journal`: where alerts are put on record."""
        self._journal = journal
        self.healthy = healthy
        self._clock = clock
        self._diary = diary
        self._counters = counters
        self._service = service_name
        self._network = Network(transport)
        self._rng = random.Random(f"{service_name}/alerts/{clock.now_ns()}")
        self._active: dict[Name, Alert] = {}
        self._channels: dict[str, Channel] = {}
        self._beat: Beat | None = None
        self._starting: list[Channel | Beat] = []
        self._configured = trio.Event()

    # --- what the house says ---------------------------------------------------------------------

    def fire(
        self,
        name: str,
        severity: Severity,
        summary: str,
        detail: str,
        runbook: str,
        *,
        exchange: str | None = None,
        symbol: str | None = None,
    ) -> None:
        """Say it once; while it lasts only count, keep the newest detail, and follow the severity upwards."""
        key = (name, exchange, symbol)
        self._counters.alerts[(name, severity)] = self._counters.alerts.get((name, severity), 0) + 1
        detail = logs.redact(detail)[:TEXT_MAX]
        known = self._active.get(key)
        if known is not None:
            known.times += 1
            if SEVERITIES.index(severity) <= SEVERITIES.index(known.severity):
                if detail != known.detail:
                    known.detail = detail
                    self._update(known.notice())
                return
            self._end(key)
        alert = Alert(
            name=name,
            severity=severity,
            exchange=exchange,
            symbol=symbol,
            summary=logs.redact(summary)[:TEXT_MAX],
            detail=detail,
            runbook=runbook[:TEXT_MAX],
            since_ns=self._clock.now_ns(),
        )
        self._say(alert)
        if len(self._active) >= ACTIVE_MAX:
            self._counters.alerts_dropped += 1
            log.error("alert.overflowed", active=ACTIVE_MAX)
        else:
            self._active[key] = alert
            self._put(alert.notice())

    def fire_switch(self, tripped: Tripped) -> None:
        """The alert of a kill switch that tripped, in the words of the table."""
        row = SWITCHES[tripped.switch]
        exchange, symbol = scope_of(tripped)
        self.fire(
            switch_alert(tripped.switch),
            switch_severity(tripped.switch, tripped.response),
            f"{symbol or exchange or self._service}: {row.alert}",
            tripped.detail,
            row.runbook,
            exchange=exchange,
            symbol=symbol,
        )

    def clear(self, name: str | None = None, *, exchange: str | None = None, symbol: str | None = None) -> None:
        """End the alert fired with exactly these; without a name, all of this symbol, exchange, or the portfolio."""
        if name is not None:
            ended = [(name, exchange, symbol)] if (name, exchange, symbol) in self._active else []
        else:
            ended = [key for key in self._active if key[1:] == (exchange, symbol)]
        for key in ended:
            self._end(key)

    def active(self) -> list[AlertLine]:
        """Those that last, oldest first."""
        return [alert.line for alert in self._active.values()]

    def _say(self, alert: Alert) -> None:
        level = log.error if alert.severity is Severity.CRITICAL else log.warning
        fields = {name: value for name, value in (("exchange", alert.exchange), ("symbol", alert.symbol)) if value}
        level(
            "alert.raised",
            alert=alert.name,
            severity=str(alert.severity),
            **fields,
            summary=alert.summary,
            detail=alert.detail,
            runbook=alert.runbook,
        )
        text = f"{alert.name} ({alert.severity}): {alert.summary}" + (f": {alert.detail}" if alert.detail else "")
        self._diary.note("alert.fired", text, symbol=alert.symbol, exchange=alert.exchange)
        self._record(alert, "firing")

    def _record(self, alert: Alert, state: str) -> None:
        if self._journal is not None:
            self._journal.put(
                Alerted,
                self._clock.now_ns(),
                name=alert.name,
                state=state,
                severity=str(alert.severity),
                summary=alert.summary,
                detail=alert.detail,
                symbol=alert.symbol,
                exchange=alert.exchange,
            )

    def _end(self, key: Name) -> None:
        alert = self._active.pop(key)
        now_ns = self._clock.now_ns()
        text = f"{alert.name} ({alert.severity}) after {(now_ns - alert.since_ns) * 1e-9:.0f} s, fired {alert.times}x"
        self._diary.note("alert.cleared", text, symbol=alert.symbol, exchange=alert.exchange)
        self._record(alert, "resolved")
        self._put(alert.notice(now_ns))

    def _put(self, notice: Notice) -> None:
        for channel in self._channels.values():
            channel.put(notice)

    def _update(self, notice: Notice) -> None:
        for channel in self._channels.values():
            channel.update(notice)

    # --- configuration ---------------------------------------------------------------------------

    def configure(self, settings: AlertSettings) -> None:
        """`prepare` and `apply` in one. Raises what `prepare` raises; then nothing has changed."""
        self.apply(self.prepare(settings))

    def prepare(self, settings: AlertSettings) -> Prepared:
        """Read the secrets and look at the addresses; changes nothing.

        Raises ExposedSecret, CredentialError for a token, ConfigError for an address or a name used twice.
        """
        seen: set[str] = set()
        tokens = []
        for webhook in settings.webhooks:
            where = f"alerts.webhooks.{webhook.name}"
            if webhook.name in seen:
                raise ConfigError([f"{where}: the name is taken"])
            seen.add(webhook.name)
            check_address(where, webhook)
            tokens.append(token_of(where, webhook.bearer))
        heartbeat, heartbeat_token = settings.heartbeat, Token("")
        if heartbeat is not None:
            check_address("alerts.heartbeat", heartbeat)
            heartbeat_token = token_of("alerts.heartbeat", heartbeat.bearer)
        return Prepared(settings, tuple(tokens), heartbeat_token)

    def apply(self, prepared: Prepared) -> None:
        """Put settings in force. A webhook that did not change keeps its task; what waits for a name stays waiting."""
        settings = prepared.settings
        before, self._channels = self._channels, {}
        for webhook, token in zip(settings.webhooks, prepared.tokens, strict=True):
            sender = Sender(self._service, settings.labels, webhook.name)
            old = before.pop(webhook.name, None)
            if old is not None and old.serves(webhook, sender, token, settings.repeat_seconds):
                self._channels[webhook.name] = old
                continue
            counters = self._counters.webhook(webhook.name)
            new = Channel(webhook, sender, token, settings.repeat_seconds, self._clock, counters, self._rng)
            for notice in old.waiting.values() if old else ():
                new.put(notice)
            for alert in self._active.values():
                new.put(alert.notice())
            counters.waiting = len(new.waiting)
            if old is not None:
                old.stop()
            self._channels[webhook.name] = new
            self._starting.append(new)
        for name, gone in before.items():
            gone.stop()
            self._counters.webhooks.pop(name, None)
        self._apply_heartbeat(settings.heartbeat, settings, prepared.heartbeat_token)
        self._configured.set()

    def _apply_heartbeat(self, heartbeat: Heartbeat | None, settings: AlertSettings, token: Token) -> None:
        sender = Sender(self._service, settings.labels, HEARTBEAT)
        old = self._beat
        if old is not None:
            if heartbeat is not None and (old.heartbeat, old.sender, old.token) == (heartbeat, sender, token):
                return
            old.scope.cancel()
            self._beat = None
        if heartbeat is None:
            if HEARTBEAT not in self._channels:
                self._counters.webhooks.pop(HEARTBEAT, None)
        else:
            counters = self._counters.webhook(HEARTBEAT)
            self._beat = Beat(heartbeat, sender, token, self._clock, counters, self._rng)
            self._starting.append(self._beat)

    # --- delivery --------------------------------------------------------------------------------

    async def run(self) -> None:
        """Deliver until cancelled. Start it before anything trades: the first webhook loads the HTTP client."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._pulse)
            while True:
                self._configured = trio.Event()
                for part in self._starting:
                    if isinstance(part, Beat):
                        nursery.start_soon(part.run, self._network, lambda: self.healthy())
                    else:
                        nursery.start_soon(part.run, self._network)
                self._starting.clear()
                await self._configured.wait()

    async def _pulse(self) -> None:
        while True:
            if self.healthy():
                self._counters.heartbeat_at = self._clock.now_ns() * 1e-9
            await trio.sleep(PULSE_SECONDS)

    async def wait_delivered(self) -> None:
        """Return once no notice waits; before a stop, within a deadline of the caller's."""
        while busy := [channel for channel in self._channels.values() if channel.waiting]:
            await busy[0].progress.park()


def token_of(where: str, secret: Secret | None) -> Token:
    """The token, read now and masked in every log from now on. Raises CredentialError."""
    if secret is None:
        return Token("")
    try:
        value = secret.reveal()
    except CredentialError as error:
        raise type(error)(f"{where}.bearer: {error}") from None
    if not (value.isascii() and value.isprintable()):
        raise CredentialError(f"{where}.bearer: has characters that no HTTP header can carry; allowed: printable ASCII")
    logs.register_secret(value)
    return Token(value)


def check_address(where: str, hook: Webhook | Heartbeat) -> None:
    """Raises ConfigError for an address that cannot be posted to; never repeats it: it may hold a password."""
    try:
        url = httpx.URL(hook.url)
    except (httpx.InvalidURL, UnicodeError) as error:
        raise ConfigError([f"{where}.url: {type(error).__name__}: not an address"]) from None
    if url.scheme not in ("http", "https") or not url.host:
        raise ConfigError([f"{where}.url: must begin with http:// or https:// and name a host"])
    if url.port is not None and not 0 < url.port < 65536:
        raise ConfigError([f"{where}.url: port {url.port} is out of range; allowed: 1 to 65535"])

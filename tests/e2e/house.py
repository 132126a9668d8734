"""Real programs for the tests: started, waited for, asked and stopped, each by its own process."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import httpx
import msgspec
from eth_account import Account
from eth_account.messages import encode_defunct

from mmd.cli.client import Client
from mmd.domain.errors import MmdError
from mmd.sandbox.derive.known import SESSION_SECRET, SUBACCOUNT, WALLET

T = TypeVar("T")
PATIENCE_SECONDS = 30.0
POLL_SECONDS = 0.02
MMD = (sys.executable, "-m", "mmd.cli.mmd")
MMDCTL = (sys.executable, "-m", "mmd.cli.mmdctl")
OURS = ("MMD_", "NOTIFY_", "WATCHDOG_", "RUNTIME_DIRECTORY", "STATE_DIRECTORY", "CREDENTIALS_", "JOURNAL_")
CLIENT_ID, CLIENT_SECRET = "e2e", "not-a-real-secret"
KEYS = {"E2E_ID": CLIENT_ID, "E2E_SECRET": CLIENT_SECRET, "E2E_KEY": SESSION_SECRET}


def environment(more: Mapping[str, str]) -> dict[str, str]:
    """Ours without what a service manager or a developer may have set."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(OURS)}
    return {**kept, "COLUMNS": "100", "PYTHONWARNINGS": "error", **more}


def until(condition: Callable[[], T], what: str, seconds: float = PATIENCE_SECONDS) -> T:
    """The first true value of `condition`; AssertionError naming `what` when it does not come in time."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"{what}: not within {seconds:g} s"
        time.sleep(POLL_SECONDS)


class Program:
    """A process of ours; what it prints goes to files."""

    def __init__(self, words: Sequence[str], folder: Path, name: str, *, env: Mapping[str, str] | None = None) -> None:
        self.name = name
        self.folder = folder
        count = len(list(folder.glob(f"{name}-*.out")))
        self.out_path = folder / f"{name}-{count}.out"
        self.err_path = folder / f"{name}-{count}.err"
        with self.out_path.open("wb") as out, self.err_path.open("wb") as err:
            self.process = subprocess.Popen(
                list(words), stdin=subprocess.DEVNULL, stdout=out, stderr=err, env=environment(env or {})
            )

    @property
    def out(self) -> str:
        return self.out_path.read_text()

    @property
    def err(self) -> str:
        return self.err_path.read_text()

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def until(self, condition: Callable[[], T], what: str, seconds: float = PATIENCE_SECONDS) -> T:
        """As the function, but a program that ends meanwhile fails at once, with its last words."""

        def checked() -> T:
            value = condition()
            assert value or self.alive, f"{what}: {self.name} has ended ({self.process.returncode})\n{self.err}"
            return value

        return until(checked, f"{what}\n--- {self.name} said: {self.err[-3000:]}", seconds)

    def ended(self, seconds: float = PATIENCE_SECONDS) -> int:
        """Its exit status, once it has one."""
        return self.process.wait(seconds)

    def stop(self, number: signal.Signals = signal.SIGTERM, seconds: float = PATIENCE_SECONDS) -> int:
        """Signal it and return its exit status."""
        self.process.send_signal(number)
        return self.ended(seconds)

    def kill(self) -> None:
        """SIGKILL: it gets no chance to tidy up."""
        self.process.kill()
        self.process.wait(PATIENCE_SECONDS)

    def clear(self) -> None:
        """For the end of a test, whatever state it is in."""
        if self.alive:
            self.process.kill()
        self.process.wait(PATIENCE_SECONDS)


class Said(NamedTuple):
    """What mmdctl did."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Daemon(Program):
    """`mmd run` and its control socket."""

    def __init__(
        self,
        folder: Path,
        config: Path,
        *,
        socket: Path | None = None,
        state: Path | None = None,
        env: Mapping[str, str] | None = None,
        prefix: Sequence[str] = (),
    ) -> None:
        self.socket = socket or folder / "mmd.sock"
        state = state or folder / "state"
        words = [*prefix, *MMD, "run", "-c", str(config), "--state-dir", str(state), "--socket", str(self.socket)]
        super().__init__(words, folder, "daemon", env={**KEYS, **(env or {})})

    def ask(self, method: str, **params: object) -> Any:
        """The result of one request, as plain JSON. Raises what the client raises."""
        client = Client(self.socket, PATIENCE_SECONDS)
        try:
            return msgspec.json.decode(client.call(method, params, PATIENCE_SECONDS))
        finally:
            client.close()

    def answers(self) -> bool:
        """Somebody opens the control socket."""
        try:
            self.ask("version")
        except MmdError:
            return False
        return True

    def ready(self) -> "Daemon":
        """Wait until every symbol is reconciled."""
        self.until(self.answers, "control socket")
        self.until(lambda: self.status()["phase"] == "running", "ready")
        return self

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = self.ask("status")
        return found

    def symbols(self) -> dict[str, dict[str, Any]]:
        return {row["symbol"]: row for row in self.status()["symbols"]}

    def states(self) -> dict[str, tuple[str, str]]:
        """State and reason by symbol."""
        return {name: (row["state"], row["reason"]) for name, row in self.symbols().items()}

    def quoting(self) -> dict[str, dict[str, Any]]:
        """The symbols' rows once every one of them has both orders resting; empty before."""
        rows = self.symbols()
        both = all(row[side]["phase"] == "LIVE" for row in rows.values() for side in ("bid", "ask"))
        return rows if both else {}

    def start_quoting(self) -> dict[str, dict[str, Any]]:
        """Resume everything; the rows once both orders of each symbol rest."""
        self.until(lambda: self.ask("resume", symbols=["all"])["outcome"] == "done", "resume")
        return self.until(self.quoting, "both sides of every symbol")

    def ctl(self, *words: str) -> Said:
        """Run mmdctl."""
        ran = subprocess.run(
            [*MMDCTL, "--socket", str(self.socket), *words],
            capture_output=True,
            text=True,
            check=False,
            env=environment({}),
            timeout=2 * PATIENCE_SECONDS,
        )
        return Said(ran.returncode, ran.stdout, ran.stderr)

    def events(self, name: str = "") -> list[dict[str, Any]]:
        """Lines of the events stream, of one name or all."""
        return [event for event in self.ask("events")["events"] if name in ("", event["name"])]

    @property
    def metrics_url(self) -> str:
        """Where its Prometheus endpoint is; with port 0 only its log knows."""
        found = self.until(lambda: re.search(r"metrics\.listening address=(\S+)", self.err), "metrics endpoint")
        return f"http://{found.group(1)}"


class Exchange(Program):
    """`mmd sandbox` and an HTTP client of it."""

    spoken = "deribit"
    path = "/ws/api/v2"

    def __init__(self, folder: Path, *words: str, port: int = 0) -> None:
        listen = f"127.0.0.1:{port}"
        super().__init__([*MMD, "sandbox", "--exchange", self.spoken, "--listen", listen, *words], folder, "sandbox")
        self.url = self.until(lambda: self.out.partition("\n")[0] if "\n" in self.out else "", "ready line")
        address = re.fullmatch(rf"ws://127\.0\.0\.1:([0-9]+){self.path}", self.url)
        assert address is not None, self.url
        self.port = int(address.group(1))
        self.account = CLIENT_ID

    def call(self, method: str, **params: object) -> Any:
        """One call over HTTP with the daemon's own credentials, as `account` has them; AssertionError for an error."""
        answer = httpx.get(
            f"http://127.0.0.1:{self.port}/api/v2/{method}",
            params={key: str(value) for key, value in params.items()},
            auth=(self.account, CLIENT_SECRET),
            timeout=PATIENCE_SECONDS,
        ).json()
        assert "result" in answer, answer
        return answer["result"]

    def open_orders(self) -> dict[str, dict[str, Any]]:
        """Everything that rests on the account, by order id."""
        return {order["order_id"]: order for order in self.call("private/get_open_orders")}

    def position(self, symbol: str) -> float:
        return float(self.call("private/get_position", instrument_name=symbol)["size"])


class DeriveExchange(Exchange):
    """The same, of Derive: every call is signed with the key that its wallet has there."""

    spoken = "derive"
    path = "/v3/ws"

    def call(self, method: str, **params: object) -> Any:
        """One call over HTTP; AssertionError for an error."""
        now_ms = time.time_ns() // 1_000_000
        signature = Account.sign_message(encode_defunct(text=str(now_ms)), SESSION_SECRET).signature
        head = {"X-DeriveWallet": WALLET, "X-DeriveTimestamp": str(now_ms), "X-DeriveSignature": f"0x{signature.hex()}"}
        own = {"subaccount_id": SUBACCOUNT} if method.startswith("private/") else {}
        answer = httpx.post(
            f"http://127.0.0.1:{self.port}/v3/{method}", json=own | params, headers=head, timeout=PATIENCE_SECONDS
        ).json()
        assert "result" in answer, answer
        return answer["result"]

    def open_orders(self) -> dict[str, dict[str, Any]]:
        return {order["order_id"]: order for order in self.call("private/get_open_orders")["orders"]}

    def position(self, symbol: str) -> float:
        rows = self.call("private/get_positions")["positions"]
        return next((float(row["amount"]) for row in rows if row["instrument_name"] == symbol), 0.0)


def house(programs: list[Program]) -> Iterator[list[Program]]:
    """For a fixture: what is put into the list is ended with the test, sandboxes last."""
    yield programs
    for program in reversed(programs):
        program.clear()


CONFIG = """\
version: 1
service: {{name: {service}, mode: {mode}, metrics: {{listen: "127.0.0.1:0"}}}}
exchanges:
{exchanges}
market_data: {{stale_seconds: {stale_seconds}, auto_resume: {auto_resume}, auto_resume_seconds: 0.2}}
spreads:
  wide: {{fair: mid, style: around, spread_bps: 200, band_bps: 500, size: {size}, tolerance_bps: 100}}
instruments:
{instruments}
limits:
  per_symbol: {{max_position: 1000, max_order_size: 100, collar_bps: 500}}
  portfolio: {{max_exposure: {{BTC: 5, ETH: 50}}, max_notional_usd: 1000000, max_drawdown_usd: 5000}}
"""
ENTRIES = {
    "deribit": """\
  deribit:
    type: deribit
    network: {network}
    credentials: {{client_id: {{env: E2E_ID}}, client_secret: {{env: E2E_SECRET}}}}
""",
    "derive": f"""\
  derive:
    type: derive
    network: {{network}}
    wallet: "{WALLET}"
    session_key: {{{{env: E2E_KEY}}}}
    subaccount: {SUBACCOUNT}
""",
}
WIDE = {"deribit": ("BTC-PERPETUAL", "ETH-PERPETUAL"), "derive": ("ETH-PERP", "BTC-PERP")}
SIZES = {"deribit": "10", "derive": "1"}


def write_config(
    path: Path,
    *,
    network: str = "sandbox",
    exchange: str = "deribit",
    mode: str = "shadow",
    service: str = "e2e",
    auto_resume: bool = False,
    stale_seconds: float = 20,
    symbols: Sequence[str] = (),
    more: str = "",
) -> Path:
    """A configuration whose orders stand far from the market and within tolerance: they rest, and do not fill.

    `symbols`: of the exchange; none: two perpetuals.
    """
    names = symbols or WIDE[exchange]
    lines = [f"  - {{exchange: {exchange}, symbol: {symbol}, spread: wide}}" for symbol in names]
    text = CONFIG.format(
        exchanges=ENTRIES[exchange].format(network=network).rstrip(),
        size=SIZES[exchange],
        mode=mode,
        service=service,
        auto_resume=str(auto_resume).lower(),
        stale_seconds=stale_seconds,
        instruments="\n".join(lines),
    )
    path.write_text(text + more)
    return path

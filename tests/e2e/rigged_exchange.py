"""`rigged.py` in a process of its own, seen from here: what it lists, and its second port."""

import json
import socket
import sys
import time
from pathlib import Path
from typing import Any

from house import PATIENCE_SECONDS, DeriveExchange, Exchange, Program
from killing_plan import DERIBIT, DERIVE

from mmd.sandbox.derive.known import SESSION_KEY, SUBACCOUNT, WALLET

RIGGED = Path(__file__).with_name("rigged.py")


class Rigged(Exchange):
    """`rigged.py` and its second port."""

    def __init__(self, folder: Path, account: str, seed: int) -> None:
        words = ["sandbox", "--exchange", self.spoken, "--listen", "127.0.0.1:0", "--market", "generated"]
        words += ["--seed", str(seed), "--no-rate-limits", *self.accounts(folder)]
        where = folder / "rigged.port"
        Program.__init__(
            self, [sys.executable, str(RIGGED), *words], folder, "sandbox", env={"RIGGED_PORT": str(where)}
        )
        self.url = self.until(lambda: self.out.partition("\n")[0] if "\n" in self.out else "", "ready line")
        self.port = int(self.url.partition("127.0.0.1:")[2].partition("/")[0])
        self.account = account
        self._socket = socket.create_connection(("127.0.0.1", int(where.read_text())), PATIENCE_SECONDS)
        self._answers = self._socket.makefile("rb")

    def accounts(self, folder: Path) -> list[str]:
        """Words that say who may log in; none: anybody."""
        return []

    def rig(self, do: str, **params: Any) -> Any:
        """One command to the rig; AssertionError with its complaint."""
        self._socket.sendall(json.dumps({"do": do, **params}).encode() + b"\n")
        said = json.loads(self._answers.readline())
        assert "error" not in said, (do, params, said)
        return said["said"]

    def hang_up(self) -> None:
        self._answers.close()
        self._socket.close()

    def option(self) -> str:
        """A call near the money that lives for a week."""
        index = self.call("public/get_index_price", index_name="btc_usd")["index_price"]
        listed = self.call("public/get_instruments", currency="BTC", kind="option", expired="false")
        soon = (time.time() + 7 * 86400) * 1000
        calls = [row for row in listed if row["option_type"] == "call" and row["expiration_timestamp"] > soon]
        calls.sort(key=lambda row: (row["expiration_timestamp"], abs(row["strike"] - index)))
        return str(calls[0]["instrument_name"])


class RiggedDerive(Rigged, DeriveExchange):
    """The same, of Derive; the wallet can pay for everything."""

    def accounts(self, folder: Path) -> list[str]:
        wallet = {"address": WALLET, "subaccounts": [SUBACCOUNT], "keys": [{"address": SESSION_KEY}], "usdc": "1e9"}
        path = folder / "wallets.json"
        path.write_text(json.dumps([wallet]))
        return ["--accounts", str(path)]

    def option(self) -> str:
        mark = float(self.call("public/get_ticker", instrument_name=DERIVE.perp)["I"])
        kind = {"instrument_type": "option", "currency": DERIVE.coin, "expired": False, "page_size": 1000}
        listed = self.call("public/get_all_instruments", **kind)["instruments"]
        soon = time.time() + 7 * 86400
        terms = [(row["option_details"], row["instrument_name"]) for row in listed]
        calls = [
            (told["expiry"], abs(float(told["strike"]) - mark), name)
            for told, name in terms
            if told["option_type"] == "C"
        ]
        return str(min(call for call in calls if call[0] > soon)[2])


EXCHANGES = {DERIBIT: Rigged, DERIVE: RiggedDerive}

"""A sandbox that speaks Derive's dialect on a market that stands still, clients of it, and who signs for them.

Orders are signed here with eth-account's own typed data: neither the sandbox nor the daemon hashes so.
"""

import itertools
import json
from contextlib import asynccontextmanager

import h11
import trio
import trio_websocket
from eth_abi.abi import encode
from eth_account import Account
from eth_account.messages import encode_defunct, encode_typed_data
from static_market import START_MS, D, StaticMarket
from ws_client import CallFailed, Client, House

from mmd.sandbox.derive.known import SESSION_KEY, SESSION_SECRET, SUBACCOUNT, WALLET
from mmd.sandbox.derive.options import DeriveOptions
from mmd.sandbox.derive.universe import BY_BASE, asset, option, perpetual
from mmd.sandbox.model import Greeks, Reference
from mmd.sandbox.serve import Exchange, Sandbox, SandboxOptions

PERP, CALL, PUT = "ETH-PERP", "ETH-20261225-3600-C", "ETH-20261225-2800-P"
ACCOUNT = str(SUBACCOUNT)
EXPIRY_MS = 1_798_185_600_000
START_SEC = START_MS // 1000
ETH = BY_BASE["ETH"]
INSTRUMENTS = [
    perpetual(ETH, START_MS),
    option(ETH, "month", EXPIRY_MS, START_MS, D("3600"), "call"),
    option(ETH, "month", EXPIRY_MS, START_MS, D("2800"), "put"),
    perpetual(BY_BASE["BTC"], START_MS),
]
BY_NAME = {one.instrument_name: one for one in INSTRUMENTS}
BOOKS = {
    PERP: ({D("3000.00"): D("5"), D("2999.50"): D("15")}, {D("3000.10"): D("2"), D("3001.30"): D("30")}),
    CALL: ({D("40.0"): D("10")}, {D("50.0"): D("5"), D("60.0"): D("20")}),
    PUT: ({}, {}),
    "BTC-PERP": ({D("80000.0"): D("1")}, {D("80000.1"): D("1")}),
}
DOMAIN = {
    "name": "Matching",
    "version": "1.0",
    "chainId": 1,
    "verifyingContract": "0xeB8d770ec18DB98Db922E9D83260A585b9F0DeAD",
}
ACTION = {
    "Action": [
        {"name": "subaccountId", "type": "uint256"},
        {"name": "nonce", "type": "uint256"},
        {"name": "module", "type": "address"},
        {"name": "data", "type": "bytes"},
        {"name": "expiry", "type": "uint256"},
        {"name": "owner", "type": "address"},
        {"name": "signer", "type": "address"},
    ]
}
WORDS = ["address", "uint256", "int256", "int256", "uint256", "uint256", "bool"]
NONCES = itertools.count(1)  # of all traders: they share a wallet
MODULE = "0xB8D20c2B7a1Ad2EE33Bc50eF10876eD3035b5e7b"


class DeriveStill(StaticMarket):
    """Books appear when wanted and never move by themselves."""

    def instruments(self):
        return INSTRUMENTS

    def start(self, venue, now_ms):
        self.venue = venue
        venue.set_index("eth_usd", D("3000"), now_ms)
        venue.set_index("btc_usd", D("80000"), now_ms)
        perp = {"mark_price": D("3000.05"), "min_price": D("2900"), "max_price": D("3100"), "current_funding": 0.0008}
        venue.set_reference(PERP, Reference(index_price=D("3000"), **perp), now_ms)
        for name, greeks in ((CALL, Greeks(0.2, 0.001, 3.5, -2.0, 0.5)), (PUT, Greeks(-0.3, 0.001, 3.0, -2.0, -0.5))):
            reference = Reference(
                mark_price=D("45"),
                index_price=D("3000"),
                min_price=D("0.1"),
                max_price=D("400"),
                underlying_price=D("3010"),
                mark_iv=65.0,
                greeks=greeks,
            )
            venue.set_reference(name, reference, now_ms)

    def want(self, name, now_ms):
        bids, asks = BOOKS[name]
        self.venue.set_levels(name, bids, asks, now_ms, snapshot=True)


def signed_login(secret=SESSION_SECRET, wallet=WALLET, timestamp=START_MS):
    signature = Account.sign_message(encode_defunct(text=str(timestamp)), secret).signature
    return {"wallet": wallet, "timestamp": timestamp, "signature": "0x" + signature.hex()}


def headers(**changes):
    login = signed_login(**changes)
    return {
        "X-DeriveWallet": login["wallet"],
        "X-DeriveTimestamp": str(login["timestamp"]),
        "X-DeriveSignature": login["signature"],
        "User-Agent": "test",
    }


def scaled(text):
    return int(D(str(text)) * 10**18)


def sign(params, secret=SESSION_SECRET, owner=WALLET, chain_id=1):
    """The signature of an order as it stands in these parameters."""
    address, sub_id = asset(BY_NAME[params["instrument_name"]])
    values = (
        address, sub_id, scaled(params["limit_price"]), scaled(params["amount"]), scaled(params["max_fee"]),
        params["subaccount_id"], params["direction"] == "buy",
    )  # fmt: skip
    message = {
        "subaccountId": params["subaccount_id"],
        "nonce": int(params["nonce"]),
        "module": MODULE,
        "data": encode(WORDS, values),
        "expiry": params["signature_expiry_sec"],
        "owner": owner,
        "signer": params["signer"],
    }
    typed = encode_typed_data(DOMAIN | {"chainId": chain_id}, ACTION, message)
    return "0x" + Account.sign_message(typed, secret).signature.hex()


class Trader(Client):
    """A client that can sign. `pongs` counts the bare texts that came back."""

    def __init__(self, socket, sandbox):
        super().__init__(socket)
        self.sandbox = sandbox
        self.pongs = 0

    async def read(self):
        try:
            while True:
                text = await self.socket.get_message()
                if text == "pong":
                    self.pongs += 1
                else:
                    self._take(json.loads(text))
                self._news.set()
                self._news = trio.Event()
        except trio_websocket.ConnectionClosed:
            self.closed.set()
            self._news.set()

    def _take(self, message):
        self.log.append(message)
        if "method" in message:
            self.inbox.append(message)
        else:
            self.answers[message["id"]] = message

    async def heard(self, condition):
        """Wait for what a message makes so."""
        with trio.fail_after(60):
            while not condition():
                await self._news.wait()

    def order(self, **changes):
        """Parameters of an order; they are signed unless a signature is given."""
        now_ms = self.sandbox.now_ms
        params = {
            "subaccount_id": SUBACCOUNT,
            "instrument_name": PERP,
            "direction": "buy",
            "limit_price": "2999",
            "amount": "1",
            "max_fee": "100",
            "nonce": str(now_ms * 1_000_000 + next(NONCES)),
            "signature_expiry_sec": now_ms // 1000 + 600,
            "signer": SESSION_KEY,
            "label": "mine",
            "time_in_force": "post_only",
        }
        params |= changes
        return params if "signature" in params else params | {"signature": sign(params)}

    async def place(self, **changes):
        """The id of a new order."""
        return (await self.call("private/order", **self.order(**changes)))["order"]["order_id"]

    async def replace(self, order_id, **changes):
        return await self.call("private/replace", order_id_to_cancel=order_id, **self.order(**changes))

    async def follow(self, *topics):
        names = [f"{SUBACCOUNT}.{topic}" for topic in topics]
        return await self.call("subscribe", channels=names)

    async def told(self, topic):
        """The rows of the next message of one of our channels."""
        return await self.note(f"{SUBACCOUNT}.{topic}")

    async def code(self, method, **params):
        """The code of the error that this is answered with."""
        try:
            await self.call(method, **params)
        except CallFailed as failed:
            return failed.code
        return None

    async def refusal(self, **changes):
        """The code with which this order is refused."""
        return await self.code("private/order", **self.order(**changes))


class DeriveHouse(House):
    """A running sandbox and its clients."""

    async def client(self, path="/v3/ws"):
        stream = await self.sandbox.connect()
        socket = await trio_websocket.wrap_client_stream(self._nursery, stream, "sandbox.invalid", path)
        client = Trader(socket, self.sandbox)
        self._nursery.start_soon(client.read)
        return client

    async def trader(self, *topics, **login):
        """A client that is logged in and follows some of its own channels."""
        client = await self.client()
        await client.call("public/login", **signed_login(**login))
        if topics:
            await client.follow(*topics)
        return client

    async def http(self, method, params, head, verb="POST", base="/v3"):
        """Status and body of one HTTP request."""
        stream = await self.sandbox.connect()
        connection = h11.Connection(h11.CLIENT)
        body = json.dumps(params).encode()
        lines = [("host", "sandbox"), ("content-length", str(len(body))), *head.items()]
        data = connection.send(h11.Request(method=verb, target=f"{base}/{method}", headers=lines))
        await stream.send_all(data + connection.send(h11.Data(data=body)) + connection.send(h11.EndOfMessage()))
        status, text = 0, b""
        with trio.fail_after(60):
            while True:
                event = connection.next_event()
                if event is h11.NEED_DATA:
                    connection.receive_data(await stream.receive_some(65536))
                elif isinstance(event, h11.Response):
                    status = event.status_code
                elif isinstance(event, h11.Data):
                    text += event.data
                elif isinstance(event, h11.EndOfMessage):
                    break
        await stream.aclose()
        return status, json.loads(text)


def derive_sandbox(derive=None, **options):
    """A sandbox whose clock is trio's, starting at START_MS."""
    begin = trio.current_time()
    return Sandbox(
        DeriveStill(),
        SandboxOptions(exchange=Exchange.DERIVE, derive=derive or DeriveOptions(), **options),
        wall_clock_ns=lambda: START_MS * 1_000_000 + round((trio.current_time() - begin) * 1e9),
    )


@asynccontextmanager
async def running(derive=None, **options):
    async with trio.open_nursery() as nursery:
        sandbox = derive_sandbox(derive, **options)
        await nursery.start(sandbox.run)
        yield DeriveHouse(sandbox, nursery)
        nursery.cancel_scope.cancel()

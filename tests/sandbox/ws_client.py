"""A small JSON-RPC client over an in-process stream, for tests of the server."""

import itertools
import json
from contextlib import asynccontextmanager

import trio
import trio_websocket
from static_market import make_sandbox


class CallFailed(Exception):
    def __init__(self, error):
        super().__init__(error["message"])
        self.code = error["code"]
        self.message = error["message"]
        self.data = error.get("data")


class Client:
    """`inbox` holds everything that was no answer to a call, in order; `log` holds all messages."""

    def __init__(self, socket):
        self.socket = socket
        self.inbox = []
        self.log = []
        self.answers = {}
        self._ids = itertools.count(1)
        self._news = trio.Event()
        self.closed = trio.Event()

    async def read(self):
        try:
            while True:
                message = json.loads(await self.socket.get_message())
                self.log.append(message)
                if "id" in message:
                    self.answers[message["id"]] = message
                else:
                    self.inbox.append(message)
                self._news.set()
                self._news = trio.Event()
        except trio_websocket.ConnectionClosed:
            self.closed.set()
            self._news.set()

    async def send(self, method, **params):
        request_id = next(self._ids)
        message = {"jsonrpc": "2.0", "id": request_id, "method": method, "params": params}
        await self.socket.send_message(json.dumps(message))
        return request_id

    async def answer(self, request_id):
        with trio.fail_after(60):
            while request_id not in self.answers:
                await self._news.wait()
        message = self.answers.pop(request_id)
        if "error" in message:
            raise CallFailed(message["error"])
        return message["result"]

    async def call(self, method, **params):
        return await self.answer(await self.send(method, **params))

    async def raw(self, text):
        """Send this text; return the next message of any kind."""
        count = len(self.log)
        await self.socket.send_message(text)
        with trio.fail_after(60):
            while len(self.log) == count:
                await self._news.wait()
        return self.log[count]

    async def login(self, client_id="maker", **params):
        return await self.call(
            "public/auth", grant_type="client_credentials", client_id=client_id, client_secret="s", **params
        )

    async def note(self, channel=None):
        """The next notification (of a channel)."""
        with trio.fail_after(60):
            while True:
                for at, message in enumerate(self.inbox):
                    if channel is None or message["params"].get("channel") == channel:
                        del self.inbox[at]
                        return message["params"].get("data", message["params"])
                await self._news.wait()

    async def quiet(self, channel, seconds):
        """True when nothing comes on a channel for so long."""
        await trio.sleep(seconds)
        return not any(message["params"].get("channel") == channel for message in self.inbox)


class House:
    """A running sandbox and its clients."""

    def __init__(self, sandbox, nursery):
        self.sandbox = sandbox
        self.engine = sandbox.engine
        self.faults = sandbox.faults
        self.levers = sandbox.levers
        self._nursery = nursery

    async def client(self, path="/ws/api/v2"):
        stream = await self.sandbox.connect()
        socket = await trio_websocket.wrap_client_stream(self._nursery, stream, "sandbox.invalid", path)
        client = Client(socket)
        self._nursery.start_soon(client.read)
        return client


@asynccontextmanager
async def running(**options):
    async with trio.open_nursery() as nursery:
        sandbox = make_sandbox(**options)
        await nursery.start(sandbox.run)
        yield House(sandbox, nursery)
        nursery.cancel_scope.cancel()

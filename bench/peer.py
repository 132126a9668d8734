"""The exchange-side peer as a process of its own: one thread, plain sockets, and the only stop-watch.

Commands are JSON lines on standard input, each answered by one JSON line on standard output; the
first line there is the port. Ends with standard input. A measurement is made here alone: from
the send of a book change to the arrival of the first order that reflects it, on one clock.
"""

import argparse
import os
import select
import socket
import sys
import time
from collections import deque

import msgspec

from bench.frames import CHUNK_BYTES, FrameReader, PeerClosed, accept, frame
from bench.venue import Account, Market, Request, Venue, decode_request, encode, symbol_name

HEARTBEAT_NS = 4_000_000_000
HEARTBEAT = frame(b'{"jsonrpc":"2.0","method":"heartbeat","params":{"type":"heartbeat"}}')
DRAIN_NS = 200_000_000
SUBSCRIBE_NS = 5_000_000_000
HALF_SPREAD = 5e-4  # both clients quote mid * (1 -+ HALF_SPREAD), rounded outwards to half a dollar
ORDERS = frozenset({"private/buy", "private/sell", "private/edit"})


class Command(msgspec.Struct):
    """`feed`: updates/s over the first `symbols` instruments for `seconds`; `orders`: wait for that many open."""

    name: str
    client: str = "mmd"
    rate: int = 0
    seconds: float = 0.0
    symbols: int = 1
    count: int = 0
    block: bool = False


class Feed(msgspec.Struct):
    """What one `feed` measured. Times in µs, one per update, None where no answer came."""

    times_us: list[float | None]
    updates: int = 0
    orders: int = 0
    pairs: int = 0  # both orders of an instrument answered the same update
    pairs_in_one_read: int = 0
    late_us: float = 0.0  # the latest send behind its schedule


class Opened(msgspec.Struct):
    """`at_ns`: monotonic time of the first order since the command before; None if fewer than asked for rest."""

    at_ns: int | None
    open: int


class Connection:
    """One client connection with its unsent bytes."""

    def __init__(self, sock: socket.socket, client: str, account: Account) -> None:
        self.sock = sock
        self.client = client
        self.account = account
        self.books: set[str] = set()
        self.reader = FrameReader(sock)
        self._unsent = b""

    def send(self, data: bytes) -> None:
        """Never waits: what the kernel does not take is sent later, in order."""
        data = self._unsent + data if self._unsent else data
        if not data:
            return
        try:
            sent = self.sock.send(data)
        except BlockingIOError:
            sent = 0
        self._unsent = data[sent:]

    @property
    def waiting(self) -> bool:
        return bool(self._unsent)


class Progress:
    """One instrument during a feed: which updates were sent when, and which are answered."""

    def __init__(self, market: Market) -> None:
        self.market = market
        self.sent: list[tuple[int, int]] = []  # (index of the sample, time)
        self.having: dict[int, deque[int]] = {}  # mid -> updates that have it, oldest first
        self.answered = 0
        self.last: tuple[str, int, int] = ("", -1, -1)  # side, update, read of the order before

    def note(self, mid: int, sample: int, now_ns: int) -> None:
        self.having.setdefault(mid, deque()).append(len(self.sent))
        self.sent.append((sample, now_ns))

    def find(self, mid: int) -> int | None:
        """The update that an order at this mid answers: the oldest that may be meant; no time looks too good."""
        updates = self.having.get(mid)
        while updates and updates[0] < self.answered - 1:
            updates.popleft()
        return updates[0] if updates else None


class Peer:
    """Listens, answers, feeds, measures."""

    def __init__(self, symbols: int) -> None:
        names = [symbol_name(number) for number in range(symbols)]
        self.venue = Venue(names)
        self.accounts = {client: Account(names) for client in ("mmd", "bare")}
        self.connections: dict[int, Connection] = {}
        self.listener = socket.create_server(("127.0.0.1", 0))
        self._first_order_ns: int | None = None
        self._progress: dict[str, Progress] = {}
        self._feed = Feed([])
        self._reads = 0
        self._heartbeat_ns = time.monotonic_ns()

    # --- the loop --------------------------------------------------------------------------------

    def turn(self, until_ns: int, *extra: int) -> list[int]:
        """Serve whatever is ready, waiting for it until then at most; returns which of `extra` are ready."""
        writers = [number for number, connection in self.connections.items() if connection.waiting]
        timeout = max(0.0, (until_ns - time.monotonic_ns()) * 1e-9)
        readers = [self.listener.fileno(), *self.connections, *extra]
        readable, writable, _ = select.select(readers, writers, [], timeout)
        for number in writable:
            self.connections[number].send(b"")
        for number in readable:
            if number in self.connections:
                self._read(self.connections[number])
            elif number == self.listener.fileno():
                self._accept()
        if time.monotonic_ns() - self._heartbeat_ns > HEARTBEAT_NS:
            self._heartbeat_ns = time.monotonic_ns()
            for connection in self.connections.values():
                if connection.client == "mmd":  # the script did not ask for any
                    connection.send(HEARTBEAT)
        return [number for number in readable if number in extra]

    def _accept(self) -> None:
        sock, _ = self.listener.accept()
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client = "bare" if accept(sock) == "/bare" else "mmd"
        sock.setblocking(False)
        self.connections[sock.fileno()] = Connection(sock, client, self.accounts[client])

    def _read(self, connection: Connection) -> None:
        try:
            chunk = connection.sock.recv(CHUNK_BYTES)
            now_ns = time.monotonic_ns()
            payloads = connection.reader.feed(chunk)
        except (PeerClosed, ConnectionError):
            chunk = b""
        if not chunk:
            self._closed(connection)
            return
        self._reads += 1
        answers: list[bytes] = []
        for payload in payloads:
            request = decode_request(payload)
            if request.method in ORDERS:
                self._ordered(request, connection.account, now_ns)
            answers += self.venue.answer(request, connection.account, connection.books)
        connection.send(b"".join([frame(answer) for answer in answers]))

    def _closed(self, connection: Connection) -> None:
        """Cancel on disconnect: with its last connection an account's orders go."""
        del self.connections[connection.sock.fileno()]
        connection.sock.close()
        if not any(other.client == connection.client for other in self.connections.values()):
            self.accounts[connection.client].orders.clear()

    # --- measuring -------------------------------------------------------------------------------

    def _ordered(self, request: Request, account: Account, now_ns: int) -> None:
        """Which update this order answers, by its price."""
        if self._first_order_ns is None:
            self._first_order_ns = now_ns
        params = request.params
        order = account.orders.get(params.order_id)
        progress = self._progress.get(order.symbol if order else params.instrument_name)
        if progress is None:
            return
        self._feed.orders += 1
        side = order.direction if order else request.method.partition("/")[2]
        if side == "buy":
            mid = round((params.price + 0.25) / (1 - HALF_SPREAD))
        else:
            mid = round((params.price - 0.25) / (1 + HALF_SPREAD))
        update = progress.find(mid)
        if update is None:
            return
        times_us, sent = self._feed.times_us, progress.sent
        for answered in range(progress.answered, update + 1):
            sample, sent_ns = sent[answered]
            times_us[sample] = (now_ns - sent_ns) / 1000  # for the second order of a pair there is none left
        progress.answered = max(progress.answered, update + 1)
        last_side, last_update, last_read = progress.last
        if last_update == update and last_side != side:
            self._feed.pairs += 1
            self._feed.pairs_in_one_read += last_read == self._reads
        progress.last = (side, update, self._reads)

    def feed(self, command: Command) -> Feed:
        """Send updates on schedule, round robin over the instruments, serving all the while."""
        markets = list(self.accounts[command.client].markets.values())[: command.symbols]
        total = int(command.rate * command.seconds)
        self._feed = Feed([None] * total, updates=total)
        self._progress = {market.symbol: Progress(market) for market in markets}
        made: list[tuple[Progress, int, bytes]] = []
        for number in range(total):
            progress = self._progress[markets[number % len(markets)].symbol]
            data = frame(progress.market.advance())
            made.append((progress, progress.market.mid, data))
        target = self._subscriber(command.client)
        period_ns = 1_000_000_000 // command.rate
        due_ns = time.monotonic_ns() + 10_000_000
        at = 0
        while at < total:
            now_ns = time.monotonic_ns()
            if now_ns >= due_ns:
                end = min(total, at + (now_ns - due_ns) // period_ns + 1)
                self._feed.late_us = max(self._feed.late_us, (now_ns - due_ns) / 1000)
                for number in range(at, end):
                    progress, mid, _ = made[number]
                    progress.note(mid, number, now_ns)
                target.send(b"".join([data for _, _, data in made[at:end]]))
                due_ns += (end - at) * period_ns
                at = end
            # Never asleep: to be woken costs the sender a call to the other processor, tens of µs in a virtual machine.
            self.turn(due_ns if command.block else 0)
        stop_ns = time.monotonic_ns() + DRAIN_NS
        while time.monotonic_ns() < stop_ns:
            self.turn(stop_ns)
        self._progress = {}
        return self._feed

    def _subscriber(self, client: str) -> Connection:
        """Who follows books for the client; its orders may rest a moment before it does."""
        until_ns = time.monotonic_ns() + SUBSCRIBE_NS
        while True:
            found = [c for c in self.connections.values() if c.client == client and c.books]
            if found or time.monotonic_ns() > until_ns:
                break
            self.turn(until_ns)
        if len(found) != 1:
            raise RuntimeError(f"{client}: {len(found)} connections follow books, wanted one")
        return found[0]

    def orders(self, command: Command) -> Opened:
        """Wait until so many orders rest."""
        until_ns = time.monotonic_ns() + int(command.seconds * 1e9)
        account = self.accounts[command.client]
        while len(account.orders) < command.count and time.monotonic_ns() < until_ns:
            self.turn(until_ns)
        enough = len(account.orders) >= command.count
        found = Opened(self._first_order_ns if enough else None, len(account.orders))
        self._first_order_ns = None
        return found


def serve(peer: Peer) -> None:
    """Until standard input ends."""
    stdin = sys.stdin.fileno()
    held = b""
    answer({"port": peer.listener.getsockname()[1]})
    while True:
        if not peer.turn(time.monotonic_ns() + 1_000_000_000, stdin):
            continue
        chunk = os.read(stdin, 65_536)
        if not chunk:
            return
        *lines, held = (held + chunk).split(b"\n")
        for line in lines:
            command = msgspec.json.decode(line, type=Command)
            answer(peer.feed(command) if command.name == "feed" else peer.orders(command))


def answer(value: object) -> None:
    sys.stdout.buffer.write(encode(value) + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--symbols", type=int, default=120)
    serve(Peer(parser.parse_args().symbols))

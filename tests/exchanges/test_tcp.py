"""The TCP stream of the links: trio's contract, kept by fewer calls."""

import contextlib
import socket
import ssl
from collections.abc import AsyncIterator

import pytest
import trio
import trio.testing

from mmd.exchanges.tcp import TcpStream, open_tcp


@contextlib.asynccontextmanager
async def connected() -> AsyncIterator[tuple[TcpStream, socket.socket]]:
    """Our stream and the plain socket at its other end."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        stream = await open_tcp("127.0.0.1", server.getsockname()[1])
        theirs, _ = server.accept()
        async with stream:
            with theirs:
                yield stream, theirs


async def test_bytes_go_both_ways() -> None:
    async with connected() as (stream, theirs):
        await stream.send_all(b"there")
        assert theirs.recv(100) == b"there"
        theirs.sendall(b"and back")
        assert await stream.receive_some(3) == b"and"
        assert await stream.receive_some() == b" back"
        theirs.close()
        assert await stream.receive_some() == b""


async def test_small_writes_leave_at_once() -> None:
    async with connected() as (stream, _):
        assert stream._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


async def test_more_than_the_system_takes_at_once() -> None:
    data = bytes(range(256)) * 40_000
    got = bytearray()

    def read() -> None:
        while len(got) < len(data):
            got.extend(theirs.recv(1 << 20))

    async with connected() as (stream, theirs), trio.open_nursery() as nursery:
        nursery.start_soon(trio.to_thread.run_sync, read)
        await stream.send_all(data)
    assert got == data


async def test_a_waiting_reader_is_woken_by_the_close() -> None:
    async with connected() as (stream, _):

        async def read() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await stream.receive_some()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            await trio.testing.wait_all_tasks_blocked()
            await stream.aclose()
        with pytest.raises(trio.ClosedResourceError):
            await stream.receive_some()
        with pytest.raises(trio.ClosedResourceError):
            await stream.send_all(b"x")
        await stream.aclose()


async def test_a_reset_is_a_broken_stream() -> None:
    async with connected() as (stream, theirs):
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        theirs.close()
        with pytest.raises(trio.BrokenResourceError, match="reset"):
            await stream.receive_some()
        with pytest.raises(trio.BrokenResourceError, match=r"pipe|reset"):
            await stream.send_all(b"x")


async def test_reading_and_writing_can_be_cancelled() -> None:
    async with connected() as (stream, _):
        with trio.move_on_after(0.01) as scope:
            await stream.receive_some()
        assert scope.cancelled_caught
        with trio.move_on_after(0.05) as scope:
            await stream.send_all(bytes(100_000_000))
        assert scope.cancelled_caught


async def test_a_peer_that_takes_nothing_is_given_up(autojump_clock: trio.testing.MockClock) -> None:
    async with connected() as (stream, _):
        with pytest.raises(trio.BrokenResourceError, match="takes no bytes for 3 s"), trio.fail_after(10):
            await stream.send_all(bytes(100_000_000))


async def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(OSError, match="connect"):
        await open_tcp("127.0.0.1", port)


async def test_tls_over_it_names_what_is_wrong() -> None:
    async with connected() as (stream, theirs):
        theirs.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        wrapped = trio.SSLStream(stream, ssl.create_default_context(), server_hostname="x", https_compatible=True)
        with pytest.raises(trio.BrokenResourceError):
            await wrapped.do_handshake()

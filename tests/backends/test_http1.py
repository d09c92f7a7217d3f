"""The relay's HTTP client, before a server that says exactly the bytes it is told."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from yarl import URL

from backends.http1 import IDLE_S, Client, ConnectTimedOut, Malformed, Unsendable
from backends.response import BUFFER_BYTES, Lost

Play = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi"


class Server:
    def __init__(self) -> None:
        self.url = URL()
        self.connections = 0
        self.heads: list[bytes] = []


@asynccontextmanager
async def server(play: Play) -> AsyncIterator[Server]:
    """A server that reads a head and plays, as often as the connection lets it."""
    told = Server()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        told.connections += 1
        try:
            while True:
                told.heads.append(await reader.readuntil(b"\r\n\r\n"))
                await play(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    told.url = URL(f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/v1/x?y=1")
    async with listening:
        yield told


def saying(*pieces: bytes, then: str = "stay") -> Play:
    async def play(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.005)
        if then == "close":
            writer.close()
        elif then == "reset":
            writer.transport.abort()

    return play


@asynccontextmanager
async def client() -> AsyncIterator[Client]:
    made = Client()
    try:
        yield made
    finally:
        await made.aclose()


async def body_of(made: Client, url: URL) -> bytes:
    response = await made.request("GET", url, {})
    pieces = []
    while piece := await response.read():
        pieces.append(piece)
    assert response.at_eof()
    return b"".join(pieces)


async def test_a_connection_is_used_again_and_its_answers_do_not_mix() -> None:
    async with server(saying(OK)) as told, client() as made:
        for _ in range(5):
            assert await body_of(made, told.url) == b"hi"
        assert told.connections == 1
        assert await asyncio.gather(*(body_of(made, told.url) for _ in range(4))) == [b"hi"] * 4
        assert told.connections == 4


async def test_the_head_says_what_it_must_and_nothing_more() -> None:
    async with server(saying(OK)) as told, client() as made:
        response = await made.request("POST", told.url, {"x-a": "é", "content-type": "text/plain"}, b"{}")
        await response.read()
        head = told.heads[0]
    assert head.startswith(b"POST /v1/x?y=1 HTTP/1.1\r\nhost: 127.0.0.1:")
    assert b"\r\nx-a: \xe9\r\n" in head
    assert b"\r\naccept-encoding: identity\r\ncontent-length: 2\r\n" in head
    for text in ("a\r\nevil: 1", "a\nevil: 1", "a\revil: 1", "a\0"):
        with pytest.raises(Unsendable, match="line break"):
            await made.request("GET", told.url, {"x": text})


@pytest.mark.parametrize(
    ("pieces", "then", "body"),
    [
        ((b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",), "stay", b"hi"),
        ((b"HTTP/1.1 200 OK\r\ntransfer-en", b"coding: chunked\r\n\r\n1;x=y\r\nh\r", b"\n1\r\ni\r\n0\r\n\r\n"),
         "stay", b"hi"),
        ((b"HTTP/1.1 200 OK\r\n\r\nh", b"i"), "close", b"hi"),
        ((b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nhi",), "stay", b"hi"),
        ((b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" + OK,), "stay", b"hi"),
        ((b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nhi",), "close", b"hi"),
        ((b"HTTP/1.1 204 No Content\r\n\r\n",), "stay", b""),
    ],
)  # fmt: skip
async def test_a_body_ends_where_http_says(pieces: tuple[bytes, ...], then: str, body: bytes) -> None:
    async with server(saying(*pieces, then=then)) as told, client() as made:
        for _ in range(2):
            assert await asyncio.wait_for(body_of(made, told.url), 5) == body


@pytest.mark.parametrize(
    ("pieces", "then"),
    [
        ((b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhi",), "close"),
        ((b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhi",), "reset"),
        ((b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n",), "close"),
        ((b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\nzz\r\n",), "stay"),
        ((), "close"),
        ((), "reset"),
    ],
)  # fmt: skip
async def test_a_body_that_ends_too_early_is_lost(pieces: tuple[bytes, ...], then: str) -> None:
    async with server(saying(*pieces, then=then)) as told, client() as made:
        with pytest.raises((Lost, ConnectionError)):
            await asyncio.wait_for(body_of(made, told.url), 5)


@pytest.mark.parametrize(
    "said",
    [b"SSH-2.0-OpenSSH\r\n\r\n", b"HTTP/1.1 2x0 OK\r\n\r\n", b"HTTP/1.1 200 OK\r\nx: " + b"a" * 70_000 + b"\r\n\r\n",
     b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 20_000],
)  # fmt: skip
async def test_what_is_not_http_is_malformed(said: bytes) -> None:
    async with server(saying(said)) as told, client() as made:
        with pytest.raises(Malformed):
            await asyncio.wait_for(made.request("GET", told.url, {}), 5)


async def test_what_comes_unasked_closes_the_connection() -> None:
    async with server(saying(OK + b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil")) as told, client() as made:
        assert await body_of(made, told.url) == b"hi"
        assert await body_of(made, told.url) == b"hi"
        assert told.connections == 2


async def test_a_connection_that_the_server_closed_is_not_used_again() -> None:
    async with server(saying(OK, then="close")) as told, client() as made:
        for _ in range(3):
            assert await body_of(made, told.url) == b"hi"
            await asyncio.sleep(0.02)
        assert told.connections == 3


async def test_a_connection_that_was_free_for_long_is_not_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async with server(saying(OK)) as told, client() as made:
        await body_of(made, told.url)
        monkeypatch.setattr("backends.http1.IDLE_S", -1.0)
        await body_of(made, told.url)
        assert told.connections == 2
    assert IDLE_S > 0


async def test_a_body_that_nobody_reads_makes_the_server_wait() -> None:
    sent = 0

    async def flood(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100000000\r\n\r\n")
        while sent < 100_000_000:
            writer.write(b"x" * 100_000)
            sent += 100_000
            await writer.drain()

    async with server(flood) as told, client() as made:
        response = await made.request("GET", told.url, {})
        await asyncio.sleep(0.3)
        assert sent < 20_000_000
        assert response._size < 4 * BUFFER_BYTES
        read = 0
        while data := await response.read(50_000):
            assert len(data) <= 50_000
            read += len(data)
        assert read == 100_000_000


async def test_a_long_request_is_sent_whole_and_an_early_answer_ends_it() -> None:
    got = 0

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal got
        got = len(await reader.readexactly(3_000_000))
        writer.write(OK)

    async with server(take) as told, client() as made:
        response = await made.request("POST", told.url, {}, b"x" * 3_000_000)
        assert await response.read() == b"hi"
        assert got == 3_000_000
    refusal = b"HTTP/1.1 413 Too Large\r\ncontent-length: 2\r\n\r\nno"
    async with server(saying(refusal)) as told, client() as made:
        response = await asyncio.wait_for(made.request("POST", told.url, {}, b"x" * 50_000_000), 10)
        assert response.status == 413
        assert await response.read() == b"no"


async def test_giving_up_closes_the_connection() -> None:
    gone = asyncio.Event()

    async def watch(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nh")
        try:
            assert await reader.read(1) == b""
        finally:
            gone.set()

    async with server(watch) as told, client() as made:
        response = await made.request("GET", told.url, {})
        assert await response.read() == b"h"
        response.close()
        await asyncio.wait_for(gone.wait(), 1)
        gone.clear()
        asking = asyncio.create_task(made.request("GET", told.url, {}))
        await asyncio.sleep(0.05)
        (await asking).close()
        await asyncio.wait_for(gone.wait(), 1)


async def test_closing_the_client_ends_what_runs() -> None:
    async with server(saying(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nh")) as told, client() as made:
        response = await made.request("GET", told.url, {})
        assert await response.read() == b"h"
        waiting = asyncio.create_task(response.read())
        await asyncio.sleep(0.02)
        await made.aclose()
        with pytest.raises(Lost):
            await waiting


async def test_a_place_that_does_not_answer_is_given_up_in_time() -> None:
    async with client() as made:
        with pytest.raises(OSError):
            await made.request("GET", URL("http://127.0.0.1:9/"), {}, connect_s=2)
    async with server(saying(OK)) as told, client() as made:
        with pytest.raises(ConnectTimedOut):  # it never answers the handshake
            await made.request("GET", told.url.with_scheme("https"), {}, connect_s=0.3)

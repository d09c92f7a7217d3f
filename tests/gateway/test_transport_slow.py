"""Clients that take their time: to ask, to send a body, to read an answer, to ask again."""

import asyncio
import json
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager

import httpx2
import psutil
import pytest

from tests import wire
from tests.exchange import Exchange
from tests.gateway.conftest import config
from tests.http import CHAT, chat, metric, post, shaped, text_of, until
from tests.process import Gateway, gateway
from tests.provider import Provider

LIMIT_S = 1.0
KEEP_ALIVE_S = 3.0
SLACK_S = 4.0
"""Connections are looked at once a second, on a machine that may be busy."""
JSON = "content-type: application/json"
HEAD = f"POST {CHAT} HTTP/1.1\r\nhost: localhost\r\n{JSON}\r\n".encode()
MANY_BYTES = 200_000_000
PIECE = 20_000


@pytest.fixture(scope="module")
def strict(running_provider: Provider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway that waits a second where others wait a minute."""
    tree = config(running_provider.url)
    limits = dict.fromkeys(("header_timeout_s", "body_timeout_s", "write_timeout_s"), LIMIT_S)
    tree["server"] = {**limits, "keep_alive_s": KEEP_ALIVE_S}
    with gateway(tmp_path_factory.mktemp("strict"), tree) as running:
        yield running


@contextmanager
def connected(port: int, receive_buffer: int = 0) -> Iterator[socket.socket]:
    with closing(socket.socket()) as connection:
        if receive_buffer:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        connection.settimeout(20)
        connection.connect(("127.0.0.1", port))
        yield connection


def rest_of(connection: socket.socket) -> bytes:
    got = b""
    while piece := connection.recv(65536):
        got += piece
    return got


def told(got: bytes) -> tuple[int, str | None]:
    """The status of an answer, and the code of the error in it."""
    head, _, body = got.partition(b"\r\n\r\n")
    return int(head.split(b" ", 2)[1]), shaped(json.loads(body))["code"]


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        (b"", None),
        (b"P", (408, "request_timeout")),
        (HEAD[:-2], (408, "request_timeout")),
        (HEAD + b"content-length: 100\r\n\r\n", (408, "request_timeout")),
        (HEAD + b'content-length: 100\r\n\r\n{"model":', (408, "request_timeout")),
        (HEAD + b"transfer-encoding: chunked\r\n\r\n2\r\n{}\r\n", (408, "request_timeout")),
    ],
    ids=["nothing", "a byte", "half a head", "no body", "half a body", "no last chunk"],
)
def test_a_request_that_does_not_come_is_not_waited_for(
    strict: Gateway, said: bytes, answer: tuple[int, str | None] | None
) -> None:
    with connected(strict.port) as connection:
        began = time.monotonic()
        connection.sendall(said)
        got = rest_of(connection)
        assert LIMIT_S * 0.9 < time.monotonic() - began < LIMIT_S + SLACK_S
    assert (told(got) if got else None) == answer


def test_a_second_request_has_no_more_time_than_the_first(strict: Gateway) -> None:
    with connected(strict.port) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")
        connection.sendall(b"GET /health HTTP/1.1\r\nhost: loc")
        assert told(rest_of(connection)) == (408, "request_timeout")


def test_a_body_that_only_drips_is_not_waited_for(strict: Gateway) -> None:
    """Never silent for long, but far below a kilobyte a second."""
    with connected(strict.port) as connection:
        began = time.monotonic()
        connection.sendall(HEAD + b"content-length: 1000\r\n\r\n")
        connection.settimeout(0.3)
        got = b""
        while not got and time.monotonic() - began < LIMIT_S + SLACK_S:
            connection.sendall(b" ")
            try:
                got = connection.recv(65536)
            except TimeoutError:
                continue
        assert told(got) == (408, "request_timeout")


def test_a_slow_but_steady_body_is_read(strict: Gateway) -> None:
    body = json.dumps(chat("fake/fake", "x" * 20_000)).encode()
    with connected(strict.port) as connection:
        connection.sendall(HEAD + b"content-length: %d\r\n\r\n" % len(body))
        for at in range(0, len(body), 4_000):
            time.sleep(0.4)
            connection.sendall(body[at : at + 4_000])
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")


def test_a_slow_body_is_logged_and_counted_as_what_it_was(strict: Gateway) -> None:
    with connected(strict.port) as connection:
        connection.sendall(HEAD + b"x-request-id: dawdling\r\ncontent-length: 9\r\n\r\n{")
        assert told(rest_of(connection))[0] == 408
    line = strict.wait_for("request_finished", request_id="dawdling")
    assert (line["status"], line["code"]) == (408, "request_timeout")


def test_an_idle_connection_is_kept_and_then_closed(strict: Gateway) -> None:
    with connected(strict.port) as connection:
        for pause_s in (0.0, KEEP_ALIVE_S - 1.5):
            time.sleep(pause_s)
            connection.sendall(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n")
            assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")
        began = time.monotonic()
        assert rest_of(connection) == b""
        assert KEEP_ALIVE_S * 0.9 < time.monotonic() - began < KEEP_ALIVE_S + SLACK_S


def test_a_silent_answer_is_waited_for_on_both_sides(strict: Gateway, upstream: Provider) -> None:
    """None of these limits is one on how long an answer takes."""

    async def late(x: Exchange) -> None:
        await asyncio.sleep(KEEP_ALIVE_S + 1.5)
        x.answer(wire.completion("late"))

    upstream.scripts["late"] = late
    with httpx2.Client(base_url=strict.url, timeout=20) as http:
        assert http.post(CHAT, json=chat("up/late")).json()["choices"][0]["message"]["content"] == "late"


def test_half_said_requests_by_the_hundred_hold_nobody_up(strict: Gateway) -> None:
    with ExitStack() as crowd, httpx2.Client(base_url=strict.url, timeout=20) as http:
        for _ in range(300):
            crowd.enter_context(connected(strict.port)).sendall(HEAD)
        took = []
        for _ in range(20):
            began = time.monotonic()
            assert http.get("/health").status_code == 200
            took.append(time.monotonic() - began)
        assert sorted(took)[len(took) // 2] < 0.5
        until(lambda: psutil.Process(strict.process.pid).num_fds() < 150, 10)


class Flood:
    """Answers of MANY_BYTES, as fast as they are taken."""

    def __init__(self, upstream: Provider) -> None:
        self.sent: dict[str, int] = {}
        upstream.scripts["flood"] = self.play

    async def play(self, x: Exchange) -> None:
        marker = x.json["messages"][0]["content"]
        x.begin()
        for n in range(MANY_BYTES // PIECE):
            x.send(wire.word("x" * PIECE))
            self.sent[marker] = n * PIECE
            await asyncio.sleep(0)
            while x._transport.get_write_buffer_size() > 1_000_000:
                await asyncio.sleep(0.02)
        x.end()


def test_stalled_readers_cost_little_and_are_given_up(strict: Gateway, upstream: Provider) -> None:
    flood, count = Flood(upstream), 30
    process = psutil.Process(strict.process.pid)
    before = process.memory_info().rss
    with ExitStack() as stalled:
        for n in range(count):
            body = json.dumps(chat("up/flood", f"stalled-{n}-", stream=True)).encode()
            stalled.enter_context(connected(strict.port, 4096)).sendall(post(CHAT, body, JSON))
        calls = [upstream.asked(f"stalled-{n}-") for n in range(count)]
        most = before
        end = time.monotonic() + LIMIT_S + SLACK_S + 5
        while not all(call.over.is_set() for call in calls) and time.monotonic() < end:
            most = max(most, process.memory_info().rss)
            time.sleep(0.05)
        assert all(call.left_at is not None for call in calls), "their streams were ended while they were connected"
        assert all(sent < MANY_BYTES / 4 for sent in flood.sent.values()), "the provider was held back"
        assert most - before < count * 2_000_000
    until(lambda: metric(strict.url, "pluggably_in_flight") == 1)
    line = strict.wait_for("request_finished", requested_model="up/flood")
    assert (line["status"], line["code"]) == (499, "client_gone")


def test_a_reader_that_is_slow_but_reads_gets_everything(strict: Gateway, upstream: Provider) -> None:
    async def much(x: Exchange) -> None:
        x.begin()
        for frame in wire.stream(["y" * PIECE] * 300, include_usage=x.wants_usage):
            x.send(frame)
            await asyncio.sleep(0)
        x.end()

    upstream.scripts["much"] = much
    body = json.dumps(chat("up/much", stream=True)).encode()
    with connected(strict.port, 65_536) as connection:
        connection.sendall(post(CHAT, body, JSON, "connection: close"))
        got, began = b"", time.monotonic()
        while time.monotonic() - began < LIMIT_S + SLACK_S:
            time.sleep(0.3)
            piece = connection.recv(40_000)
            assert piece, "cut off"
            got += piece
        got += rest_of(connection)
    assert b"[DONE]" in got[-100:]


def test_an_answer_in_one_piece_that_nobody_takes_is_given_up_too(strict: Gateway, upstream: Provider) -> None:
    async def whole(x: Exchange) -> None:
        x.answer(wire.completion("z" * 20_000_000))

    upstream.scripts["whole"] = whole
    process = psutil.Process(strict.process.pid)
    with connected(strict.port, 4096) as connection:
        here = connection.getsockname()[1]

        def held() -> bool:
            return any(c.raddr and c.raddr.port == here for c in process.net_connections())

        connection.sendall(post(CHAT, json.dumps(chat("up/whole", "taken-by-nobody")).encode(), JSON))
        upstream.asked("taken-by-nobody")
        assert held()
        until(lambda: not held(), LIMIT_S + SLACK_S + 10)


def test_a_provider_is_read_at_the_pace_of_a_client_that_keeps_up(strict: Gateway, upstream: Provider) -> None:
    """200 MB for each of two clients, through little memory."""
    Flood(upstream)
    process = psutil.Process(strict.process.pid)
    before = most = process.memory_info().rss

    def read(n: int) -> int:
        size = 0
        with (
            httpx2.Client(base_url=strict.url, timeout=60) as http,
            http.stream("POST", CHAT, json=chat("up/flood", f"keeping-up-{n}", stream=True)) as answer,
        ):
            for piece in answer.iter_raw():
                size += len(piece)
                if size > MANY_BYTES / 4:
                    break
        return size

    with ThreadPoolExecutor(2) as pool:
        reading = [pool.submit(read, n) for n in range(2)]
        while not all(future.done() for future in reading):
            most = max(most, process.memory_info().rss)
            time.sleep(0.05)
    assert all(future.result() > MANY_BYTES / 4 for future in reading)
    assert most - before < 30_000_000


def test_the_house_still_answers(strict: Gateway) -> None:
    with httpx2.Client(base_url=strict.url, timeout=20) as http:
        assert text_of(http.post(CHAT, json=chat("up/answer", stream=True)).content) == "word0 word1 word2 "

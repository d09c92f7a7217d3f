"""A client that leaves stops the work done for it within a second, in whatever phase that is."""

import asyncio
import json
import random
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import httpx2
import pytest

from tests import wire
from tests.exchange import Exchange
from tests.gateway.conftest import APP_KEY
from tests.http import CHAT, chat, metric, post, raw, until, usage_row
from tests.process import Gateway
from tests.provider import Provider

WITHIN_S = 1.0
KEY = f"authorization: Bearer {APP_KEY}"
JSON = "content-type: application/json"


def asking(model: str, marker: str, *, stream: bool, path: str = CHAT) -> bytes:
    body = chat(model, marker, stream=stream)
    if path != CHAT:
        body = {"model": model, "stream": stream, "input": {"prompt": marker}}
    return post(path, json.dumps(body).encode(), KEY, JSON, f"x-request-id: {marker}")


def read_until(connection: socket.socket, words: bytes) -> None:
    got = b""
    while words not in got:
        piece = connection.recv(65536)
        assert piece, f"closed after {got!r}"
        got += piece


@pytest.mark.parametrize("path", [CHAT, "/v1/generate"])
@pytest.mark.parametrize(
    ("model", "stream", "awaited"),
    [
        ("up/silent", True, b""),
        ("up/stall:0", True, b""),
        ("up/stall:2", True, b"word1"),
        ("up/events:500:0.02", True, b"word3"),
        ("up/silent", False, b""),
        ("up/events:500:0.02", False, b""),
    ],
    ids=["before headers", "before the first token", "in a pause", "mid-stream", "unstreamed", "unstreamed, busy"],
)
def test_the_provider_is_hung_up_on(
    house: Gateway, upstream: Provider, path: str, model: str, stream: bool, awaited: bytes
) -> None:
    marker = f"leaving-{time.monotonic_ns()}"
    with raw(house.port, asking(model, marker, stream=stream, path=path)) as connection:
        call = upstream.asked(marker)
        if awaited:
            read_until(connection, awaited)
        assert call.left_at is None
    left = time.monotonic()
    assert call.left_within(WITHIN_S, left)
    line = house.wait_for("request_finished", request_id=marker)
    assert (line["status"], line["code"]) == (499, "client_gone")
    row = usage_row(house.folder, marker)
    assert row["code"] == "client_gone"


def test_a_stream_is_left_by_closing_the_response(client: httpx2.Client, upstream: Provider) -> None:
    with client.stream("POST", CHAT, json=chat("up/events:500:0.02", stream=True)) as answer:
        next(answer.iter_lines())
    assert upstream.asked().left_within(WITHIN_S, time.monotonic())


def test_a_reader_that_stops_reading_and_leaves_is_noticed(house: Gateway, upstream: Provider) -> None:
    """The gateway is blocked on a full socket, not on the provider."""

    async def flood(x: Exchange) -> None:
        x.begin()
        for _ in range(2000):
            x.send(wire.word("x" * 20_000))
            await asyncio.sleep(0.001)
        x.end()

    upstream.scripts["flood"] = flood
    with raw(house.port, asking("up/flood", "flooded", stream=True)) as connection:
        read_until(connection, b"xxx")
        call = upstream.asked("flooded")
        assert not call.over.wait(0.5)
    assert call.left_within(WITHIN_S, time.monotonic())


def test_nobody_is_asked_again_for_a_client_that_left_during_a_back_off(house: Gateway, upstream: Provider) -> None:
    with raw(house.port, asking("backing-off", "backing-off-1", stream=False)):
        upstream.asked("backing-off-1")
    line = house.wait_for("request_finished", 2.0, request_id="backing-off-1")
    assert line["status"] == 499
    assert line["total_s"] < 2, "it did not sit the back-off out"
    assert len(upstream.seen) == 1


def test_a_client_that_leaves_while_it_sends_its_body_leaves_nothing(house: Gateway, upstream: Provider) -> None:
    with raw(house.port, asking("up/answer", "half-sent", stream=False)[:-10]):
        pass
    house.wait_for("request_finished", request_id="half-sent", status=499)
    assert upstream.seen == []


def test_two_hundred_random_departures_leave_nothing_running(house: Gateway, upstream: Provider) -> None:
    late: list[str] = []
    lock = threading.Lock()

    def one(n: int) -> None:
        rng = random.Random(n)  # noqa: S311
        model, stream, awaited = rng.choice(
            [
                ("up/silent", True, b""),
                ("up/silent", False, b""),
                ("up/stall:0", True, b""),
                ("up/stall:1", True, b"word0"),
                ("up/events:1000:0.01", True, b"word1"),
                ("up/events:1000:0.01", True, b"word9 "),
                ("up/events:1000:0.01", False, b""),
                ("after-cut", True, b""),
                ("up/events:1000:0.001", True, b"HTTP/1.1 200"),
            ]
        )
        marker = f"departure-{n}-"
        path = CHAT if rng.random() < 0.8 else "/v1/generate"
        if model == "after-cut":  # between two attempts: whichever call is there when it leaves
            model, path = "again", CHAT
        with closing(socket.create_connection(("127.0.0.1", house.port), timeout=20)) as connection:
            connection.sendall(asking(model, marker, stream=stream, path=path))
            call = upstream.asked(marker, timeout_s=20)
            if awaited:
                read_until(connection, awaited)
            else:
                time.sleep(rng.random() * 0.05)  # somewhere inside a phase that sends nothing
            if rng.random() < 0.5:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
        left = time.monotonic()
        if model != "again" and not call.left_within(WITHIN_S, left):
            with lock:
                late.append(f"{marker} {model} stream={stream}: {call.left_at and call.left_at - left}")

    with ThreadPoolExecutor(16) as pool:
        for future in [pool.submit(one, n) for n in range(200)]:
            future.result(60)
    assert late == []
    until(lambda: metric(house.url, "pluggably_in_flight") == 1, 3.0)
    open_calls = [x for x in upstream.seen if not x.over.is_set()]
    assert open_calls == []
    with httpx2.Client(base_url=house.url, verify=False) as http:
        assert http.post(CHAT, json=chat("up/answer"), headers={"x-api-key": APP_KEY}).status_code == 200

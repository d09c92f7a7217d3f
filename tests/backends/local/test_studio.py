"""The server of a studio's child process, as its parent meets it: over HTTP, in a process of its own."""

import base64
import http.client
import json
import signal
import socket
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest

from backends.local.studio import BODY_MAX_BYTES, is_out_of_memory
from tests.backends.local.easel import KEY, Easel, easel

AUTH = {"authorization": f"Bearer {KEY}"}


@pytest.fixture(scope="module")
def running() -> Iterator[Easel]:
    with easel() as one:
        yield one


def asked(
    running: Easel, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None
) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(urlsplit(running.url).netloc, timeout=20)
    try:
        connection.request(method, path, body, AUTH if headers is None else headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def begun(running: Easel, **told: Any) -> socket.socket:
    """A connection on which a job has been asked for."""
    url = urlsplit(running.url)
    assert url.hostname is not None
    connection = socket.create_connection((url.hostname, url.port or 0), timeout=20)
    body = json.dumps(told).encode()
    head = f"POST /v1/make HTTP/1.1\r\nauthorization: Bearer {KEY}\r\ncontent-length: {len(body)}\r\n\r\n"
    connection.sendall(head.encode() + body)
    return connection


def news(running: Easel, **told: Any) -> list[Any]:
    """All that is said of a job."""
    status, body = asked(running, "POST", "/v1/make", json.dumps(told).encode())
    assert status == 200
    events = body.decode().removesuffix("\n\n").split("\n\n")
    assert events[-1] == "data: [DONE]"
    return [json.loads(event.removeprefix("data: ")) for event in events[:-1]]


def test_what_is_made_is_told_as_it_comes(running: Easel) -> None:
    assert news(running, steps=2) == [
        {"step": 0, "of": 2, "stage": "generating"},
        {"step": 1, "of": 2, "stage": "generating"},
        {"preview": base64.b64encode(b"half").decode(), "mime": "image/png", "index": 0, "n": 0},
        {"made": base64.b64encode(b"whole").decode(), "mime": "image/png", "index": 0},
    ]


@pytest.mark.parametrize(
    ("method", "path", "headers", "body", "status"),
    [
        ("GET", "/health", AUTH, b"", 200),
        ("GET", "/health", {}, b"", 401),
        ("GET", "/health", {"authorization": "Bearer w\u00f6rong"}, b"", 401),
        ("POST", "/v1/make", {"authorization": "Bearer easel-ke"}, b"{}", 401),
        ("GET", "/v1/make", AUTH, b"", 404),
        ("POST", "/v1/other", AUTH, b"{}", 404),
        ("POST", "/v1/make", AUTH, b"{", 400),
        ("POST", "/v1/make", AUTH | {"content-length": str(BODY_MAX_BYTES + 1)}, b"", 413),
        ("POST", "/v1/make", AUTH | {"content-length": "many"}, b"", 413),
    ],
)
def test_only_the_parent_is_heard(
    running: Easel, method: str, path: str, headers: dict[str, str], body: bytes, status: int
) -> None:
    assert asked(running, method, path, body, headers)[0] == status


@pytest.mark.parametrize(
    ("then", "code", "param"),
    [("refuse", "invalid_value", "size"), ("fail", "engine_failed", None), ("memory", "out_of_memory", None)],
)
def test_what_goes_wrong_is_told_without_its_secrets(running: Easel, then: str, code: str, param: str | None) -> None:
    error = news(running, then=then)[-1]["error"]
    assert (error["code"], error["param"]) == (code, param)
    assert "secret" not in error["message"]
    assert then != "fail" or running.has_said("RuntimeError: secret /path/of/a/weight")
    assert news(running)[-1]["made"], "the next job is done as if nothing had been"


def test_whoever_leaves_stops_the_work_at_the_next_step(running: Easel) -> None:
    with begun(running, steps=1000, pause_s=0.05) as connection:
        connection.recv(64)
    began = time.monotonic()
    assert news(running)[-1]["made"]
    assert time.monotonic() - began < 1.0
    assert "step 999" not in running.said


def test_whoever_leaves_the_queue_is_never_served(running: Easel) -> None:
    with begun(running, steps=1000, pause_s=0.05) as busy:
        busy.recv(64)
        begun(running, steps=777).close()
    assert news(running)[-1]["made"]
    assert "step 776" not in running.said


def test_jobs_are_done_one_after_the_other(running: Easel) -> None:
    with begun(running, steps=5, pause_s=0.05) as first, begun(running, steps=0) as second:
        second.recv(64)
        assert first.recv(65_536, socket.MSG_DONTWAIT).endswith(b"data: [DONE]\n\n")


def test_sigterm_ends_it_at_once() -> None:
    with easel() as one, begun(one, steps=1000, pause_s=0.5) as connection:
        connection.recv(64)
        one.process.send_signal(signal.SIGTERM)
        assert one.process.wait(1.0) == -signal.SIGTERM


@pytest.mark.parametrize(
    ("error", "so"),
    [
        (MemoryError(), True),
        (RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB."), True),
        (
            RuntimeError("[E:onnxruntime] bad allocation: Failed to allocate memory for requested buffer of size 9"),
            True,
        ),
        (ValueError("memory"), False),
    ],
)
def test_engines_say_in_their_own_ways_that_memory_is_out(error: Exception, so: bool) -> None:
    assert is_out_of_memory(error) is so

"""What tests say to a gateway over HTTP, and how they read what it says."""

import json
import socket
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import httpx2

T = TypeVar("T")

CHAT = "/v1/chat/completions"


def chat(model: str, text: str = "Say hello.", **fields: Any) -> dict[str, Any]:
    """A small chat request."""
    return {"model": model, "messages": [{"role": "user", "content": text}], **fields}


def error_of(response: httpx2.Response) -> dict[str, Any]:
    """The error of an answer, held to OpenAI's shape."""
    assert response.headers["content-type"].startswith("application/json"), response.text
    assert response.headers["x-request-id"]
    return shaped(response.json())


def shaped(body: dict[str, Any]) -> dict[str, Any]:
    """The error in a body, which has OpenAI's four keys and no other."""
    assert list(body) == ["error"]
    error: dict[str, Any] = body["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert isinstance(error["message"], str)
    assert error["message"]
    assert isinstance(error["type"], str)
    assert error["param"] is None or isinstance(error["param"], str)
    assert error["code"] is None or isinstance(error["code"], str)
    return error


def events_of(body: bytes) -> list[bytes]:
    """The data of each event of a stream, comments left out."""
    return [e.removeprefix(b"data: ") for e in body.split(b"\n\n") if e.startswith(b"data: ")]


def text_of(body: bytes) -> str:
    """What a streamed chat answer says."""
    chunks = [json.loads(e) for e in events_of(body) if e != b"[DONE]"]
    return "".join(choice["delta"].get("content") or "" for c in chunks for choice in c.get("choices", ()))


def in_band_error(body: bytes) -> dict[str, Any]:
    """The error that ends a stream which began well; no [DONE] comes with it."""
    events = events_of(body)
    assert b"[DONE]" not in events
    return shaped(json.loads(events[-1]))


@contextmanager
def raw(port: int, data: bytes) -> Iterator[socket.socket]:
    """A connection on which these bytes have been sent."""
    with closing(socket.create_connection(("127.0.0.1", port), timeout=10)) as connection:
        connection.sendall(data)
        yield connection


def raw_answer(port: int, data: bytes) -> tuple[int, bytes]:
    """The status and body that answer these bytes."""
    with raw(port, data) as connection:
        got = b""
        while b"\r\n\r\n" not in got:
            piece = connection.recv(65536)
            assert piece, f"closed after {got!r}"
            got += piece
        head, _, body = got.partition(b"\r\n\r\n")
        lengths = [line.split(b":")[1] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
        while len(body) < int(lengths[0]):
            body += connection.recv(65536)
    return int(head.split(b" ", 2)[1]), body


def post(path: str, body: bytes, *headers: str, host: str = "127.0.0.1") -> bytes:
    """The bytes of a POST request, with exactly these headers besides Host and Content-Length."""
    lines = [f"POST {path} HTTP/1.1", f"host: {host}", *headers, f"content-length: {len(body)}", "", ""]
    return "\r\n".join(lines).encode() + body


def until(look: Callable[[], T | None], timeout_s: float = 5.0) -> T:
    """What `look` finds, asked again and again for a bounded time."""
    end = time.monotonic() + timeout_s
    while True:
        if found := look():
            return found
        assert time.monotonic() < end, "it did not come about in time"
        time.sleep(0.02)


def usage_row(folder: Path, request_id: str) -> dict[str, Any]:
    """The usage row of a request in a gateway's SQLite database, waited for."""

    def look() -> dict[str, Any] | None:
        with closing(sqlite3.connect(folder / "data" / "gateway.db", timeout=10)) as database:
            database.row_factory = sqlite3.Row
            rows = database.execute("SELECT * FROM usage WHERE request_id = ?", (request_id,)).fetchall()
        assert len(rows) <= 1
        return dict(rows[0]) if rows else None

    return until(look)


def fetched(url: str) -> bytes:
    """What a signed URL gives to somebody who has nothing else."""
    answer = httpx2.get(url, timeout=10, verify=False)
    assert answer.status_code == 200, answer.text
    return answer.content


def metric(url: str, name: str, **labels: str) -> float:
    """The sum of a metric's samples that have these labels."""
    total = 0.0
    for line in httpx2.get(f"{url}/metrics", timeout=10).text.splitlines():
        if line.startswith((f"{name}{{", f"{name} ")) and all(f'{k}="{v}"' in line for k, v in labels.items()):
            total += float(line.rpartition(" ")[2])
    return total

"""What comes over a connection, byte by byte: broken, too large, split, sent ahead, asking for another protocol."""

import gzip
import json
import socket
import time
import zlib
from contextlib import closing
from pathlib import Path

import httpx2
import pytest

from tests.gateway.conftest import BODY_LIMIT
from tests.http import CHAT, chat, error_of, post, raw, raw_answer, shaped
from tests.process import Gateway, gateway

HOST = b"host: localhost\r\n"
JSON = "content-type: application/json"
BODY = json.dumps(chat("fake/fake")).encode()
HEALTH = b"GET /health HTTP/1.1\r\n" + HOST + b"\r\n"
POST_CHUNKED = f"POST {CHAT} HTTP/1.1\r\nhost: localhost\r\n{JSON}\r\ntransfer-encoding: chunked\r\n\r\n".encode()


def everything(port: int, *pieces: bytes, pause_s: float = 0.02) -> bytes:
    """All that comes back until the gateway closes."""
    got = b""
    with closing(socket.create_connection(("127.0.0.1", port), timeout=10)) as connection:
        for n, piece in enumerate(pieces):
            time.sleep(pause_s if n else 0)
            connection.sendall(piece)
        while piece := connection.recv(65536):
            got += piece
    return got


def statuses(got: bytes) -> list[int]:
    return [int(part[:3]) for part in got.split(b"HTTP/1.1 ")[1:]]


def request(line: bytes = b"GET /health HTTP/1.1", *headers: bytes, body: bytes = b"") -> bytes:
    return b"\r\n".join((line, *headers, b"", body))


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"hello there\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        request(),
        request(b"GET /health HTTP/9", b"host: a"),
        request(b"get /health HTTP/1.1", b"host: a"),
        request(b"GET http://evil.example/health HTTP/1.1", b"host: localhost"),
        request(b"OPTIONS * HTTP/1.1", b"host: a"),
        request(b"CONNECT evil.example:443 HTTP/1.1", b"host: a"),
        request(b"CONNECT /health HTTP/1.1", b"host: a"),
        request(b"GET /hea\0lth HTTP/1.1", b"host: a"),
        request(b"GET /\xff\xfe HTTP/1.1", b"host: a"),
        request(b"GET /health HTTP/1.1", b"host: a", b"x: a\0b"),
        request(b"GET /health HTTP/1.1", b"host: a", b"x\0: ab"),
        request(b"GET /health HTTP/1.1", b"host: a", b"x: a", b" folded"),
        request(b"GET /health HTTP/1.1", b"host : a"),
        request(b"GET /health HTTP/1.1", b" host: a"),
        request(b"GET /health HTTP/1.1", b"host: a", b"no colon"),
        request(b"GET /health HTTP/1.1", b"host: a", b"x: a\rb"),
        b"GET /health HTTP/1.1\nhost: a\n\n",
        request(b"GET /health HTTP/1.1", b"host: localhost", b"host: localhost"),
        *[
            request(f"POST {CHAT} HTTP/1.1".encode(), b"host: localhost", JSON.encode(), *lines, body=b"0\r\n\r\n")
            for lines in (
                (b"content-length: 1x",),
                (b"content-length: -1",),
                (b"content-length: +1",),
                (b"content-length: 1, 1",),
                (b"content-length: 99999999999999999999999",),
                (b"content-length: 5", b"content-length: 6"),
                (b"content-length: 5", b"content-length: 5"),
                (b"content-length: 5", b"transfer-encoding: chunked"),
                (b"transfer-encoding: chunked", b"content-length: 5"),
                (b"transfer-encoding: xchunked",),
                (b"transfer-encoding: chunked, identity",),
                (b"transfer-encoding: chunked", b"transfer-encoding: chunked"),
                (b"transfer-encoding: \x0bchunked",),
            )
        ],
        POST_CHUNKED + b"zz\r\n",
        POST_CHUNKED + b"1\na\r\n0\r\n\r\n",
        POST_CHUNKED + b"1\r\nabc\r\n0\r\n\r\n",
        POST_CHUNKED + b"-1\r\n",
    ],
    ids=lambda data: repr(data[:60]),
)
def test_what_is_not_quite_http_is_400_and_the_end(open_house: Gateway, data: bytes) -> None:
    got = everything(open_house.port, data)
    assert statuses(got) == [400]
    head, _, body = got.partition(b"\r\n\r\n")
    assert b"\r\nconnection: close" in head
    assert b"\r\nx-request-id: req_" in head
    assert b"\r\ncontent-type: application/json" in head
    assert shaped(json.loads(body))["type"] == "invalid_request_error"


def test_an_anthropic_client_is_told_in_its_own_words(open_house: Gateway) -> None:
    got = everything(open_house.port, POST_CHUNKED.replace(CHAT.encode(), b"/v1/messages") + b"zz\r\n")
    body = json.loads(got.partition(b"\r\n\r\n")[2])
    assert (body["type"], body["error"]["type"]) == ("error", "invalid_request_error")


ENDLESS = b"x" * 1_000_000


@pytest.mark.parametrize(
    "data",
    [
        request(b"GET /health HTTP/1.1", b"host: a", *[b"x-%d: y" % n for n in range(100)]),
        request(b"GET /health HTTP/1.1", b"host: a", b"x: " + b"y" * 17_000),
        request(b"GET /health?" + b"y" * 9_000 + b" HTTP/1.1", b"host: a"),
        b"GET /" + ENDLESS,
        b"GET /health HTTP/1.1\r\n" + HOST + b"x: " + ENDLESS,
        b"GET /health HTTP/1.1\r\n" + HOST + b"x: y\r\n" * 200_000,
        ENDLESS.replace(b"x", b"X"),
        POST_CHUNKED + b"1;" + ENDLESS,
        POST_CHUNKED + b"2\r\n{}\r\n0\r\nx: " + ENDLESS,
    ],
    ids=lambda data: repr(data[:40]),
)
def test_heads_without_end_are_431_or_400(open_house: Gateway, data: bytes) -> None:
    got = everything(open_house.port, data)
    assert statuses(got) in ([431], [400])
    shaped(json.loads(got.partition(b"\r\n\r\n")[2]))


def test_a_header_after_the_body_is_not_believed(house: Gateway) -> None:
    trailer = b"%x\r\n%s\r\n0\r\nauthorization: Bearer nonsense\r\nx-request-id: after\r\n\r\n" % (len(BODY), BODY)
    with raw(house.port, POST_CHUNKED + trailer) as connection:
        assert b" 401 " in connection.recv(65536)
    assert not [line for line in house.log if line.get("request_id") == "after"]


def test_a_request_may_come_in_single_bytes(open_house: Gateway) -> None:
    data = post(CHAT, BODY, JSON, "connection: close")
    assert statuses(everything(open_house.port, *(data[n : n + 1] for n in range(len(data))), pause_s=0)) == [200]


def test_requests_sent_ahead_are_answered_in_order_and_only_so_many(open_house: Gateway) -> None:
    ready = HEALTH.replace(b"health", b"ready")
    got = everything(open_house.port, HEALTH + ready + HEALTH.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n"))
    assert statuses(got) == [200, 200, 200]
    assert got.index(b'"status":"ok"') < got.index(b'"status":"ready"')
    many = statuses(everything(open_house.port, HEALTH * 1000))
    assert set(many) == {200}
    assert len(many) < 50


def test_junk_behind_a_request_does_not_spoil_its_answer(open_house: Gateway) -> None:
    got = everything(open_house.port, post(CHAT, json.dumps(chat("slow/fake", stream=True)).encode(), JSON) + b"\0junk")
    assert statuses(got) == [200]
    assert got.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")


def test_a_wish_for_another_protocol_is_passed_over(open_house: Gateway) -> None:
    """As Java's client says with every request."""
    h2c = ("connection: upgrade, http2-settings", "upgrade: h2c", "http2-settings: AAMAAABkAAQAoAAAAAIAAAAA")
    data = post(CHAT, BODY, JSON, *h2c)
    assert statuses(everything(open_house.port, data, data + HEALTH, post(CHAT, b"", "connection: close"))) == (
        [200, 200, 200, 400]
    )


class TestExpectation:
    """`Expect: 100-continue`: the client waits to hear whether its body is welcome."""

    def head(self, length: int) -> bytes:
        lines = (f"POST {CHAT} HTTP/1.1", "host: localhost", JSON, "expect: 100-continue", f"content-length: {length}")
        return "\r\n".join((*lines, "", "")).encode()

    def test_a_welcome_body_is_called_for(self, open_house: Gateway) -> None:
        with raw(open_house.port, self.head(len(BODY))) as connection:
            assert connection.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
            connection.sendall(BODY)
            assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")

    def test_an_unwelcome_one_is_not_and_the_connection_ends(self, open_house: Gateway) -> None:
        got = everything(open_house.port, self.head(BODY_LIMIT + 1))
        assert statuses(got) == [413]
        assert b"\r\nconnection: close" in got


def test_a_client_that_sends_on_can_read_why_it_was_refused(open_house: Gateway) -> None:
    """Closing with its bytes unread would reset the connection, the answer with it."""
    head = f"POST {CHAT} HTTP/1.1\r\nhost: localhost\r\n{JSON}\r\ncontent-length: 50000000\r\n\r\n".encode()
    got = everything(open_house.port, head, *[b"x" * 100_000] * 50, pause_s=0)
    assert statuses(got) == [413]


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_a_compressed_body_is_read(open_client: httpx2.Client, coding: str) -> None:
    small = gzip.compress(BODY) if coding == "gzip" else zlib.compress(BODY)
    large = json.dumps(chat("fake/fake", "".join(f"{n:x} " for n in range(120_000)))).encode()
    packed = gzip.compress(large) if coding == "gzip" else zlib.compress(large)
    assert len(large) < BODY_LIMIT
    for body in (small, packed):
        answer = open_client.post(
            CHAT, content=body, headers={"content-encoding": coding, "content-type": "application/json"}
        )
        assert answer.status_code == 200


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (gzip.compress(b" " * 100_000_000), 413),
        (gzip.compress(b'{"a":"' + b" " * BODY_LIMIT + b'"}'), 413),
        (gzip.compress(BODY)[:-5], 400),
        (gzip.compress(BODY) + b"more", 400),
        (gzip.compress(BODY) * 2, 400),
        (BODY, 400),
        (b"", 400),
    ],
    ids=["bomb", "too large", "cut off", "with a tail", "two", "plain", "empty"],
)
def test_a_body_that_does_not_decompress_well_is_refused(open_client: httpx2.Client, body: bytes, status: int) -> None:
    headers = {"content-encoding": "gzip", "content-type": "application/json"}
    answer = open_client.post(CHAT, content=body, headers=headers)
    assert answer.status_code == status
    error_of(answer)


@pytest.mark.parametrize(
    "value",
    ["9" * 100_000, "-" + "9" * 5_000, "1." + "1" * 100_000, "1e400", "1e" + "9" * 1_000, "0." + "0" * 9_000 + "1"],
    ids=lambda value: value[:6],
)
def test_numbers_of_any_length_are_an_answer_or_a_400(open_client: httpx2.Client, value: str) -> None:
    for name in ("seed", "temperature", "unheard_of"):
        body = BODY[:-1] + f', "{name}": {value}}}'.encode()
        answer = open_client.post(CHAT, content=body, headers={"content-type": "application/json"})
        assert answer.status_code in (200, 400)


def test_a_body_that_is_hard_to_look_through_holds_nobody_up(open_house: Gateway) -> None:
    body = b'{"a":"' + b"[" * 100 + b'\\"' * 200_000
    began = time.monotonic()
    status, _ = raw_answer(open_house.port, post(CHAT, body, JSON))
    assert status == 400
    assert time.monotonic() - began < 5


PRELUDE = """
import json, socket, sys
from gateway.connection import Connection
made = Connection.connection_made
def noted(self, transport):
    made(self, transport)
    with socket.socket(fileno=socket.dup(transport.get_extra_info("socket").fileno())) as copy:
        on = copy.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    print(json.dumps({"event": "accepted", "nodelay": bool(on)}), file=sys.stderr, flush=True)
Connection.connection_made = noted
"""


def test_an_ipv6_address_is_listened_on_and_small_segments_are_not_held_back(tmp_path: Path) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    tree = {"server": {"host": "::1"}, "backends": {"fake": {"kind": "fake"}}}
    with gateway(tmp_path, tree, prelude=PRELUDE) as running, httpx2.Client(base_url=running.url) as http:
        assert running.url.startswith("http://[::1]:")
        assert http.get("/health").status_code == 200
        assert running.wait_for("accepted")["nodelay"] is True

"""What is said to a gateway, byte by byte, and what it says; and what every answer has to be, whatever was asked."""

import http.client
import json
import re
import select
import socket
from contextlib import closing, suppress
from enum import Enum

from msgspec import Struct, field

from tests.gateway.conftest import ADMIN_KEY, APP_KEY, READER_KEY
from tests.http import shaped

Header = tuple[bytes, bytes]
TIMEOUT_S = 30.0
PATIENCE_S = 0.05
"""How long an answer is waited for when a request may not be whole, before the client gives up."""
JSON = (b"content-type", b"application/json")
UPSTREAM = {
    "upstream_error",
    "upstream_bad_response",
    "upstream_unreachable",
    "upstream_timeout",
    "upstream_auth_failed",
    "server_is_overloaded",
}
"""The codes of what a provider, or its client's own time limit, brings about."""
_path_ends = re.compile(rb"[?#]")
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_sane_id = re.compile(r"[A-Za-z0-9._\-]{1,128}").fullmatch


class Key(Enum):
    """How a client shows who it is."""

    NONE = ()
    GOOD = ((b"authorization", b"Bearer " + APP_KEY.encode()),)
    PLAIN = ((b"x-api-key", APP_KEY.encode()),)
    OTHER = ((b"api-key", ADMIN_KEY.encode()),)
    NARROW = ((b"authorization", b"bearer " + READER_KEY.encode()),)
    TWO = ((b"authorization", b"Bearer " + APP_KEY.encode()), (b"x-api-key", b"another"))
    WRONG = ((b"authorization", b"Bearer nobody"),)
    BASIC = ((b"authorization", b"Basic dXNlcjpwYXNz"),)
    EMPTY = ((b"authorization", b"Bearer "),)
    STRANGE = ((b"x-api-key", b"\xff\xfe\x80" + APP_KEY.encode()),)


class Answer(Struct, frozen=True):
    status: int
    headers: dict[str, str]
    body: bytes


class Ask(Struct, frozen=True, kw_only=True):
    method: bytes = b"POST"
    target: bytes
    headers: tuple[Header, ...] = (JSON,)
    body: bytes = b""
    key: Key = Key.NONE
    locked: bool = False
    """For the gateway that wants keys."""
    version: bytes = b"HTTP/1.1"
    framing: tuple[Header, ...] | None = None
    """How the body's length is told; None for the truth."""
    extra: tuple[bytes, ...] = field(default_factory=tuple)
    """Lines of the head that are no headers."""
    host: bytes | None = b"127.0.0.1"
    sure: bool = True
    """It is one request beyond doubt, so that it must have one answer."""

    def bytes(self) -> bytes:
        framing = ((b"content-length", b"%d" % len(self.body)),) if self.framing is None else self.framing
        host = () if self.host is None else ((b"host", self.host),)
        headers = (*host, *self.headers, *self.key.value, *framing)
        lines = [b"%s %s %s" % (self.method, self.target, self.version)]
        lines += (b"%s: %s" % header for header in headers)
        return b"\r\n".join((*lines, *self.extra, b"connection: close", b"", self.body))

    def said_to(self, port: int) -> Answer | None:
        """What the gateway on this port says to it; None for nothing, where that is an answer."""
        with closing(socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_S)) as connection:
            # It may be refused before it is whole.
            with suppress(BrokenPipeError, ConnectionResetError):
                connection.sendall(self.bytes())
                if not self.sure and not _answers(connection):
                    connection.shutdown(socket.SHUT_WR)
            response = http.client.HTTPResponse(connection, method=self.method.decode("latin-1"))
            try:
                response.begin()
            except (http.client.RemoteDisconnected, ConnectionResetError):
                assert not self.sure, f"no answer to {self!r}"
                return None
            with response:
                body = response.read()
            headers: dict[str, str] = {}
            for name, value in response.getheaders():
                assert name.lower() not in headers or name.lower() in ("set-cookie", "vary"), f"{name} twice: {self!r}"
                headers[name.lower()] = value
            return Answer(response.status, headers, body)


def _answers(connection: socket.socket) -> bool:
    """Whether there is an answer soon; to be told to go on is none."""
    while select.select([connection], [], [], PATIENCE_S)[0]:
        if connection.recv(len(_CONTINUE) + 1, socket.MSG_PEEK) != _CONTINUE:
            return True
        connection.recv(len(_CONTINUE))
    return False


def judge(ask: Ask, answer: Answer | None, secrets: tuple[str, ...]) -> None:
    """Hold an answer to what every client may rely on."""
    if answer is None:
        return
    about = f"{ask!r}\n{answer!r}"
    assert _sane_id(answer.headers.get("x-request-id", "")), about
    said = answer.body.decode("utf-8", "replace") + repr(answer.headers)
    assert not any(secret in said for secret in secrets), about
    assert 200 <= answer.status < 600, about
    media = answer.headers.get("content-type", "").partition(";")[0]
    if ask.method == b"HEAD":
        assert not answer.body, about
        assert answer.status < 500, about
    elif answer.status >= 400:
        if answer.headers.get("x-gateway-backend") is None or media == "application/json":
            assert media == "application/json", about
            code = error_code(ask, answer, about)
            if answer.status >= 500:
                assert may_fail(ask), about
                assert code in UPSTREAM, about
    elif media == "application/json":
        json.loads(answer.body)
    elif media == "text/event-stream":
        check_stream(ask, answer, about)


def error_code(ask: Ask, answer: Answer, about: str) -> str | None:
    """The code of an error in the shape of its path's dialect; Anthropic's errors have a type instead."""
    body = json.loads(answer.body)
    asked = {name.lower() for name, _ in ask.headers}
    path = _path_ends.split(ask.target)[0]
    anthropic = path == b"/v1/messages" or path.startswith(b"/v1/messages/")
    # A path may be written in an odd way, or be no dialect's own: then the client may have named one.  And what is
    # no HTTP has no path.
    either = b"%" in path or b"anthropic-version" in asked or (not ask.sure and b"not valid HTTP" in answer.body)
    if "type" in body or (anthropic and not either):
        assert anthropic or either, about
        assert body.get("type") == "error", about
        assert set(body) == {"type", "error", "request_id"}, about
        assert {"type", "message"} <= set(body["error"]), about
        assert isinstance(body["error"]["message"], str), about
        assert body["error"]["message"], about
        return "upstream_error"
    code = shaped(body)["code"]
    return code if code is None else str(code)


def may_fail(ask: Ask) -> bool:
    """Whether a provider misbehaves at this request's own wish, or it may take too little time."""
    return misbehaves(ask.body) or any(name == b"x-request-timeout" for name, _ in ask.headers)


def misbehaves(body: bytes) -> bool:
    """Whether a body may have a provider misbehave."""
    return any(mark in body for mark in (b"status:", b"cut:", b"html", b"reset", b"error_event"))


def check_stream(ask: Ask, answer: Answer, about: str) -> None:
    """Every event is JSON, and the last one says that there are no more."""
    events = [e for e in answer.body.replace(b"\r\n", b"\n").split(b"\n\n") if e and not e.startswith(b":")]
    assert answer.body.endswith((b"\n\n", b"\r\n\r\n")), about
    data = []
    for event in events:
        lines = event.split(b"\n")
        assert all(line.startswith((b"data:", b"event:", b"id:", b":")) for line in lines), about
        data += [line.removeprefix(b"data:").strip() for line in lines if line.startswith(b"data:")]
    assert data, about
    for one in data:
        if one != b"[DONE]":
            json.loads(one)
    fails = b'"error"' in data[-1] and b'"message"' in data[-1]
    if fails and b'"status":"completed"' not in data[-1]:
        assert may_fail(ask), about
        assert b"[DONE]" not in data, about
    elif _path_ends.split(ask.target)[0] in (b"/v1/chat/completions", b"/v1/completions"):
        assert data[-1] == b"[DONE]", about

"""The half of the hub that hands out: /{repo}/resolve/{revision}/{path}, and the second host that large files lie on.

Small files are answered at once; for those in LFS the hub sends on to a signed address, which holds for a while and
knows no token.  `twist` has an answer go wrong in one of the ways that lines, mirrors and caches have.
"""

import contextlib
import gzip
import re
import socket
import struct
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, quote, unquote, urlencode, urlsplit

from msgspec import Struct

from tests.hub.content import HubFile
from tests.hub.metadata import Refusal, check_readable, commit_of, repo_of, user_of

if TYPE_CHECKING:
    from tests.hub import Fault, Handler, HubServer

PIECE = 256 << 10
"""Bytes that are sent at a time."""
SIGNED_S = 3600
_route = re.compile(r"/(?P<id>[^/]+(?:/[^/]+)?)/resolve/(?P<revision>[^/]+)/(?P<path>.+)$")
_stored = re.compile(r"/repos/(?P<id>[^/]+(?:/[^/]+)?)/(?P<sha256>[0-9a-f]{64})$")
_range = re.compile(r"bytes=(\d+)-(\d*)$")


class Twist(Struct, frozen=True, kw_only=True):
    """How an answer goes wrong; offsets count from the beginning of the answer, unless it is said otherwise."""

    cut: int | None = None
    """After so many bytes the connection is closed."""
    reset: bool = False
    """It is closed with an RST."""
    stall: int | None = None
    """After so many bytes no more come, for `stall_s`."""
    stall_s: float = 30.0
    bytes_per_s: float | None = None
    trickle: bool = False
    """With `bytes_per_s`: a byte at a time."""
    length: int | None = None
    """What Content-Length says."""
    chunked: bool = False
    ignores_range: bool = False
    ignores_if_range: bool = False
    content_range: str | None = None
    etag: str | None = None
    """Of both hosts."""
    corrupt_at: int | None = None
    """The byte at this offset of the file is another one."""
    location: str | None = None
    """Whoever asks is sent there."""
    status: int = 302
    """With `location`."""
    extra: bytes = b""
    """Comes after the end."""


def twist(server: "HubServer", prefix: str, *, times: int = 1, cdn: bool = False, **how: Any) -> "Fault":
    """Have the next answers to these paths go wrong: see Twist."""
    wrong = Twist(**how)

    def act(handler: "Handler") -> bool:
        vars(handler)["twist"] = wrong
        return False

    return server.fault(prefix, act, times=times, cdn=cdn)


def expire(server: "HubServer", prefix: str, *, times: int = 1) -> "Fault":
    """Have signed addresses be over by the time they are used."""

    def act(handler: "Handler") -> bool:
        _expired(handler)
        return True

    return server.fault(prefix, act, times=times, cdn=True)


def sent(server: "HubServer") -> list[tuple[str, int, int]]:
    """What was handed out so far: the path that was asked for, and from where up to where, by bytes of the file."""
    return list(_book(server))


def _book(server: "HubServer") -> list[tuple[str, int, int]]:
    book: list[tuple[str, int, int]] = vars(server).setdefault("sent", [])
    return book


def serve(server: "HubServer", handler: "Handler") -> bool:
    """Answer a request for a file; False: it is none."""
    wrong: Twist = vars(handler).pop("twist", None) or Twist()
    if wrong.location is not None:
        _send_on(handler, wrong.location, {}, status=wrong.status)
        return True
    path = urlsplit(handler.path).path
    if handler.cdn:
        if (stored := _stored.match(unquote(path))) is None:
            return False
        _store(server, handler, stored["id"], stored["sha256"], wrong)
        return True
    if (found := _route.match(path)) is None:
        return False
    try:
        _resolve(server, handler, unquote(found["id"]), unquote(found["revision"]), unquote(found["path"]), wrong)
    except Refusal as e:
        handler.error(e.status, e.code, str(e))
    return True


def _resolve(server: "HubServer", handler: "Handler", id_: str, revision: str, path: str, wrong: Twist) -> None:
    user = user_of(server, handler)
    repo = repo_of(server, handler, id_, user)
    commit = commit_of(repo, revision)
    told = {"x-repo-commit": commit.id, "accept-ranges": "bytes"}
    if (file := commit.files.get(path)) is None:
        handler.error(404, "EntryNotFound", "Entry not found", told)
        return
    check_readable(repo, user)
    etag = f'"{wrong.etag or file.etag}"'
    if not file.lfs:
        _hand_out(
            server, handler, file, told | {"etag": etag, "content-disposition": f'inline; filename="{path}"'}, wrong
        )
        return
    signed = urlencode({"Expires": int(time.time()) + SIGNED_S, "Signature": "c2lnbmVk", "Key-Pair-Id": "LOOPBACK"})
    told |= {"x-linked-size": str(file.size), "x-linked-etag": etag}
    _send_on(handler, f"{server.cdn_url}/repos/{quote(id_)}/{file.sha256}?{signed}", told)


def _store(server: "HubServer", handler: "Handler", id_: str, sha256: str, wrong: Twist) -> None:
    query = parse_qs(urlsplit(handler.path).query)
    if handler.asked.token is not None:
        handler.send_body(b"<Error>Only one auth mechanism allowed</Error>", status=400)
        return
    if "Signature" not in query or int(query.get("Expires", ["0"])[0]) < time.time():
        _expired(handler)
        return
    repo = server.repos[id_]
    file = next(file for commit in repo.commits for file in commit.files.values() if file.sha256 == sha256)
    _hand_out(server, handler, file, {"etag": f'"{wrong.etag or file.etag}"', "accept-ranges": "bytes"}, wrong)


def _expired(handler: "Handler") -> None:
    body = b'<?xml version="1.0"?><Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>'
    handler.send_body(body, status=403, headers={"content-type": "application/xml"})


def _send_on(handler: "Handler", location: str, told: dict[str, str], *, status: int = 302) -> None:
    said = b"Found. Redirecting."
    handler.send_body(said, status=status, headers=told | {"location": location, "content-type": "text/plain"})


def _hand_out(server: "HubServer", handler: "Handler", file: HubFile, told: dict[str, str], wrong: Twist) -> None:
    start, end, status = 0, file.size, 200
    if (wanted := handler.asked.headers.get("range")) and not wrong.ignores_range:
        condition = handler.asked.headers.get("if-range")
        given = _range.match(wanted)
        if given and (condition in (None, told["etag"]) or wrong.ignores_if_range):
            start = int(given[1])
            end = min(int(given[2]) + 1, file.size) if given[2] else file.size
            status = 206
    if start >= file.size and status == 206:
        handler.send_body(b"", status=416, headers=told | {"content-range": f"bytes */{file.size}"})
        return
    if not file.lfs and status == 200 and "gzip" in handler.asked.headers.get("accept-encoding", ""):
        packed = gzip.compress(file.content.read(0, file.size))
        handler.send_body(packed, headers=told | {"content-encoding": "gzip", "etag": f"W/{told['etag']}"})
        return
    handler.send_response(status)
    if status == 206:
        told["content-range"] = wrong.content_range or f"bytes {start}-{end - 1}/{file.size}"
    for name, text in told.items():
        handler.send_header(name, text)
    if wrong.chunked:
        handler.send_header("transfer-encoding", "chunked")
    else:
        length = end - start + len(wrong.extra) if wrong.length is None else wrong.length
        handler.send_header("content-length", str(length))
    if wrong != Twist():
        handler.send_header("connection", "close")
        handler.close_connection = True
    handler.end_headers()
    if handler.command != "HEAD":
        _send(server, handler, file, start, end, wrong)


def _send(server: "HubServer", handler: "Handler", file: HubFile, start: int, end: int, wrong: Twist) -> None:
    at, until = start, end if wrong.cut is None else min(end, start + wrong.cut)
    stall = None if wrong.stall is None else start + wrong.stall
    step = PIECE
    if wrong.bytes_per_s:
        step = 1 if wrong.trickle else max(1, min(PIECE, int(wrong.bytes_per_s / 20)))
    try:
        while at < until:
            if stall is not None and at >= stall:
                _silence(handler, wrong.stall_s)
                return
            size = min(step, until - at, stall - at if stall is not None else step)
            piece = file.content.read(at, at + size)
            if wrong.corrupt_at is not None and at <= wrong.corrupt_at < at + size:
                there = wrong.corrupt_at - at
                piece = piece[:there] + bytes((piece[there] ^ 0xFF,)) + piece[there + 1 :]
            handler.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece) if wrong.chunked else piece)
            at += size
            if wrong.bytes_per_s:
                time.sleep(size / wrong.bytes_per_s)
        if wrong.extra:
            handler.wfile.write(wrong.extra)
        if wrong.chunked and wrong.cut is None:
            handler.wfile.write(b"0\r\n\r\n")
        if wrong.reset:
            handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    finally:
        _book(server).append((handler.asked.path, start, at))


def _silence(handler: "Handler", seconds: float) -> None:
    """Until whoever asked leaves."""
    handler.connection.settimeout(seconds)
    with contextlib.suppress(OSError):
        handler.connection.recv(1)

"""Whatever a line, a mirror or a cache does: the file comes whole, or the transfer says why it does not."""

import socket
import time
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from compat.canonical.error import (
    AuthFailed,
    BadResponse,
    Corrupted,
    GatedRepo,
    GatewayError,
    NotFound,
    RateLimited,
    TimedOut,
    Unreachable,
    UpstreamFailed,
)
from gateway.downloads import transfer
from tests.gateway.downloads.fetching import (
    LARGE,
    MIB,
    REPO,
    RESOLVE,
    SMALL,
    STORED,
    TOKEN,
    contents,
    fetched,
    left,
    part_fetched,
    piece_of,
    repository,
    without_hash,
)
from tests.hub import HubServer, hub
from tests.hub.files import expire, sent, twist


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    monkeypatch.setattr(transfer, "AGAIN_S", 0.02)
    with hub(repository()) as running:
        yield running


@pytest.mark.parametrize(
    "how",
    [
        {"cut": 0},
        {"cut": MIB + 12_345},
        {"cut": MIB + 12_345, "reset": True},
        {"stall": 0},
        {"stall": MIB + 7},
        {"bytes_per_s": 6 * MIB},
        {"bytes_per_s": 60_000, "trickle": True, "cut": 300},
        {"bytes_per_s": 200, "trickle": True},
        {"length": 3 * MIB + 5},
        {"length": MIB},
        {"length": 3 * MIB, "cut": 2 * MIB},
        {"chunked": True},
        {"chunked": True, "cut": MIB},
        {"extra": b"and more"},
        {"extra": b"and more", "chunked": True},
        {"location": "/nowhere", "status": 302},
    ],
    ids=str,
)
async def test_an_answer_that_goes_wrong_is_gone_on_with(
    server: HubServer, tmp_path: Path, how: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "SLOW_S", 0.5)
    piece = piece_of(server, tmp_path)
    twist(server, STORED, cdn=True, **how)
    await fetched(piece, stall_s=0.5, retries=1)
    assert piece.path.read_bytes() == contents(server)
    assert left(tmp_path) == {LARGE}
    if not how.keys() & {"reset", "length", "extra"}:  # then what was under way is lost
        again = sum(end - start for _, start, end in sent(server)) - piece.size_bytes
        assert again <= MIB // 2, "what had come was fetched again"


@pytest.mark.parametrize(
    "how",
    [
        {"ignores_range": True},
        {"content_range": f"bytes 0-{3 * MIB - 1}/{3 * MIB}"},
        {"content_range": f"bytes {MIB}-{3 * MIB - 1}/{4 * MIB}"},
        {"content_range": "bytes of some kind"},
    ],
    ids=str,
)
async def test_only_the_part_that_was_asked_for_is_taken(
    server: HubServer, tmp_path: Path, how: dict[str, Any]
) -> None:
    piece = piece_of(server, tmp_path)
    await part_fetched(server, piece, MIB)
    twist(server, STORED, times=2, cdn=True, **how)
    await fetched(piece)
    assert piece.path.read_bytes() == contents(server)


async def test_a_file_that_is_shorter_by_now_is_fetched_anew(server: HubServer, tmp_path: Path) -> None:
    piece = piece_of(server, tmp_path)
    await part_fetched(server, piece, MIB)

    def nothing_more(handler: Any) -> bool:
        handler.send_body(b"", status=416, headers={"content-range": f"bytes */{MIB}"})
        return True

    server.fault(STORED, nothing_more, cdn=True)
    await fetched(piece)
    assert piece.path.read_bytes() == contents(server)


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
async def test_a_hub_that_fails_for_a_while_is_asked_again(server: HubServer, tmp_path: Path, status: int) -> None:
    piece = piece_of(server, tmp_path)
    server.refuse(RESOLVE, status, times=2)
    await fetched(piece, retries=2)
    assert piece.path.read_bytes() == contents(server)
    assert len(server.asked(cdn=False)) == 3


async def test_retry_after_is_kept(server: HubServer, tmp_path: Path) -> None:
    server.refuse(RESOLVE, 429, retry_after="1")
    await fetched(piece_of(server, tmp_path))
    first, second = server.asked(cdn=False)
    assert 0.95 < second.at - first.at < 3


async def test_retry_after_may_be_a_date(server: HubServer, tmp_path: Path) -> None:
    server.refuse(RESOLVE, 503, retry_after=formatdate(time.time() + 2, usegmt=True))
    await fetched(piece_of(server, tmp_path))
    first, second = server.asked(cdn=False)
    assert 0.9 < second.at - first.at < 3


async def test_a_signed_address_that_has_expired_is_asked_for_again(server: HubServer, tmp_path: Path) -> None:
    piece = piece_of(server, tmp_path)
    expire(server, STORED, times=2)
    await fetched(piece, retries=2)
    assert piece.path.read_bytes() == contents(server)
    assert len(server.asked(cdn=False)) == 3


async def test_attempts_count_only_while_they_bring_nothing(server: HubServer, tmp_path: Path) -> None:
    piece = piece_of(server, tmp_path)
    twist(server, STORED, times=20, cdn=True, cut=piece.size_bytes // 20)
    await fetched(piece, retries=0)
    assert piece.path.read_bytes() == contents(server)


async def test_what_comes_again_and_again_is_no_progress(server: HubServer, tmp_path: Path) -> None:
    """A host that knows no Range, and always hangs up at the same byte."""
    piece = piece_of(server, tmp_path)
    twist(server, STORED, times=99, cdn=True, ignores_range=True, cut=MIB)
    with pytest.raises(Unreachable):
        await fetched(piece, retries=2)
    assert len(server.asked(cdn=True)) < 15


async def test_a_trickle_is_given_up_like_silence(
    server: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "SLOW_S", 0.2)
    twist(server, STORED, times=99, cdn=True, bytes_per_s=200, trickle=True)
    with pytest.raises(TimedOut):
        await fetched(piece_of(server, tmp_path), stall_s=0.2, retries=1)


@pytest.mark.parametrize("path", [LARGE, SMALL])
async def test_a_wrong_byte_is_found_and_nothing_is_left(server: HubServer, tmp_path: Path, path: str) -> None:
    piece = piece_of(server, tmp_path, path)
    twist(server, "/", times=9, cdn=path == LARGE, corrupt_at=piece.size_bytes - 3)
    with pytest.raises(Corrupted) as caught:
        await fetched(piece)
    assert left(tmp_path) == set()
    assert caught.value.code == "checksum_mismatch"


@pytest.mark.parametrize("size", [-1, 1])
async def test_a_file_of_another_size_is_not_taken(server: HubServer, tmp_path: Path, size: int) -> None:
    piece = piece_of(server, tmp_path)
    piece = replace(without_hash(piece), size_bytes=piece.size_bytes + size)
    with pytest.raises(Corrupted):
        await fetched(piece, retries=1)
    assert left(tmp_path) == set()


async def test_a_file_that_is_another_by_now_is_not_taken(server: HubServer, tmp_path: Path) -> None:
    piece = piece_of(server, tmp_path, SMALL)
    twist(server, RESOLVE, times=9, etag="0" * 40)
    with pytest.raises(Corrupted):
        await fetched(piece, retries=1)
    assert not piece.path.exists()


@pytest.mark.parametrize(
    "location", ["ftp://localhost/x", "file:///secret", "http://", "http://[", "http://h:99999/", "//", ""], ids=str
)
async def test_an_address_that_is_none_is_not_followed(server: HubServer, tmp_path: Path, location: str) -> None:
    piece = piece_of(server, tmp_path)
    twist(server, RESOLVE, times=9, location=location)
    with pytest.raises((BadResponse, Unreachable)):
        await fetched(piece, retries=0, stall_s=0.5)


async def test_redirects_end(server: HubServer, tmp_path: Path) -> None:
    piece = piece_of(server, tmp_path)
    twist(server, RESOLVE, times=99, location=piece.url)
    with pytest.raises(BadResponse):
        await fetched(piece, retries=0)
    assert len(server.requests) == 6


@pytest.mark.parametrize(
    ("status", "code", "raised"),
    [
        (401, "GatedRepo", GatedRepo),
        (403, "GatedRepo", GatedRepo),
        (401, "RepoNotFound", NotFound),
        (401, None, AuthFailed),
        (404, "EntryNotFound", NotFound),
        (404, "RevisionNotFound", NotFound),
        (410, None, NotFound),
        (451, None, BadResponse),
        (429, None, RateLimited),
        (500, None, UpstreamFailed),
    ],
)
async def test_a_refusal_is_told_in_our_words(
    server: HubServer, tmp_path: Path, status: int, code: str | None, raised: type[GatewayError]
) -> None:
    piece = piece_of(server, tmp_path)
    server.refuse(RESOLVE, status, times=99, code=code)
    with pytest.raises(raised) as caught:
        await fetched(piece, token=TOKEN, retries=1)
    assert type(caught.value) is raised
    assert left(tmp_path) == set()
    if raised is NotFound:
        assert str(caught.value.code).endswith("_not_found")
    said = caught.value.message
    assert TOKEN not in said
    assert str(tmp_path) not in said
    assert (f"{server.url}/{REPO}" in said) == (raised is GatedRepo)
    asked = len(server.requests)
    assert asked == (2 if status in (429, 500) else 1), "only what may pass is asked again"


async def test_a_licence_that_is_not_accepted_is_named(tmp_path: Path) -> None:
    with hub(repository(gated="auto", readers={"reader"})) as server:
        server.tokens[TOKEN] = "reader"
        piece = piece_of(server, tmp_path)
        with pytest.raises(GatedRepo, match="accept "):
            await fetched(piece)
        await fetched(piece, token=TOKEN)
    assert piece.path.exists()


async def test_a_silent_hub_is_given_up(server: HubServer, tmp_path: Path) -> None:
    server.hang(RESOLVE, 10, times=9)
    with pytest.raises(TimedOut):
        await fetched(piece_of(server, tmp_path), stall_s=0.2, retries=1)


async def test_a_hub_that_is_not_there_is_told(server: HubServer, tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    for address in (f"http://127.0.0.1:{port}", "http://nobody.invalid"):
        piece = replace(piece_of(server, tmp_path), url=f"{address}/{REPO}/resolve/main/{LARGE}")
        with pytest.raises(Unreachable) as caught:
            await fetched(piece, retries=0)
        assert str(port) not in caught.value.message


@pytest.mark.parametrize(
    "answer", [b"SSH-2.0-OpenSSH_9.2\r\n", b"", b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 500, b"\0" * 70_000]
)
async def test_what_does_not_speak_http_is_told(server: HubServer, tmp_path: Path, answer: bytes) -> None:
    def act(handler: Any) -> bool:
        handler.wfile.write(answer)
        handler.close_connection = True
        return True

    server.fault(RESOLVE, act, times=9)
    with pytest.raises((BadResponse, Unreachable)):
        await fetched(piece_of(server, tmp_path), retries=0, stall_s=1)

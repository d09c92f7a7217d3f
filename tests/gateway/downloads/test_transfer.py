"""A file comes byte for byte, from the byte that was there, with its token for the hub alone."""

import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from compat.canonical.error import BadResponse, Conflict, Corrupted, InsufficientStorage
from gateway.downloads import part, transfer
from gateway.downloads.pace import Pace
from tests.gateway.downloads.fetching import (
    LARGE,
    MIB,
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
from tests.hub.files import sent, twist


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    monkeypatch.setattr(transfer, "AGAIN_S", 0.02)
    with hub(repository()) as running:
        yield running


@pytest.mark.parametrize("path", [LARGE, SMALL])
async def test_a_file_comes_byte_for_byte(server: HubServer, tmp_path: Path, path: str) -> None:
    piece, told, verified = piece_of(server, tmp_path, path), list[int](), list[int]()
    await fetched(piece, report=told.append, verifying=lambda: verified.append(told[-1]))
    assert piece.path.read_bytes() == contents(server, path)
    assert left(tmp_path) == {path}
    assert stat.S_IMODE(piece.path.stat().st_mode) == 0o600
    assert told == sorted(told)
    assert told[-1] == piece.size_bytes
    assert verified == [piece.size_bytes]


async def test_the_token_goes_to_the_hub_alone(server: HubServer, tmp_path: Path) -> None:
    server.tokens[TOKEN] = "somebody"
    await fetched(piece_of(server, tmp_path), token=TOKEN)
    (first,), (second,) = server.asked(cdn=False), server.asked(cdn=True)
    assert first.token == TOKEN
    assert second.token is None
    assert TOKEN not in repr(second)
    assert {first.headers["accept-encoding"], second.headers["accept-encoding"]} == {"identity"}


async def test_a_renamed_repository_is_followed_with_its_token(server: HubServer, tmp_path: Path) -> None:
    server.tokens[TOKEN] = "somebody"
    piece = piece_of(server, tmp_path)
    here = piece.url.removeprefix(server.url)
    twist(server, "/old/name/", location=here, status=307)
    await fetched(replace(piece, url=f"{server.url}/old/name/resolve/main/{LARGE}"), token=TOKEN)
    assert piece.path.read_bytes() == contents(server)
    assert [one.token for one in server.asked(cdn=False)] == [TOKEN, TOKEN]


async def test_what_is_there_and_right_is_not_asked_for(server: HubServer, tmp_path: Path) -> None:
    piece = piece_of(server, tmp_path)
    await fetched(piece)
    server.requests.clear()
    note = piece.part.with_name(f"{piece.part.name}.json")
    note.write_text("{}")  # left by one that was killed between two steps
    told: list[int] = []
    await fetched(piece, report=told.append)
    assert not server.requests
    assert told == [piece.size_bytes]
    assert left(tmp_path) == {LARGE}


async def test_what_is_there_and_wrong_is_replaced(server: HubServer, tmp_path: Path) -> None:
    piece = piece_of(server, tmp_path)
    piece.path.parent.mkdir()
    piece.path.write_bytes(bytes(piece.size_bytes))
    await fetched(piece)
    assert piece.path.read_bytes() == contents(server)


async def test_a_transfer_goes_on_from_the_byte_it_had(server: HubServer, tmp_path: Path) -> None:
    piece = piece_of(server, tmp_path)
    await part_fetched(server, piece, MIB)
    had = piece.part.stat().st_size
    server.requests.clear()
    told: list[int] = []
    await fetched(piece, report=told.append)
    assert piece.path.read_bytes() == contents(server)
    assert [one.headers["range"] for one in server.requests] == [f"bytes={had}-"] * 2
    assert server.asked(cdn=True)[0].headers["if-range"] == f'"{piece.sha256}"'
    assert told[0] == had
    assert sent(server)[-1][1:] == (had, piece.size_bytes)


@pytest.mark.parametrize("spoilt", ["no note", "another commit", "another size", "no JSON", "longer than the file"])
async def test_a_part_of_something_else_is_not_gone_on_with(server: HubServer, tmp_path: Path, spoilt: str) -> None:
    piece = piece_of(server, tmp_path)
    await part_fetched(server, piece, MIB)
    note = piece.part.with_name(f"{piece.part.name}.json")
    match spoilt:
        case "no note":
            note.unlink()
        case "another commit":
            note.write_text(note.read_text().replace(piece.commit or "", "0" * 40))
        case "another size":
            note.write_text(note.read_text().replace(f'"size":{piece.size_bytes}', '"size":5'))
        case "no JSON":
            note.write_bytes(b"\x00" * 64)
        case _:
            os.truncate(piece.part, piece.size_bytes + 1)
    server.requests.clear()
    await fetched(piece)
    assert not any("range" in one.headers for one in server.requests)
    assert piece.path.read_bytes() == contents(server)
    assert left(tmp_path) == {LARGE}


async def test_a_part_that_has_suffered_is_fetched_anew(server: HubServer, tmp_path: Path) -> None:
    piece = piece_of(server, tmp_path)
    await part_fetched(server, piece, MIB)
    with piece.part.open("r+b") as file:
        file.write(b"bad")
    await fetched(piece, retries=0)
    assert piece.path.read_bytes() == contents(server)


async def test_a_link_in_the_place_of_the_part_is_not_followed(server: HubServer, tmp_path: Path) -> None:
    piece, precious = piece_of(server, tmp_path / "models"), tmp_path / "precious"
    precious.write_bytes(b"precious")
    piece.path.parent.mkdir(parents=True)
    piece.part.symlink_to(precious)
    await fetched(piece)
    assert precious.read_bytes() == b"precious"
    assert not piece.path.is_symlink()
    assert piece.path.read_bytes() == contents(server)


async def test_a_fifo_in_the_place_of_the_part_holds_up_nobody(server: HubServer, tmp_path: Path) -> None:
    piece = piece_of(server, tmp_path)
    piece.path.parent.mkdir()
    os.mkfifo(piece.part)
    await fetched(piece)
    assert piece.path.read_bytes() == contents(server)


async def test_a_host_that_calls_the_file_otherwise_does_not_have_it_fetched_again(
    server: HubServer, tmp_path: Path
) -> None:
    """If-Range fails there; what is here is as good as before."""
    piece = piece_of(server, tmp_path)
    await part_fetched(server, piece, MIB)
    had = piece.part.stat().st_size
    twist(server, STORED, times=9, cdn=True, etag="moved-elsewhere")
    await fetched(piece, retries=0)
    assert piece.path.read_bytes() == contents(server)
    assert sent(server)[-1][1:] == (had, piece.size_bytes)


@pytest.mark.parametrize("path", [LARGE, SMALL])
async def test_a_file_that_no_list_tells_the_hash_of_is_held_against_what_the_hub_says_at_its_address(
    server: HubServer, tmp_path: Path, path: str
) -> None:
    piece = without_hash(piece_of(server, tmp_path, path))
    piece.path.parent.mkdir(exist_ok=True)
    piece.path.write_bytes(bytes(piece.size_bytes))  # as long as it should be
    await fetched(piece)
    assert piece.path.read_bytes() == contents(server, path)
    piece.path.unlink()
    for where in (STORED, RESOLVE):
        twist(server, where, times=9, cdn=where == STORED, corrupt_at=5)
    with pytest.raises(Corrupted):
        await fetched(piece)
    assert left(tmp_path) == set()


async def test_a_file_that_nobody_tells_the_hash_of_is_not_fetched(server: HubServer, tmp_path: Path) -> None:
    piece = without_hash(piece_of(server, tmp_path))
    twist(server, RESOLVE, times=9, location=f"{server.cdn_url}{STORED}{'0' * 64}")
    with pytest.raises(BadResponse, match="does not say what the file"):
        await fetched(piece)
    assert not server.asked(cdn=True)
    assert left(tmp_path) == set()


async def test_two_do_not_write_the_same_part(server: HubServer, tmp_path: Path) -> None:
    piece = piece_of(server, tmp_path)
    with part.part_of(piece), pytest.raises(Conflict):
        await fetched(piece)
    await fetched(piece)
    assert piece.path.read_bytes() == contents(server)


async def test_a_full_disk_keeps_what_is_there(
    server: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    piece, write = piece_of(server, tmp_path), os.pwrite

    def full(descriptor: int, data: memoryview, offset: int) -> int:
        if offset + len(data) > 2 * MIB + 1000:
            data = data[: max(0, 2 * MIB + 1000 - offset)]
            if not data:
                raise OSError(28, "No space left on device")
        return write(descriptor, data, offset)

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(InsufficientStorage) as caught:
        await fetched(piece)
    monkeypatch.setattr(os, "pwrite", write)
    assert str(tmp_path) not in caught.value.message
    assert piece.part.stat().st_size == 2 * MIB + 1000
    server.requests.clear()
    await fetched(piece)
    assert server.requests[0].headers["range"] == f"bytes={2 * MIB + 1000}-"
    assert piece.path.read_bytes() == contents(server)


async def test_a_folder_that_cannot_be_written_to_is_told(server: HubServer, tmp_path: Path) -> None:
    (tmp_path / "deep").write_bytes(b"in the way")
    with pytest.raises(OSError):
        await fetched(piece_of(server, tmp_path))
    assert not server.requests


async def test_the_pace_is_kept(server: HubServer, tmp_path: Path) -> None:
    began = time.monotonic()
    await fetched(piece_of(server, tmp_path), pace=Pace(6 * MIB))
    assert 0.4 < time.monotonic() - began < 3


async def test_progress_is_told_a_few_times_a_second(server: HubServer, tmp_path: Path) -> None:
    told: list[int] = []
    await fetched(piece_of(server, tmp_path), pace=Pace(3 * MIB), report=told.append)
    assert 2 <= len(told) <= 9

"""A transfer that is not wanted any more ends within a second, whatever it waits for, and leaves what it has."""

import asyncio
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest
from msgspec.structs import replace

from gateway.downloads.pace import Pace
from gateway.downloads.part import Note
from gateway.downloads.piece import Piece
from tests.gateway.downloads.fetching import (
    LARGE,
    MIB,
    RESOLVE,
    STORED,
    contents,
    fetched,
    piece_of,
    repository,
    transfers,
)
from tests.hub import HubServer, hub
from tests.hub.files import twist


@pytest.fixture
def server() -> Iterator[HubServer]:
    with hub(repository()) as running:
        yield running


async def _leaves(piece: Piece, pace: Pace | None = None, after_s: float = 0.3) -> None:
    task = asyncio.create_task(fetched(piece, pace=pace, stall_s=60))
    await asyncio.sleep(after_s)
    assert not task.done()
    assert transfers()
    began = time.monotonic()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert time.monotonic() - began < 1
    assert not transfers()


def _deaf(stack: ExitStack) -> int:
    """The port of a listener that accepts nobody, and has nobody else wait."""
    listener = stack.enter_context(socket.socket())
    listener.bind(("127.0.0.1", 0))
    listener.listen(0)
    port: int = listener.getsockname()[1]
    for _ in range(3):
        caller = stack.enter_context(socket.socket())
        caller.setblocking(False)
        caller.connect_ex(("127.0.0.1", port))
    return port


async def test_while_it_connects(server: HubServer, tmp_path: Path) -> None:
    with ExitStack() as stack:
        url = f"http://127.0.0.1:{_deaf(stack)}/a/b/resolve/main/{LARGE}"
        await _leaves(replace(piece_of(server, tmp_path), url=url))


async def test_while_the_hubs_name_is_looked_up(
    server: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    over = threading.Event()

    def slow(*_: Any, **__: Any) -> list[Any]:
        over.wait(10)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    try:
        await _leaves(piece_of(server, tmp_path))
    finally:
        over.set()


async def test_while_it_waits_for_tls(server: HubServer, tmp_path: Path) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        url = f"https://127.0.0.1:{listener.getsockname()[1]}/a/b/resolve/main/{LARGE}"
        await _leaves(replace(piece_of(server, tmp_path), url=url))


async def test_while_the_hub_is_silent(server: HubServer, tmp_path: Path) -> None:
    server.hang(RESOLVE, 20)
    await _leaves(piece_of(server, tmp_path))


async def test_while_nothing_more_comes(server: HubServer, tmp_path: Path) -> None:
    piece = piece_of(server, tmp_path)
    twist(server, STORED, cdn=True, stall=MIB + 77)
    await _leaves(piece)
    assert piece.part.stat().st_size == MIB + 77
    await fetched(piece)
    assert piece.path.read_bytes() == contents(server)


async def test_while_it_keeps_the_pace(server: HubServer, tmp_path: Path) -> None:
    await _leaves(piece_of(server, tmp_path), Pace(1000))


async def test_while_the_hub_wants_to_be_left_alone(server: HubServer, tmp_path: Path) -> None:
    server.refuse(RESOLVE, 429, retry_after="100")
    await _leaves(piece_of(server, tmp_path))


async def test_while_it_reads_what_is_there(server: HubServer, tmp_path: Path) -> None:
    piece = replace(piece_of(server, tmp_path), size_bytes=1 << 40)
    piece.path.parent.mkdir()
    piece.part.touch()
    os.truncate(piece.part, 1 << 39)
    piece.part.with_name(f"{piece.part.name}.json").write_bytes(msgspec.json.encode(Note.of(piece)))
    await _leaves(piece)
    assert piece.part.stat().st_size == 1 << 39


async def test_who_leaves_twice_still_waits_for_the_thread(server: HubServer, tmp_path: Path) -> None:
    server.hang(RESOLVE, 20)
    task = asyncio.create_task(fetched(piece_of(server, tmp_path)))
    await asyncio.sleep(0.1)
    task.cancel()
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not transfers()


async def test_no_files_stay_open(server: HubServer, tmp_path: Path) -> None:
    piece = piece_of(server, tmp_path)
    before = psutil.Process().num_fds()
    twist(server, STORED, cdn=True, stall=MIB)
    await _leaves(piece)
    await fetched(piece)
    await fetched(piece)
    await asyncio.sleep(0.1)  # the hub's end of the connections
    assert psutil.Process().num_fds() <= before + 2

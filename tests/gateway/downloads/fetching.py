"""One transfer from the loopback hub, as the tests begin it."""

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from gateway.downloads.pace import Pace
from gateway.downloads.piece import Piece
from gateway.downloads.transfer import fetch
from tests.hub import Content, HubRepo, HubServer, Made

MIB = 1 << 20
REPO, LARGE, SMALL = "acme/noise-gguf", "deep/noise-Q8_0.gguf", "config.json"
RESOLVE, STORED = f"/{REPO}/resolve/", f"/repos/{REPO}/"
"""How the paths begin that the hub and its second host are asked for."""
TOKEN = "hf_canary" + "t" * 25


def repository(size: int = 3 * MIB, **how: Any) -> HubRepo:
    files: dict[str, bytes | Content] = {LARGE: Made(size, seed=7), SMALL: b'{"model_type": "noise"}'}
    return HubRepo(REPO, files, **how)


def piece_of(server: HubServer, folder: Path, path: str = LARGE) -> Piece:
    repo = server.repos[REPO]
    file = repo.files[path]
    return Piece(
        url=f"{server.url}/{REPO}/resolve/{repo.commits[-1].id}/{path}",
        path=folder / path,
        size_bytes=file.size,
        sha256=file.sha256 if file.lfs else None,
        blob=None if file.lfs else file.blob_id,
        etag=file.etag,
        commit=repo.commits[-1].id,
    )


def contents(server: HubServer, path: str = LARGE) -> bytes:
    file = server.repos[REPO].files[path]
    return file.content.read(0, file.size)


async def fetched(
    piece: Piece,
    *,
    token: str | None = None,
    pace: Pace | None = None,
    report: Callable[[int], None] = lambda _: None,
    **how: Any,
) -> None:
    await fetch(piece, token=token, pace=pace or Pace(), report=report, **{"stall_s": 5.0, "retries": 2} | how)


async def part_fetched(server: HubServer, piece: Piece, size: int) -> None:
    """Have about so much of it fetched, and then given up."""
    slow = Pace(20 * MIB)
    enough = asyncio.Event()
    task = asyncio.create_task(
        fetched(piece, pace=slow, report=lambda here: enough.set() if here >= size else None, retries=0)
    )
    watching = asyncio.create_task(enough.wait())
    await asyncio.wait({task, watching}, return_when=asyncio.FIRST_COMPLETED, timeout=10)
    task.cancel()
    watching.cancel()
    await asyncio.gather(task, watching, return_exceptions=True)
    assert 0 < piece.part.stat().st_size < piece.size_bytes


def without_hash(piece: Piece) -> Piece:
    return replace(piece, sha256=None, blob=None, etag=None)


def left(folder: Path) -> set[str]:
    """The files there, by their paths inside."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()}


def transfers() -> list[str]:
    """The threads of transfers that run."""
    return [thread.name for thread in threading.enumerate() if thread.name == "transfer"]

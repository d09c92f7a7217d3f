"""Meshes as clients get them: checked, measured, in the formats they asked for, with a poster.

Each is worked on in a process of its own (`finisher`), which is gone when this is done, however it ends: some come
from strangers, and the libraries that read them are as heavy as what they read.
"""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress

import msgspec
from msgspec import Struct

from compat.canonical.error import BadResponse
from compat.canonical.event import Event, Produced, Progress
from compat.mesh import GLB, Facts, Format, made
from gateway.telemetry.logging import logger

GLB_MAX_BYTES = 128 * 1024 * 1024
FILES_MAX_BYTES = 512 * 1024 * 1024
WITHIN_S = 60.0
AT_ONCE = 2
"""Processes; others wait for their turn."""
POSTER_PX = 384

_PASSED = ("PATH", "PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "TMPDIR", "LANG")
_PIECE = 1024 * 1024


class Mesh(Struct, frozen=True):
    """A finished mesh."""

    files: dict[Format, bytes]
    facts: Facts
    poster: bytes | None
    """A PNG."""


class _Head(Struct):
    facts: Facts | None = None
    sizes: dict[str, int] = {}
    refused: str | None = None


class Meshes:
    """Where they are finished."""

    def __init__(self) -> None:
        self._places = asyncio.Semaphore(AT_ONCE)

    async def finish(self, glb: bytes, formats: Sequence[Format], *, poster: bool = True) -> Mesh:
        """Check, measure and convert a backend's mesh.  Cancelled, it leaves nothing behind.

        Raises BadResponse, which says what is wrong with it.
        """
        if len(glb) > GLB_MAX_BYTES:
            raise _unusable(f"it is larger than {GLB_MAX_BYTES} bytes")
        asked = {
            "parent": os.getpid(),
            "size": len(glb),
            "formats": list(formats),
            "poster_px": POSTER_PX if poster else None,
        }
        async with self._places:
            head, rest = await _answered(msgspec.json.encode(asked) + b"\n", glb)
        if head.facts is None:
            raise _unusable(head.refused or "nothing is known of it")
        files, at = {}, 0
        for name, size in head.sizes.items():
            files[name] = rest[at : at + size]
            at += size
        return Mesh({format_: files[format_] for format_ in formats}, head.facts, files.get("poster"))

    async def finished(
        self, events: AsyncGenerator[Event, None], formats: Sequence[Format]
    ) -> AsyncGenerator[Event, None]:
        """A backend's events, each mesh in them finished: one file for each format.  Raises BadResponse."""
        async with aclosing(events):
            async for event in events:
                if not isinstance(event, Produced) or event.partial is not None or event.media.mime != GLB:
                    yield event
                    continue
                if event.media.data is None:
                    raise _unusable("it did not come along")
                yield Progress(step=0, of=1, stage="finishing")
                mesh = await self.finish(event.media.data, formats)
                for n, format_ in enumerate(formats):
                    media = made(format_, mesh.files[format_], mesh.facts, mesh.poster)
                    yield Produced(media=media, index=event.index * len(formats) + n)


async def _answered(line: bytes, glb: bytes) -> tuple[_Head, bytes]:
    environment = {name: value for name, value in os.environ.items() if name in _PASSED}
    # Threads would only take address space, of which it has little.
    environment |= {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-P",
        "-m",
        "gateway.finisher",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
        env=environment,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    complaints = asyncio.create_task(_tail(process.stderr))
    try:
        async with asyncio.timeout(WITHIN_S):
            # One that ends early says so by what it says, or does not say.
            with suppress(ConnectionError):
                process.stdin.write(line)
                process.stdin.write(glb)
                await process.stdin.drain()
            said = await _read(process.stdout)
    except TimeoutError as e:
        raise _unusable(f"it is not finished in {WITHIN_S:g} s") from e
    finally:
        process.stdin.close()
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
        complained = await complaints
    head, newline, files = said.partition(b"\n")
    if not newline:
        logger().warning("mesh_unfinished", status=process.returncode, complained=complained)
        raise _unusable("it takes too much memory or time")
    return msgspec.json.decode(head, type=_Head), files


async def _read(stream: asyncio.StreamReader) -> bytes:
    pieces, size = [], 0
    while piece := await stream.read(_PIECE):
        pieces.append(piece)
        size += len(piece)
        if size > FILES_MAX_BYTES:
            raise _unusable(f"its files are larger than {FILES_MAX_BYTES} bytes")
    return b"".join(pieces)


async def _tail(stream: asyncio.StreamReader) -> str:
    """The last that is said, for operators: it may name paths."""
    last = b""
    while piece := await stream.read(65_536):
        last = (last + piece)[-1000:]
    return last.decode("utf-8", "replace")


def _unusable(why: str) -> BadResponse:
    return BadResponse(f"The backend's mesh cannot be used: {why}.")

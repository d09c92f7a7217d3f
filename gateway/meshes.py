"""Meshes as clients get them: checked, measured, in the formats they asked for, with a poster.

Each is worked on in a process of its own (`finisher`), which is gone when this is done, however it ends: some come
from strangers, and the libraries that read them are as heavy as what they read.
"""

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing

import msgspec
from msgspec import Struct

from backends.errand import Errands, Unfinished
from compat.canonical.error import BadResponse, GatewayError, TimedOut
from compat.canonical.event import Event, Produced, Progress
from compat.canonical.message import GLB
from compat.mesh import Facts, Format, made
from gateway.telemetry.logging import logger

GLB_MAX_BYTES = 128 * 1024 * 1024
FILES_MAX_BYTES = 512 * 1024 * 1024
WITHIN_S = 60.0
AT_ONCE = 2
"""Processes; others wait for their turn."""
POSTER_PX = 384


class Mesh(Struct, frozen=True):
    """A finished mesh."""

    files: dict[Format, bytes]
    facts: Facts
    poster: bytes | None
    """A PNG."""


def _unusable(why: str) -> BadResponse:
    return BadResponse(f"The backend's mesh cannot be used: {why}.")


class _Head(Struct):
    facts: Facts | None = None
    sizes: dict[str, int] = {}
    refused: str | None = None


class Meshes:
    """Where they are finished."""

    def __init__(self) -> None:
        self._errands = Errands(
            "gateway.finisher", at_once=AT_ONCE, within_s=WITHIN_S, answer_max_bytes=FILES_MAX_BYTES
        )

    async def finish(
        self,
        glb: bytes,
        formats: Sequence[Format],
        *,
        deadline: float | None = None,
        poster: bool = True,
        refusal: Callable[[str], GatewayError] = _unusable,
    ) -> Mesh:
        """Check, measure and convert a mesh: a backend's, unless `refusal` says otherwise of one that is no good.
        Cancelled, it leaves nothing behind.

        deadline: by the loop's clock; waiting for a place counts.
        Raises BadResponse, which says what is wrong with it, or what `refusal` makes of that, and TimedOut.
        """
        if len(glb) > GLB_MAX_BYTES:
            raise refusal(f"it is larger than {GLB_MAX_BYTES} bytes")
        asked = {"formats": list(formats), "poster_px": POSTER_PX if poster else None}
        head, rest = await self._answered(msgspec.json.encode(asked) + b"\n", glb, deadline, refusal)
        if head.facts is None:
            raise refusal(head.refused or "nothing is known of it")
        files, at = {}, 0
        for name, size in head.sizes.items():
            files[name] = rest[at : at + size]
            at += size
        return Mesh({format_: files[format_] for format_ in formats}, head.facts, files.get("poster"))

    async def finished(
        self, events: AsyncGenerator[Event, None], formats: Sequence[Format], deadline: float
    ) -> AsyncGenerator[Event, None]:
        """A backend's events, each mesh in them finished: one file for each format.

        Raises BadResponse, and TimedOut after the deadline (by the loop's clock).
        """
        async with aclosing(events):
            async for event in events:
                if not isinstance(event, Produced) or event.partial is not None or event.media.mime != GLB:
                    yield event
                    continue
                if event.media.data is None:
                    raise _unusable("it did not come along")
                yield Progress(step=0, of=1, stage="finishing")
                mesh = await self.finish(event.media.data, formats, deadline=deadline)
                for n, format_ in enumerate(formats):
                    media = made(format_, mesh.files[format_], mesh.facts, mesh.poster)
                    yield Produced(media=media, index=event.index * len(formats) + n)

    async def _answered(
        self, line: bytes, glb: bytes, deadline: float | None, refusal: Callable[[str], GatewayError]
    ) -> tuple[_Head, bytes]:
        try:
            answer = await self._errands.done(line, glb, deadline=deadline)
        except TimeoutError as e:
            raise TimedOut("The mesh was made, but not finished in time.") from e
        except Unfinished as e:
            raise refusal(str(e)) from e
        head, newline, files = answer.data.partition(b"\n")
        if not newline:
            logger().warning("mesh_unfinished", complained=answer.complained)
            raise refusal("it takes too much memory or time")
        return msgspec.json.decode(head, type=_Head), files

"""Artifacts in other formats: made when they are first asked for, and kept beside what they were made from.

What opens them is a child process, which is gone when this is done, however it ends: some come from strangers.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast, get_args
from weakref import WeakValueDictionary

import msgspec
from msgspec import Struct

from backends.errand import Errands, Unfinished
from compat.canonical.error import GatewayError, InsufficientStorage, InvalidRequest, LimitReached, TimedOut
from compat.canonical.message import GLB
from compat.canonical.principal import Principal
from compat.magic import mime_of
from compat.mesh import MIMES, Facts
from compat.mesh import Format as MeshFormat
from gateway.artifacts.artifact import Artifact, Kind
from gateway.artifacts.filename import renamed
from gateway.auth.principal import Grant
from gateway.meshes import FILES_MAX_BYTES, GLB_MAX_BYTES
from gateway.telemetry.logging import logger

if TYPE_CHECKING:
    from gateway.house import House

PictureFormat = Literal["png", "webp", "jpeg"]
PICTURES: dict[PictureFormat, str] = {"png": "image/png", "webp": "image/webp", "jpeg": "image/jpeg"}
"""The media type of each format a picture may be wanted in."""
_MIMES: dict[str, str] = {**MIMES, **PICTURES}  # type: ignore[dict-item]
TAKEN = (*PICTURES.values(), "image/gif")
"""What pictures are read."""
FORMATS: tuple[str, ...] = (*get_args(MeshFormat), *get_args(PictureFormat))
PICTURE_MAX_BYTES = 64 * 1024 * 1024
AT_ONCE = 2
"""Processes; others wait for their turn."""
WITHIN_S = 60.0
"""For all of a conversion, waiting included."""
PICTURE_S = 30.0


class Looked(NamedTuple):
    """What a client has given, as it was found to be."""

    kind: Kind
    mime: str
    meta: dict[str, Any]
    poster: bytes | None = None
    """Of a mesh: a PNG."""


class _Head(Struct):
    width: int = 0
    height: int = 0
    refused: str | None = None


class Conversions:
    def __init__(self, house: "House") -> None:
        self._house = house
        self._pictures = Errands(
            "gateway.picturer", at_once=AT_ONCE, within_s=PICTURE_S, answer_max_bytes=FILES_MAX_BYTES
        )
        self._locks: WeakValueDictionary[tuple[str, str], asyncio.Lock] = WeakValueDictionary()

    async def looked(self, data: bytes) -> Looked:
        """What was given: a picture or a mesh, by its bytes alone, that opens.

        Raises InvalidRequest for anything else, and TimedOut.
        """
        async with _in_time():
            if data.startswith(b"glTF"):
                facts, poster = await self._drawn(data)
                return Looked("mesh", GLB, msgspec.to_builtins(facts), poster)
            if (mime := mime_of(data)) not in TAKEN:
                raise InvalidRequest(
                    "The body is no picture (PNG, JPEG, WebP, GIF) and no mesh (GLB).", code="invalid_value"
                )
            assert mime is not None
            head, _ = await self._picture(data, None)
            return Looked("image", mime, {"width": head.width, "height": head.height})

    async def converted(
        self, artifact: Artifact, wanted: str, grant: Grant | None, *, request_id: str | None = None
    ) -> Artifact:
        """The artifact in this format: itself, or one that was made from it, now or before.  A picture that did not
        come from here is made anew in its own format as well: it may be turned, and say where it was taken.

        grant: of who asks, for whom it counts; None where a signed URL does, and it counts for its original's key.
        Raises InvalidRequest, which names the formats there are; LimitReached and InsufficientStorage; TimedOut; and
        as the store does.  Cancelled, it leaves nothing behind.
        """
        if wanted not in (there := formats(artifact)):
            raise InvalidRequest(
                f"Invalid value for 'format': this artifact can be had as {', '.join(there)}."
                if there
                else "Invalid value for 'format': this artifact can be had only as it is.",
                param="format",
                code="invalid_value",
            )
        if _MIMES[wanted] == artifact.mime and (wanted in MIMES or _is_made(artifact)):
            return artifact
        async with _in_time(), self._alone(artifact.id, wanted):
            if (found := await self._found(artifact, wanted)) is not None:
                return found
            whose = grant or _of(artifact)
            try:
                await self._house.cabinet.artifacts.room(whose)
            except (LimitReached, InsufficientStorage) as e:
                raise e if grant is not None else _no_room(e) from e
            if wanted in MIMES:
                return await self._as_mesh(artifact, wanted, whose, request_id)
            return await self._as_picture(artifact, cast(PictureFormat, wanted), whose, request_id)

    async def _found(self, artifact: Artifact, wanted: str) -> Artifact | None:
        for child in await self._house.cabinet.artifacts.children(artifact):
            if child.meta.get("format") == wanted or (wanted == "png" and _is_poster(child)):
                return child
        return None

    async def _as_mesh(self, artifact: Artifact, wanted: MeshFormat, grant: Grant, request_id: str | None) -> Artifact:
        glb = await self._read(artifact, GLB_MAX_BYTES)
        mesh = await self._house.meshes.finish(glb, [wanted], poster=False, refusal=_unusable)
        meta = {"format": wanted, **msgspec.to_builtins(mesh.facts)}
        return await self._keep(artifact, mesh.files[wanted], "mesh", MIMES[wanted], meta, grant, request_id)

    async def _as_picture(
        self, artifact: Artifact, wanted: PictureFormat, grant: Grant, request_id: str | None
    ) -> Artifact:
        if artifact.mime == GLB:
            poster = await self._found(artifact, "png") or await self._poster(artifact, grant, request_id)
            if wanted == "png":
                return poster
            data = await self._read(poster, PICTURE_MAX_BYTES)
        else:
            data = await self._read(artifact, PICTURE_MAX_BYTES)
        head, made = await self._picture(data, wanted)
        meta = {"format": wanted, "width": head.width, "height": head.height}
        return await self._keep(artifact, made, "image", PICTURES[wanted], meta, grant, request_id)

    async def _poster(self, artifact: Artifact, grant: Grant, request_id: str | None) -> Artifact:
        _, poster = await self._drawn(await self._read(artifact, GLB_MAX_BYTES))
        return await self._keep(artifact, poster, "poster", "image/png", {"format": "png"}, grant, request_id)

    async def _drawn(self, glb: bytes) -> tuple[Facts, bytes]:
        mesh = await self._house.meshes.finish(glb, [], refusal=_unusable)
        assert mesh.poster is not None, "it was asked for"
        return mesh.facts, mesh.poster

    async def _read(self, artifact: Artifact, most: int) -> bytes:
        if artifact.size_bytes > most:
            raise InvalidRequest(
                f"This artifact is larger than {most} bytes, too large to be converted.",
                param="format",
                code="invalid_value",
            )
        return await self._house.cabinet.artifacts.read(artifact)

    async def _picture(self, data: bytes, wanted: PictureFormat | None) -> tuple[_Head, bytes]:
        if len(data) > PICTURE_MAX_BYTES:
            raise _unusable(f"it is larger than {PICTURE_MAX_BYTES} bytes")
        try:
            answer = await self._pictures.done(msgspec.json.encode({"format": wanted}) + b"\n", data, deadline=None)
        except Unfinished as e:
            raise _unusable(str(e)) from e
        line, newline, made = answer.data.partition(b"\n")
        if not newline:
            logger().warning("picture_unfinished", complained=answer.complained)
            raise _unusable("it takes too much memory or time")
        head = msgspec.json.decode(line, type=_Head)
        if head.refused is not None:
            raise _unusable(head.refused)
        return head, made

    async def _keep(
        self,
        artifact: Artifact,
        data: bytes,
        kind: Kind,
        mime: str,
        meta: dict[str, Any],
        grant: Grant,
        request_id: str | None,
    ) -> Artifact:
        # Its original may be deleted meanwhile: then this is refused, or goes with it.
        return await self._house.cabinet.artifacts.put(
            grant,
            data,
            kind=kind,
            mime=mime,
            name=renamed(artifact.name, mime),
            meta=meta,
            parent_id=artifact.id,
            request_id=request_id,
        )

    @asynccontextmanager
    async def _alone(self, id_: str, wanted: str) -> AsyncIterator[None]:
        """The others who want the same wait for the first, and find what it made."""
        lock = self._locks.setdefault((id_, wanted), asyncio.Lock())
        async with lock:
            yield


@asynccontextmanager
async def _in_time() -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(WITHIN_S):
            yield
    except TimeoutError as e:
        raise TimedOut("This could not be opened or converted in time; try again later.") from e


def formats(artifact: Artifact) -> tuple[str, ...]:
    """In which formats an artifact can be had, its own included; none for what is neither picture nor mesh."""
    if artifact.mime == GLB:
        return FORMATS
    if artifact.mime in TAKEN:
        return tuple(PICTURES)
    return tuple(name for name, mime in MIMES.items() if mime == artifact.mime)


def _is_poster(child: Artifact) -> bool:
    return child.kind == "poster" and child.mime == "image/png"


def _is_made(picture: Artifact) -> bool:
    """Whether it was made here from another one: then it is upright, and nothing else is said in it."""
    return picture.parent_id is not None and (picture.kind == "poster" or "format" in picture.meta)


def _no_room(e: GatewayError) -> GatewayError:
    """Of a quota, for who comes by a signed URL: whose it is, and how much of it is used, is not for them."""
    error = type(e)("There is no room for this conversion now. Take the original, or one that was made.", code=e.code)
    error.type, error.final = e.type, e.final
    return error


def _of(artifact: Artifact) -> Grant:
    return Grant(principal=Principal(id=artifact.owner, tenant=artifact.tenant), key_id=artifact.key_id)


def _unusable(why: str) -> GatewayError:
    return InvalidRequest(f"This file cannot be used: {why}.", code="invalid_value")

"""Artifacts: what requests leave behind and clients give, kept in an object store and known in the database.

Order of writing: the object, then its row; so a row always has its bytes, and an object without a row is an orphan,
which is removed when it is older than its grace.  Every read is of one tenant.
"""

import asyncio
import hashlib
import re
import secrets
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import msgspec

from compat.canonical.error import Corrupted, GatewayError, InvalidRequest, NotFound
from compat.canonical.event import Event
from compat.canonical.message import Media
from gateway.artifacts import cleanup, outputs, quota
from gateway.artifacts.artifact import Artifact, Kind
from gateway.artifacts.dimensions import dimensions
from gateway.artifacts.filename import clean
from gateway.artifacts.signing import Signer
from gateway.artifacts.store import Store
from gateway.auth.principal import Grant
from gateway.telemetry.logging import logger
from gateway.visit import new_id

if TYPE_CHECKING:
    from gateway.db.artifacts import ArtifactRows, Blob
    from gateway.db.audit import Act
    from gateway.house import House

SMALL_BYTES = 65_536
"""What is hashed so quickly that a thread would take longer."""
FREE_S = 2.0
"""How long who deletes waits for the bytes to be gone: what is not by then goes by itself, later."""
_is_id = re.compile(r"art_[0-9a-f]{32}").fullmatch
_is_mime = re.compile(r"[a-z0-9.+_-]+/[a-z0-9.+_-]+(; ?charset=[a-z0-9_-]+)?").fullmatch


class Artifacts:
    def __init__(self, house: "House", rows: "ArtifactRows", store: Store, signer: Signer) -> None:
        self._house = house
        self.rows = rows
        self.store = store
        self.signer = signer
        self.figures: dict[str, int] = {}
        """How many there are and what they take, as it was counted last; empty before it was."""
        self.removed = dict.fromkeys(cleanup.REASONS, 0)
        """What was removed by itself, by why."""
        self._filled = quota.Filled(rows)

    async def room(self, grant: Grant) -> None:
        """Whether the caller may have another one.

        Asked before anything is generated: what has been paid for is kept, even if it goes beyond.
        Raises LimitReached (`artifact_quota_exceeded`) where the key's quota is full, InsufficientStorage where all
        of the store is.
        """
        config = self._house.estate.config
        await quota.check(config.limits, grant, self.rows)
        await self._filled.check(config.artifacts.max_bytes)

    async def put(
        self,
        grant: Grant,
        data: bytes,
        *,
        kind: Kind,
        mime: str,
        name: str | None = None,
        meta: Mapping[str, Any] | None = None,
        parent_id: str | None = None,
        request_id: str | None = None,
    ) -> Artifact:
        """Keep it, durably.  Raises as the store does, and NotFound where its parent is not there (any more)."""
        tenant, now = grant.principal.tenant, time.time()
        retention_s = self._house.estate.config.artifacts.retention_s
        until = None if retention_s is None else now + retention_s
        if parent_id is not None:
            until = (await self.get(tenant, parent_id)).expires_at
        measured = _measured(data) if len(data) <= SMALL_BYTES else await asyncio.to_thread(_measured, data)
        mime = mime.lower()
        about = {**measured.about, **(meta or {})} if mime.startswith("image/") else dict(meta or {})
        artifact = Artifact(
            id=new_id("art"),
            tenant=tenant,
            owner=grant.principal.id,
            key_id=grant.key_id,
            kind=kind,
            mime=mime if len(mime) <= 100 and _is_mime(mime) else "application/octet-stream",
            name=clean(name or "")[:200] or None,
            size_bytes=len(data),
            sha256=measured.sha256,
            meta=msgspec.json.decode(msgspec.json.encode(about)),  # as it is read again
            parent_id=parent_id,
            request_id=None if request_id is None else request_id.replace("\x00", "")[:128],
            created_at=now,
            expires_at=until,
        )
        try:
            known = await self.rows.blob(tenant, artifact.sha256)
            if known is not None and known[1] and await self.store.size(known[0]) == len(data):
                if await self.rows.refer(artifact, known[0], now):
                    return artifact
                known = None  # gone meanwhile, or written anew
            key = f"{cleanup.folder_of(tenant)}/{secrets.token_hex(16)}"
            await self.store.put(key, data)
            # What was lost, or is not what it was, is mended for all that have it.
            bad = None if known is None else known[0]
            if await self.rows.add(artifact, key, time.time(), instead=bad) != key:
                await self._remove(key)  # somebody has put the same bytes meanwhile
                return artifact
            self._filled.add(len(data))
            if bad is not None:
                logger().warning("artifact_mended", id=artifact.id)
                await self._remove(bad)
        except LookupError as e:
            raise absent(parent_id or "") from e
        return artifact

    async def get(self, tenant: str, id_: str) -> Artifact:
        """Raises NotFound: with the same words for one that is somebody else's."""
        if not _is_id(id_) or (found := await self.rows.get(id_, tenant)) is None:
            raise absent(id_)
        return found

    async def by_id(self, id_: str) -> Artifact:
        """Of whatever tenant: for who has a signed URL of it.  Raises NotFound, in the words of `get`."""
        if not _is_id(id_) or (found := await self.rows.get(id_)) is None:
            raise absent(id_)
        return found

    async def page(
        self, tenant: str, limit: int, before: str | None = None, *, kind: Kind | None = None, mime: str | None = None
    ) -> list[Artifact]:
        """The newest of a tenant, or those before the one of the id `before`; of a kind, and whose media type begins
        so (like `image/`).
        """
        return await self.rows.page(tenant, limit, before, kind=kind, mime=mime)

    async def children(self, artifact: Artifact) -> list[Artifact]:
        """What was made from it, the oldest first."""
        return await self.rows.children(artifact.tenant, artifact.id)

    async def uses(self, artifact: Artifact) -> int:
        """How many sessions hold it."""
        return await self.rows.uses(artifact.tenant, artifact.id)

    async def read(self, artifact: Artifact) -> bytes:
        """All of it: for what is known to be small enough.  Raises NotFound, Unreachable, and Corrupted where it is
        not what was kept.
        """
        async with aclosing(self.pieces(artifact, 0, artifact.size_bytes)) as pieces:
            return b"".join([piece async for piece in pieces])

    async def pieces(self, artifact: Artifact, start: int, end: int) -> AsyncGenerator[bytes, None]:
        """Its bytes from `start` up to, not including, `end`, as they come.  Raises NotFound before the first.

        Where that is all of it and is not what was kept, Corrupted is raised before the last piece: nobody gets it
        whole.
        """
        key = await self._key(artifact)
        hashed = hashlib.sha256() if (start, end) == (0, artifact.size_bytes) else None
        last = b""
        try:
            async with aclosing(self.store.get(key, start, end)) as pieces:
                async for piece in pieces:
                    if last:
                        yield last
                    last = piece
                    if hashed is not None:
                        # Large ones not on the loop.
                        small = len(piece) <= SMALL_BYTES
                        hashed.update(piece) if small else await asyncio.to_thread(hashed.update, piece)
            if hashed is not None and hashed.hexdigest() != artifact.sha256:
                raise Corrupted(f"What is kept of the artifact '{artifact.id}' is not what it was. Make it anew.")
        except Corrupted:
            logger().error("artifact_corrupted", id=artifact.id)
            await self.rows.damaged(key)
            raise
        except NotFound as e:
            await self._lost(artifact, key)
            raise absent(artifact.id) from e
        if last:
            yield last

    async def there(self, artifact: Artifact) -> None:
        """Raises NotFound where the store has it no more, as who reads it is told."""
        key = await self._key(artifact)
        if await self.store.size(key) is None:
            await self._lost(artifact, key)
            raise absent(artifact.id)

    async def presigned(self, artifact: Artifact, *, expires_s: float, disposition: str) -> str | None:
        """Where the store itself gives it to anybody for so long; None unless `artifacts.presign` says so."""
        if not self._house.estate.config.artifacts.presign:
            return None
        key = await self._key(artifact)
        return self.store.presigned(key, expires_s=expires_s, mime=artifact.mime, disposition=disposition)

    async def delete(self, tenant: str, id_: str, act: "Act | None" = None) -> None:
        """With what was made from it, whoever holds it.  Raises NotFound.

        act: what is written to the audit log in the same transaction.
        """
        gone = await self.rows.delete(tenant, id_, act) if _is_id(id_) else None
        if gone is None:
            raise absent(id_)
        try:
            async with asyncio.timeout(FREE_S):
                for blob in gone:
                    await self.free(blob)
        except TimeoutError:
            logger().warning("artifact_bytes_left", cure="they go as orphans")

    async def hold(self, tenant: str, session_id: str, owner: str, ids: Sequence[str]) -> None:
        """A session refers to these: they are kept as long as it is."""
        until = time.time() + self._house.estate.config.artifacts.grace_s
        await self.rows.hold(tenant, session_id, owner, ids, until)

    def url(self, artifact: Artifact, base_url: str, *, ttl_s: float | None = None) -> tuple[str, float]:
        """A URL that gives it to anybody, and until when (seconds since 1970, UTC).

        base_url: how the client reaches the gateway, `https://HOST`, without a slash at its end.
        """
        until = int(time.time() + (self._house.estate.config.artifacts.ttl_s if ttl_s is None else ttl_s))
        path = self.signer.signed("GET", f"/v1/artifacts/{artifact.id}/content", (), until)
        return f"{base_url}{path}", float(until)

    def kept(
        self, events: AsyncGenerator[Event, None], grant: Grant, *, base_url: str, request_id: str
    ) -> AsyncGenerator[Event, None]:
        """An answer's events, each picture or mesh in them kept, which its media's `extra["stored"]` says
        (`compat.canonical.message.Stored`); the poster of a mesh, one for each of its formats, as well.  Closes them.

        What its provider keeps (a media without data) stays as it is, and so does what cannot be kept: it has been
        paid for, and goes to its client with the answer.
        """
        return outputs.kept(self, events, grant, base_url=base_url, request_id=request_id)

    async def media(self, tenant: str, id_: str) -> Media:
        """A picture that was kept, as a part of a request; its `name` is the artifact's id.  Raises NotFound, and
        InvalidRequest where it is none.
        """
        artifact = await self.get(tenant, id_)
        if not artifact.mime.startswith("image/"):
            raise InvalidRequest(
                f"The artifact '{artifact.id}' is no picture but {artifact.mime}. Name one that is.",
                code="invalid_value",
            )
        return Media(mime=artifact.mime, data=await self.read(artifact), name=artifact.id)

    async def watch(self) -> None:
        """Remove, for ever, what has expired and what nobody knows of."""
        await cleanup.watch(self, lambda: self._house.estate.config.artifacts.grace_s)

    async def free(self, blob: "Blob") -> bool:
        """Remove bytes from the store unless some artifact has them; whether they went."""
        if (key := await self.rows.drop(blob)) is None:
            return False
        await self._remove(key)
        return True

    async def _remove(self, key: str) -> None:
        """What nobody knows of any more: what cannot be removed now is an orphan, and goes as one."""
        try:
            await self.store.delete(key)
        except GatewayError as e:
            logger().warning("artifact_bytes_left", reason=e.word, cure="they go as orphans")

    async def _lost(self, artifact: Artifact, key: str) -> None:
        if await self.rows.key(artifact.tenant, artifact.sha256) == key:
            logger().error("artifact_lost", id=artifact.id)

    async def _key(self, artifact: Artifact) -> str:
        if (key := await self.rows.key(artifact.tenant, artifact.sha256)) is None:
            raise absent(artifact.id)
        return key


def absent(id_: str) -> NotFound:
    """Also of one that is somebody else's."""
    return NotFound(f"There is no artifact of the id '{id_[:100]}'.", code="artifact_not_found")


class _Measured(msgspec.Struct, frozen=True):
    sha256: str
    about: dict[str, Any]


def _measured(data: bytes) -> _Measured:
    size = dimensions(data)
    return _Measured(_hash(data), {} if size is None else {"width": size[0], "height": size[1]})


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()

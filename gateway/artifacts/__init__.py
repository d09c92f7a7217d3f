"""Artifacts: what requests leave behind and clients give, kept in an object store and known in the database.

Order of writing: the object, then its row; so a row always has its bytes, and an object without a row is an orphan,
which is removed when it is older than its grace.  Every read is of one tenant.
"""

from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from compat.canonical.event import Event
from compat.canonical.message import Media
from gateway.artifacts.artifact import Artifact, Kind
from gateway.artifacts.signing import Signer
from gateway.artifacts.store import Store
from gateway.auth.principal import Grant

if TYPE_CHECKING:
    from gateway.db.artifacts import ArtifactRows
    from gateway.house import House


class Artifacts:
    def __init__(self, house: "House", rows: "ArtifactRows", store: Store, signer: Signer) -> None:
        self._house = house
        self.rows = rows
        self.store = store
        self.signer = signer

    async def room(self, grant: Grant) -> None:
        """Whether the caller may have another one.

        Asked before anything is generated: what has been paid for is kept, even if it goes beyond.
        Raises LimitReached (`artifact_quota_exceeded`) where the key's quota is full, InsufficientStorage where all
        of the store is.
        """
        raise NotImplementedError

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
        """Keep it, durably.  Raises as the store does."""
        raise NotImplementedError

    async def get(self, tenant: str, id_: str) -> Artifact:
        """Raises NotFound: with the same words for one that is somebody else's."""
        raise NotImplementedError

    async def read(self, artifact: Artifact) -> bytes:
        """All of it: for what is known to be small enough.  Raises NotFound, Unreachable."""
        raise NotImplementedError

    async def delete(self, tenant: str, id_: str) -> None:
        """With what was made from it, whoever holds it.  Raises NotFound."""
        raise NotImplementedError

    async def hold(self, tenant: str, session_id: str, owner: str, ids: Sequence[str]) -> None:
        """A session refers to these: they are kept as long as it is."""
        raise NotImplementedError

    def url(self, artifact: Artifact, base_url: str, *, ttl_s: float | None = None) -> tuple[str, float]:
        """A URL that gives it to anybody, and until when (seconds since 1970, UTC).

        base_url: how the client reaches the gateway, `https://HOST`, without a slash at its end.
        """
        raise NotImplementedError

    def kept(
        self, events: AsyncGenerator[Event, None], grant: Grant, *, base_url: str, request_id: str
    ) -> AsyncGenerator[Event, None]:
        """An answer's events, each picture or mesh in them kept, which its media's `extra["stored"]` says
        (`compat.canonical.message.Stored`); the poster of a mesh, once for all its formats, as well.  Closes them.

        What its provider keeps (a media without data) stays as it is.
        """
        raise NotImplementedError

    async def media(self, tenant: str, id_: str) -> Media:
        """A picture that was kept, as a part of a request; its `name` is the artifact's id.  Raises NotFound, and
        InvalidRequest where it is none.
        """
        raise NotImplementedError

    async def watch(self) -> None:
        """Remove, for ever, what has expired and what nobody knows of."""

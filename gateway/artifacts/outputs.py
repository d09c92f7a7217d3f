"""An answer's pictures and meshes, kept as they pass."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import msgspec

from compat.canonical.error import GatewayError
from compat.canonical.event import Event, Produced
from compat.canonical.message import Media, Stored
from gateway.artifacts.artifact import Artifact, Kind
from gateway.auth.principal import Grant
from gateway.db.engine import FAILURES
from gateway.telemetry.logging import logger

if TYPE_CHECKING:
    from gateway.artifacts import Artifacts


async def kept(
    artifacts: "Artifacts", events: AsyncGenerator[Event, None], grant: Grant, *, base_url: str, request_id: str
) -> AsyncGenerator[Event, None]:
    """See `Artifacts.kept`."""
    keeper = _Keeper(artifacts, grant, base_url, request_id)
    async with aclosing(events):
        async for event in events:
            if isinstance(event, Produced) and event.partial is None and event.media.data is not None:
                yield msgspec.structs.replace(event, media=await keeper.keep(event.media, event.revised_prompt))
            else:
                yield event


class _Keeper:
    def __init__(self, artifacts: "Artifacts", grant: Grant, base_url: str, request_id: str) -> None:
        self._artifacts = artifacts
        self._grant = grant
        self._base_url = base_url
        self._request_id = request_id

    async def keep(self, media: Media, prompt: str | None) -> Media:
        try:
            return await self._kept(media, prompt)
        except (GatewayError, *FAILURES) as e:
            reason = e.word if isinstance(e, GatewayError) else type(e).__name__
            logger().error("artifact_unkept", request_id=self._request_id, reason=reason)
            return media

    async def _kept(self, media: Media, prompt: str | None) -> Media:
        about: dict[str, Any] = {} if prompt is None else {"prompt": prompt}
        if (facts := media.extra.get("mesh")) is not None:
            about |= msgspec.to_builtins(facts)
        assert media.data is not None
        made = await self._put(media.data, _kind(media.mime), media.mime, media.name, about)
        poster = media.extra.get("poster")
        stored = Stored(
            id=made.id,
            url=(signed := self._artifacts.url(made, self._base_url))[0],
            expires_at=signed[1],
            size_bytes=made.size_bytes,
            sha256=made.sha256,
            poster_url=None if poster is None else await self._poster_url(poster, made),
        )
        return msgspec.structs.replace(media, extra=media.extra | {"stored": stored})

    async def _poster_url(self, poster: bytes, mesh: Artifact) -> str:
        # Each format has its own, which goes with it and no other; their bytes are kept once.
        made = await self._put(poster, "poster", "image/png", "poster.png", {}, mesh.id)
        return self._artifacts.url(made, self._base_url)[0]

    async def _put(
        self, data: bytes, kind: Kind, mime: str, name: str | None, meta: dict[str, Any], parent_id: str | None = None
    ) -> Artifact:
        return await self._artifacts.put(
            self._grant,
            data,
            kind=kind,
            mime=mime,
            name=name,
            meta=meta,
            parent_id=parent_id,
            request_id=self._request_id,
        )


def _kind(mime: str) -> Kind:
    return "image" if mime.startswith("image/") else "mesh" if mime.startswith("model/") else "file"

"""/v1/artifacts: what requests left behind and clients gave, its bytes in several formats, and its end.

The bytes may be had by a signed URL as well, without a key: its signature is looked at before anything else, so
whoever has a wrong one is told the same of what is there and of what is not.
"""

import asyncio
import time
from datetime import datetime
from typing import Any, Literal, cast, get_args

import msgspec
from litestar import HttpMethod, Response, delete, get, post, route
from litestar.params import FromPath
from litestar.types import ASGIApp, HTTPScope
from msgspec import Struct

from compat.canonical.error import GatewayError, UnsupportedMedia
from gateway.api.content import Content, bodiless, disposition
from gateway.api.reading import Disconnected, base_url, read_plain
from gateway.api.reply import CLIENT_GONE
from gateway.api.resource import (
    PAGE,
    PAGE_MAX,
    Asked,
    attended,
    by_of,
    cursor_of,
    estate_of,
    grant_of,
    number,
    page,
    visit_of,
    word,
)
from gateway.artifacts import signing
from gateway.artifacts.artifact import Artifact, Kind
from gateway.artifacts.conversion import FORMATS, TAKEN, Conversions, formats
from gateway.artifacts.filename import filename
from gateway.auth.keycard import moment
from gateway.db.engine import FAILURES
from gateway.house import House
from gateway.telemetry.logging import logger

_SCOPE = "inference"
_CONTENT = "/v1/artifacts/{artifact_id:str}/content"
PRESIGNED_S = 300.0
"""How long the store's own URL is good that a client with a key is sent to."""


class KeptArtifact(Struct, frozen=True, kw_only=True):
    """A picture, a mesh, a poster or a text that is kept."""

    id: str
    object: Literal["artifact"] = "artifact"
    kind: Kind
    mime: str
    name: str | None
    """What it is called when it is saved; null: by its id."""
    bytes: int
    sha256: str
    meta: dict[str, Any]
    """What is known of its contents: `width` and `height` of a picture; `vertices`, `faces`, `bounds` and `watertight`
    of a mesh; `format` of what was converted; `prompt`."""
    parent_id: str | None
    """What it was made from, and goes with."""
    request_id: str | None
    """The request that made it; null where a client gave it."""
    created_at: datetime
    expires_at: datetime | None
    """When it is removed, unless a session holds it; null: never."""
    held_by_sessions: int | None = None
    """How many sessions hold it; null in lists."""
    url: str
    """Signed: gives it to whoever has it."""
    url_expires_at: datetime
    """Until when; so do the other URLs."""
    poster_url: str | None = None
    """A picture of a mesh, drawn when it is first asked for."""
    formats: dict[str, str] | None = None
    """In which formats it can be had, each by its signed URL; converted when first asked for.  Null in lists."""


class ArtifactList(Struct, frozen=True):
    """A page of artifacts."""

    object: Literal["list"]
    data: list[KeptArtifact]
    next_cursor: str | None
    """For the page after this one; null on the last."""


class DeletedArtifact(Struct, frozen=True, kw_only=True):
    id: str
    object: Literal["artifact"] = "artifact"
    deleted: bool = True


def routes(house: House) -> list[Any]:
    conversions = Conversions(house)

    def shown(request: Asked, one: Artifact, *, held: int | None = None, whole: bool = True) -> KeptArtifact:
        artifacts, base = house.cabinet.artifacts, base_url(request.scope, estate_of(request).config.server)
        url, until = artifacts.url(one, base)
        path, there = _CONTENT.replace("{artifact_id:str}", one.id), formats(one)

        def converted(name: str) -> str:
            return base + artifacts.signer.signed("GET", path, [("format", name)], int(until))

        return KeptArtifact(
            id=one.id,
            kind=one.kind,
            mime=one.mime,
            name=one.name,
            bytes=one.size_bytes,
            sha256=one.sha256,
            meta=one.meta,
            parent_id=one.parent_id,
            request_id=one.request_id,
            created_at=moment(one.created_at),
            expires_at=None if one.expires_at is None else moment(one.expires_at),
            held_by_sessions=held,
            url=url,
            url_expires_at=moment(until),
            poster_url=converted("png") if one.kind == "mesh" and "png" in there else None,
            formats={name: converted(name) for name in there} if whole else None,
        )

    @get(
        "/v1/artifacts",
        opt={
            "scope": _SCOPE,
            "query": {
                "kind": f"Only of this kind: {', '.join(get_args(Kind))}.",
                "mime": "Only those whose media type begins so, like `image/` or `model/gltf-binary`.",
                "limit": f"Artifacts a page, {PAGE} unless said, {PAGE_MAX} at most.",
                "cursor": "The `next_cursor` of the page before.",
            },
        },
        summary="List artifacts",
        description="The tenant's pictures, meshes and long texts, newest first.",
    )
    async def list_artifacts(request: Asked) -> ArtifactList:
        limit = number(request, "limit", PAGE, PAGE_MAX, least=1)
        kind = cast(Kind | None, word(request, "kind", get_args(Kind)))
        found = await house.cabinet.artifacts.page(
            grant_of(request).principal.tenant,
            limit + 1,
            cursor_of(request),
            kind=kind,
            mime=word(request, "mime"),
        )
        more = found[limit - 1].id if len(found) > limit else None
        cards = []
        for one in found[:limit]:
            cards.append(shown(request, one, whole=False))
            if len(cards) % 50 == 0:
                await asyncio.sleep(0)  # to sign so many takes a while
        return ArtifactList(**page(cards, limit, more))

    @post(
        "/v1/artifacts",
        opt={
            "scope": _SCOPE,
            "takes": (*TAKEN, "model/gltf-binary"),
            "query": {"name": "What it is called when it is saved: a file name, of which a path's last part is kept."},
        },
        status_code=201,
        summary="Upload an artifact",
        description="Keep a picture (PNG, JPEG, WebP, GIF) or a mesh (GLB), so that `input.images` may name it by its "
        "id.  The body is the file; what it is, is seen from its bytes, whatever the request calls it.",
    )
    async def create_artifact(request: Asked) -> Response[KeptArtifact]:
        name, grant, artifacts = word(request, "name"), grant_of(request), house.cabinet.artifacts
        if dict(request.scope["headers"]).get(b"content-type", b"").lower().startswith(b"multipart/"):
            raise UnsupportedMedia(
                "A form is not accepted here: send the file itself as the body, like curl --data-binary @FILE."
            )
        await artifacts.room(grant)
        try:
            limit = estate_of(request).config.server.body_limit_bytes
            data = await read_plain(request.scope, request.receive, limit)
            found = await attended(request, conversions.looked(data))
        except Disconnected:
            return _gone()
        called = None if name is None else filename(name, found.mime, "artifact")
        one = await artifacts.put(grant, data, kind=found.kind, mime=found.mime, name=called, meta=found.meta)
        if found.poster is not None:
            try:
                await artifacts.put(
                    grant, found.poster, kind="poster", mime="image/png", meta={"format": "png"}, parent_id=one.id
                )
            except (GatewayError, *FAILURES) as e:
                # The mesh is kept: its poster is drawn again when it is asked for.
                logger().warning("artifact_poster_unkept", id=one.id, error=type(e).__name__)
        return Response(shown(request, one, held=0), status_code=201)

    @get(
        "/v1/artifacts/{artifact_id:str}",
        opt={"scope": _SCOPE},
        summary="Get an artifact",
        description="What is known of it, with a URL that gives its bytes to whoever has it, for a while.",
    )
    async def get_artifact(request: Asked, artifact_id: FromPath[str]) -> KeptArtifact:
        artifacts = house.cabinet.artifacts
        one = await artifacts.get(grant_of(request).principal.tenant, artifact_id)
        card = shown(request, one, held=await artifacts.uses(one))
        if one.kind == "mesh" and card.poster_url is None:
            posters = [child for child in await artifacts.children(one) if child.kind == "poster"]
            if posters:
                base = base_url(request.scope, estate_of(request).config.server)
                card = msgspec.structs.replace(card, poster_url=artifacts.url(posters[0], base)[0])
        return card

    @route(
        _CONTENT,
        http_method=[HttpMethod.GET, HttpMethod.HEAD],
        opt={
            "scope": _SCOPE,
            "signed": lambda scope: _is_signed(house, scope),
            "file": "The bytes, or with a Range header a part of them.",
            "query": {
                "format": f"In which format: {', '.join(FORMATS)}, as far as it can be converted.",
                "download": "`1` has browsers save it, whatever it is.",
            },
        },
        summary="Get an artifact's content",
        description="Its bytes, by key or by a signed URL.  Takes single ranges; its ETag is its SHA-256.",
    )
    async def artifact_content(request: Asked, artifact_id: FromPath[str]) -> ASGIApp:
        artifacts, grant = house.cabinet.artifacts, visit_of(request).grant
        wanted, download = word(request, "format", FORMATS), word(request, "download", ("1", "0")) == "1"
        fresh_s = None if grant is not None else _left(request)
        if grant is None:
            one = await artifacts.by_id(artifact_id)
        else:
            one = await artifacts.get(grant.principal.tenant, artifact_id)
        if wanted is not None:
            making = conversions.converted(one, wanted, grant, request_id=visit_of(request).request_id)
            try:
                one = await attended(request, making)
            except Disconnected:
                return bodiless(CLIENT_GONE, [])
        if request.method == "GET":
            there = await artifacts.presigned(
                one,
                expires_s=PRESIGNED_S if fresh_s is None else max(1.0, fresh_s),
                disposition=disposition(one, download=download),
            )
            if there is not None:
                kept = [(b"cache-control", b"private, no-store"), (b"referrer-policy", b"no-referrer")]
                return bodiless(307, [(b"location", there.encode()), *kept])
        return Content(house, request, one, download=download, fresh_s=fresh_s)

    @delete(
        "/v1/artifacts/{artifact_id:str}",
        opt={"scope": _SCOPE},
        status_code=200,
        summary="Delete an artifact",
        description="End it, and what was made from it, at once, also where sessions hold it; its URLs end with it.",
    )
    async def delete_artifact(request: Asked, artifact_id: FromPath[str]) -> DeletedArtifact:
        artifacts, tenant = house.cabinet.artifacts, grant_of(request).principal.tenant
        one = await artifacts.get(tenant, artifact_id)
        told = {"kind": one.kind, "mime": one.mime, "bytes": one.size_bytes, "owner": one.owner}
        await artifacts.delete(tenant, one.id, by_of(request).act("artifact.delete", one.id, tenant, told))
        return DeletedArtifact(id=one.id)

    return [list_artifacts, create_artifact, get_artifact, artifact_content, delete_artifact]


def _gone() -> Response[Any]:
    """For the log: nobody receives it."""
    return Response(None, status_code=CLIENT_GONE)


def _is_signed(house: House, scope: HTTPScope) -> bool:
    """Whether somebody comes by a signed URL.  Raises Forbidden where its signature is not good."""
    query = signing.parsed(scope["query_string"])
    if all(name != "signature" for name, _ in query):
        return False
    house.cabinet.artifacts.signer.check(scope["method"], scope["path"], query, time.time())
    return True


def _left(request: Asked) -> int:
    """Seconds for which a signed URL, which was checked, is still good."""
    expires = dict(signing.parsed(request.scope["query_string"])).get("expires", "0")
    return max(0, int(int(expires) - time.time()))

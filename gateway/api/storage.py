"""/v1/storage: what downloaded models take of the disk, and making room."""

from collections.abc import Iterable
from os.path import basename
from typing import Any

import msgspec
from litestar import get, post
from msgspec import Struct
from msgspec.structs import replace

from gateway.api.resource import Asked, by_of, decoded, estate_of, grant_of
from gateway.auth.principal import Grant
from gateway.db.audit import Act
from gateway.house import Estate, House
from gateway.registry.places import folders
from gateway.storage.report import CleanupReport, StorageReport, StoredProblem
from gateway.storage.retention import Kind


class Cleanup(Struct, frozen=True, forbid_unknown_fields=True):
    """What is to be removed."""

    dry_run: bool = True
    """Only say what would go, and why; `false` removes it."""
    kinds: list[Kind] | None = None
    """Only these.  Left out: what is too old by the policy, what is over the limit where `keep` is lru, partials
    that nobody goes on with, orphans and truncated models; versions that are not served go when they are named."""


_cleanup = msgspec.json.Decoder(Cleanup)


def routes(house: House) -> list[Any]:
    @get(
        "/v1/storage",
        opt={"scope": "models:read"},
        summary="Get what models take of the disk",
        description="What downloaded models take and may take, which of them could make room and which may not, and "
        "what lies there unfinished, unused or broken.",
    )
    async def get_storage(request: Asked) -> StorageReport:
        grant = grant_of(request)
        admin = "admin" in grant.principal.scopes
        storage = house.depot.storage
        whole = await storage.survey(tenant=None if admin else grant.principal.tenant)
        report = replace(whole, problems=_problems(house, estate_of(request)))
        if admin:
            return replace(report, root=str(storage.root))
        return _seen(report, grant) if grant.restricted else report

    @post(
        "/v1/storage/cleanup",
        opt={"scope": "admin", "body": Cleanup},
        status_code=200,
        summary="Clean up the disk",
        description="Remove downloaded files that the policy gives up or that are of no use.  Unless `dry_run` is "
        "false, it only says what would go and why.  What is loaded, waited for, pinned or being downloaded stays, "
        "and so does what could not be downloaded again; a model that goes stays registered.",
    )
    async def clean_storage(request: Asked) -> CleanupReport:
        asked = await decoded(request, _cleanup)
        done = await house.depot.storage.clean(dry_run=asked.dry_run, kinds=asked.kinds)
        if not asked.dry_run:
            await house.archive.acts.add(_act(request, asked, done))
        return done

    return [get_storage, clean_storage]


def _act(request: Asked, asked: Cleanup, done: CleanupReport) -> Act:
    models = sorted({one.model for one in done.removed if one.kind == "model" and one.model is not None})
    detail = {
        "removed": len(done.removed),
        "total_bytes": done.total_bytes,
        "kinds": asked.kinds,
        "models": models[:50],
    }
    return by_of(request).act("storage.cleanup", "storage", grant_of(request).principal.tenant, detail)


def _seen(report: StorageReport, grant: Grant) -> StorageReport:
    """What of it a key may know that may not use every model: the figures, and what it may use."""
    models = [one for one in report.models if grant.may_use(one.id.partition("/")[0]) and grant.may_ask(one.id)]
    return replace(report, models=models, partials=[], orphans=[], problems=[])


def _problems(house: House, estate: Estate) -> list[StoredProblem]:
    """Without the folders they are in: those are the house's own business."""
    inside = {
        name: [str(one.absolute()) for one in (*folders(estate.config, name), house.depot.storage.root)]
        for name in estate.local
    }
    return [
        StoredProblem(
            backend=one.backend,
            path=_within(one.path, inside.get(one.backend, ())),
            kind=one.kind,
            reason=one.reason,
            size_bytes=one.size_bytes,
        )
        for one in house.problems
    ]


def _within(path: str, folders: Iterable[str]) -> str:
    for folder in folders:
        if path.startswith(f"{folder}/"):
            return path[len(folder) + 1 :]
    return basename(path) if path.startswith("/") else path

"""/v1/models/search: what models the hub has, and which of them fit this machine."""

import asyncio
import shutil
from typing import Any, Literal, get_args

from litestar import get
from msgspec import Struct

from backends.base import Loads
from compat.canonical.model import Modality
from gateway.api.resource import PAGE_MAX, Asked, attended, cursor_of, estate_of, foreign_cursor, number, page, word
from gateway.house import Estate, House
from gateway.hub.catalogue import Room, SearchResult, search
from gateway.storage import Storage

PAGE, TOLD_MAX = 20, 50
"""Repositories a page: each is asked about, so whoever asks for more, as other lists allow, goes on by the cursor."""
SOURCES = ("huggingface",)
_CURSOR_MAX = 2000


class SearchList(Struct, frozen=True):
    """A page of what the hub has."""

    object: Literal["list"]
    data: list[SearchResult]
    next_cursor: str | None
    """For the page after this one; null on the last."""


def routes(house: House) -> list[Any]:
    @get(
        "/v1/models/search",
        opt={
            "scope": "models:read",
            "query": {
                "query": "Words of the model's name.",
                "source": f"Where to search: {', '.join(SOURCES)}, which it is unless said.",
                "modality": f"Only models that make this: {', '.join(get_args(Modality))}; GGUF models unless said.",
                "limit": f"Repositories a page, {PAGE} unless said, {TOLD_MAX} at most; what cannot be run here is "
                "left out of them.",
                "cursor": "The `next_cursor` of the page before.",
            },
        },
        summary="Search for models",
        description="Models on the hub that could be downloaded, the most downloaded first, each with its "
        "quantizations, their sizes and whether they fit this machine.  A size or a fit that could not be had in time "
        "is null.",
    )
    async def search_models(request: Asked) -> SearchList:
        modality, limit, cursor = (
            _modality(request),
            min(number(request, "limit", PAGE, PAGE_MAX, least=1), TOLD_MAX),
            _cursor(request),
        )
        query = word(request, "query")
        word(request, "source", SOURCES)

        async def found() -> SearchList:
            room = await asyncio.to_thread(_room, estate_of(request), house.depot.storage)
            results, following = await search(
                house.depot.hub, query=query, modality=modality, limit=limit, cursor=cursor, room=room
            )
            return SearchList(**page(results, len(results), following))

        return await attended(request, found())

    return [search_models]


def _modality(request: Asked) -> Modality | None:
    given = word(request, "modality", get_args(Modality))
    return next((one for one in get_args(Modality) if one == given), None)


def _cursor(request: Asked) -> str | None:
    given = cursor_of(request)
    if given is not None and len(given) > _CURSOR_MAX:
        raise foreign_cursor()
    return given


def _room(estate: Estate, storage: Storage) -> Room:
    """What the local backend with the most memory may have, and what a download may: within what is free and what
    models may take."""
    pools = [backend.counts()["memory_max_bytes"] for backend in estate.backends.values() if isinstance(backend, Loads)]
    root, policy = storage.root, storage.policy
    there = next((folder for folder in (root, *root.parents) if folder.is_dir()), root)
    try:
        disk: int | None = max(0, shutil.disk_usage(there).free - policy.min_free_bytes)
    except OSError:
        disk = None
    if policy.limit_bytes is not None:
        disk = policy.limit_bytes if disk is None else min(disk, policy.limit_bytes)
    return Room(int(max(pools, default=0)), disk)

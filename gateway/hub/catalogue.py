"""Search: what models the hub has, and which of them fit this machine.

The hub's list does not say how large files are, so that each repository is asked about as well: a few at a time, and
for a bounded time.  What is not known by then is null.
"""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from msgspec import Struct

from compat.canonical.error import BadResponse, GatewayError, InvalidRequest
from compat.canonical.model import Modality
from gateway.hub import Hub
from gateway.hub.choice import best, makes_pictures, modality_of
from gateway.hub.fit import Fit, fit, pipeline_memory
from gateway.hub.offer import Offer, offers
from gateway.hub.reading import card_of, repo_of
from gateway.hub.repo import Repo, is_id, words
from gateway.hub.safety import INDEX

if TYPE_CHECKING:
    from huggingface_hub.hf_api import ModelInfo

SIZES_S = 6.0
"""How long repositories are asked for the sizes of their files."""
AT_ONCE = 4
TAGS_SHOWN = 20
FILES_SHOWN = 50
QUANTIZATIONS_SHOWN = 60
FILTERS: dict[Modality | None, dict[str, Any]] = {
    None: {"filter": ["gguf"]},
    "text": {"filter": ["gguf"]},
    "embedding": {"filter": ["gguf"], "pipeline_tag": "sentence-similarity"},
    "rerank": {"filter": ["gguf"], "pipeline_tag": "text-ranking"},
    "image": {"filter": ["diffusers", "safetensors"], "pipeline_tag": "text-to-image"},
    "3d": {"filter": ["diffusers"], "pipeline_tag": "text-to-3d"},
}
"""How the hub is asked for what makes these, in files that can be run here."""
_EXPAND = [
    *("cardData", "downloads", "gated", "gguf", "lastModified", "library_name", "likes", "pipeline_tag", "private"),
    *("safetensors", "sha", "siblings", "tags"),
]


class Room(Struct, frozen=True):
    """What models may take here."""

    memory_bytes: int
    disk_bytes: int | None
    """None is not known."""


class Quantization(Struct, frozen=True, kw_only=True):
    """One way to have a model; null is not known."""

    name: str
    """What `quantization` of POST /v1/models/download takes; where there is none, the file's name."""
    files: list[str]
    """What `file` takes; several where it is split."""
    size_bytes: int | None
    fit: Fit | None


class SearchResult(Struct, frozen=True, kw_only=True):
    """A repository that has a model; null is not known."""

    id: str
    """ORG/NAME, or NAME: what `repo` of POST /v1/models/download takes."""
    object: Literal["model.search_result"] = "model.search_result"
    source: Literal["huggingface"] = "huggingface"
    modality: Modality
    downloads: int | None
    """Within the last month."""
    likes: int | None
    updated_at: datetime | None
    license: str | None
    gated: bool
    """Its makers want their licence accepted before they hand it out."""
    private: bool
    tags: list[str]
    parameters: int | None
    context_length: int | None
    quantizations: list[Quantization]
    size_bytes: int | None
    """Of what would be downloaded, unless something else is asked for."""
    fit: Fit | None
    """Of the same, into the memory that models may take and the room for downloads: `fits`, `tight` or `no`."""
    summary: str | None


async def search(
    hub: Hub, *, query: str | None, modality: Modality | None, limit: int, cursor: str | None, room: Room
) -> tuple[list[SearchResult], str | None]:
    """A page of what the hub finds, the most downloaded first, and the hub's cursor for the next one.

    Raises GatewayError where the list itself cannot be had.
    """
    asked: dict[str, Any] = {"sort": "downloads", "limit": limit, "expand": _EXPAND} | FILTERS[modality]
    asked |= {name: given for name, given in (("search", query), ("cursor", cursor)) if given is not None}
    try:
        rows, following = await hub.listed(asked)
    except InvalidRequest as e:
        if cursor is None:
            raise
        raise InvalidRequest(
            "Invalid value for 'cursor': use the 'next_cursor' of this list.", param="cursor", code="invalid_value"
        ) from e
    rows = [row for row in rows[:limit] if is_id(row.id)]
    sized = await _sizes(hub, [row.id for row in rows])
    # Some have thousands of files.
    return await asyncio.to_thread(_results, rows, sized, modality, room, hub.endpoint), following


def _results(
    rows: Sequence["ModelInfo"], sized: Mapping[str, Repo], modality: Modality | None, room: Room, endpoint: str
) -> list[SearchResult]:
    """Those that can be run here, and make what is wanted."""
    found: list[SearchResult] = []
    for row in rows:
        # One that is described badly is no reason to withhold the others.
        with suppress(BadResponse):
            one = _result(row, sized.get(row.id), modality, room, endpoint)
            if one is not None and modality in (None, one.modality):
                found.append(one)
    return found


async def _sizes(hub: Hub, ids: Sequence[str]) -> dict[str, Repo]:
    """What is known of these repositories in time."""
    gate = asyncio.Semaphore(AT_ONCE)
    known: dict[str, Repo] = {}
    loop = asyncio.get_running_loop()
    ends = loop.time() + SIZES_S

    async def one(id_: str) -> None:
        async with gate:
            try:
                known[id_] = await hub.described(id_, within_s=max(ends - loop.time(), 0.01))
            except GatewayError:
                return

    tasks = [asyncio.create_task(one(id_)) for id_ in ids]
    try:
        if tasks:
            await asyncio.wait(tasks, timeout=SIZES_S)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return known


def _result(
    row: "ModelInfo", known: Repo | None, modality: Modality | None, room: Room, endpoint: str
) -> SearchResult | None:
    """None: it is nothing that could be run here."""
    repo = known or repo_of(row, None, endpoint, sized=False)
    there = offers(repo)
    if there and makes_pictures(repo):
        return None
    size, verdict = (None, None) if known is None else _verdict(repo, there, room)
    said = card_of(row)
    return SearchResult(
        id=row.id,
        modality=modality_of(repo) if there or modality is None else modality,
        downloads=_whole(row.downloads),
        likes=_whole(row.likes),
        updated_at=row.last_modified,
        license=repo.license,
        gated=bool(row.gated),
        private=bool(row.private),
        tags=list(repo.tags[:TAGS_SHOWN]),
        parameters=repo.parameters,
        context_length=repo.context_length,
        quantizations=[_quantization(repo, one, room) for one in there[:QUANTIZATIONS_SHOWN]],
        size_bytes=size,
        fit=verdict,
        summary=_summary(said),
    )


def _quantization(repo: Repo, offer: Offer, room: Room) -> Quantization:
    return Quantization(
        name=offer.quantization or offer.name,
        files=[words(file.path, 400) for file in offer.files[:FILES_SHOWN]],
        size_bytes=offer.size_bytes if offer.sized else None,
        fit=_fit(offer.memory_bytes(repo), offer.size_bytes, room) if offer.sized else None,
    )


def _verdict(repo: Repo, there: Sequence[Offer], room: Room) -> tuple[int | None, Fit | None]:
    """The size of what would be downloaded, and whether it fits."""
    if there:
        taken = best(repo, there, room.memory_bytes)
        if not taken.sized:
            return None, None
        return taken.size_bytes, _fit(taken.memory_bytes(repo), taken.size_bytes, room)
    if any(file.path == INDEX for file in repo.files):
        # What a pipeline names is not read for a list: about what is beside its variants and its single files.
        weights = [
            file
            for file in repo.files
            if file.path.endswith(".safetensors") and "/" in file.path and file.path.count(".") == 1
        ]
        size = sum(file.size_bytes for file in weights)
        known = bool(size) and all(file.sized for file in weights)
        return (size, _fit(pipeline_memory(size), size, room)) if known else (None, None)
    return None, None


def _fit(memory_needed: int, size: int, room: Room) -> Fit:
    return fit(memory_needed, room.memory_bytes, size_bytes=size, disk_bytes=room.disk_bytes)


def _whole(given: object) -> int | None:
    return given if isinstance(given, int) and not isinstance(given, bool) and 0 <= given < 2**53 else None


def _summary(said: dict[str, Any]) -> str | None:
    """A sentence where the card's front matter has one; the card itself is not read for a list."""
    return words(said.get("summary") or said.get("description") or "", 400) or None

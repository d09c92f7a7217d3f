"""Pictures in a conversation's items: kept as artifacts, and given back to models and clients that see them."""

import asyncio
import base64
from collections.abc import Container, Iterable, Mapping, Sequence
from typing import Any

from compat.canonical.error import InvalidRequest, NotFound
from compat.magic import mime_of
from compat.nativeturn import ARTIFACT_URL
from compat.openai.conversations import artifact_of, pictures_of, told
from compat.openai.part import media_of_url
from compat.openai.responses_item import Item
from gateway.auth.principal import Grant
from gateway.house import House

COUNT_MAX = 16
"""Pictures of what came before that a model is shown again; of the rest it is told."""
BYTES_MAX = 24 * 1024 * 1024
"""And their bytes, together: what they become must still be a body that providers take."""
_DATA = "data:"
_PLACES = ("content", "output")


async def written_out(house: House, tenant: str, items: Sequence[Item], seen: Container[str]) -> list[Item]:
    """What came before, as a model is told of it.

    seen: the artifacts that it is shown as pictures (`seen_of`).
    """
    if not any(item["type"] == "artifact" for item in items) and not any(pictures_of(items)):
        return list(items)
    return told(items, await _urls(house, tenant, [id_ for id_ in pictures_of(items) if id_ in seen]))


async def urls(house: House, tenant: str, items: Iterable[Item]) -> dict[str, str]:
    """The newest pictures in these items, oldest item first, as data URLs by their artifacts' ids.

    Those that are gone, or are too many, are not in it.
    """
    return await _urls(house, tenant, pictures_of(items))


async def _urls(house: House, tenant: str, ids: Iterable[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    left = BYTES_MAX
    for id_ in list(dict.fromkeys(ids))[::-1][:COUNT_MAX]:
        try:
            media = await house.cabinet.artifacts.media(tenant, id_)
        except (NotFound, InvalidRequest):
            continue
        if media.data is None or len(media.data) > left:
            continue
        left -= len(media.data)
        found[id_] = await asyncio.to_thread(_url, media.mime, media.data)
    return found


async def checked(house: House, grant: Grant, items: Sequence[Item], param: str) -> None:
    """Whether the artifacts that these items name are there, and there is room for the pictures that they bring.

    Raises InvalidRequest; LimitReached and InsufficientStorage as the artifacts do.
    """
    for id_ in dict.fromkeys(pictures_of(items)):
        try:
            await house.cabinet.artifacts.get(grant.principal.tenant, id_)
        except NotFound as e:
            raise InvalidRequest(
                f"Invalid value for '{param}': there is no artifact '{id_[:100]}'.", param=param, code="invalid_value"
            ) from e
    if any(_is_data(part) for item in items for _, parts in _parts(item) for part in parts):
        await house.cabinet.artifacts.room(grant)


async def kept(house: House, grant: Grant, items: Sequence[Item], request_id: str) -> tuple[list[Item], list[str]]:
    """The items with their pictures kept as artifacts, and the ids of all artifacts that are in them."""
    kept_items = [await _kept(house, grant, item, request_id) for item in items]
    made = [item["id"] for item in kept_items if item["type"] == "artifact"]
    return kept_items, list(dict.fromkeys([*made, *pictures_of(kept_items)]))


async def _kept(house: House, grant: Grant, item: Item, request_id: str) -> Item:
    changed: dict[str, Any] = {}
    for name, parts in _parts(item):
        if any(map(_is_data, parts)):
            changed[name] = [
                await _kept_part(house, grant, part, request_id) if _is_data(part) else part for part in parts
            ]
    return item | changed if changed else item


async def _kept_part(house: House, grant: Grant, part: Item, request_id: str) -> Item:
    try:
        media = await asyncio.to_thread(media_of_url, part["image_url"], "input", "image/*", {})
    except InvalidRequest:  # its provider has taken it
        return part
    if media.data is None or (mime := mime_of(media.data)) is None:
        return part
    artifact = await house.cabinet.artifacts.put(grant, media.data, kind="image", mime=mime, request_id=request_id)
    return part | {"image_url": f"{ARTIFACT_URL}{artifact.id}"}


def _parts(item: Mapping[str, Any]) -> list[tuple[str, list[Any]]]:
    return [(name, item[name]) for name in _PLACES if isinstance(item.get(name), list)]


def _is_data(part: Any) -> bool:
    url = part.get("image_url") if isinstance(part, dict) and part.get("type") == "input_image" else None
    return isinstance(url, str) and url.startswith(_DATA) and artifact_of(part) is None


def _url(mime: str, data: bytes) -> str:
    return f"data:{mime};base64,{base64.b64encode(data).decode()}"

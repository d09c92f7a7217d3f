"""What requests refer to instead of holding it: pictures by URL and artifacts by id, had before a backend is asked.

So every backend can take them.  A provider that is sent a body in its own dialect fetches what that names by itself.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple, TypeVar

from compat import amount
from compat.body import LARGE_BYTES
from compat.canonical.error import InvalidRequest, NotFound
from compat.canonical.message import Media
from compat.mesh import picture
from gateway.house import House

PICTURES_MAX = 64
"""Of one request, however they are named."""
AT_ONCE = 4
"""Pictures of one request that are fetched at the same time."""
_ID = re.compile(r"(?:artifact:)?(art_[0-9a-z]{1,64})").fullmatch
_own = re.compile(
    r"(?i:https?)://[^/?#]+(?:/[^?#]*)?/v1/artifacts/(art_[0-9a-z]{1,64})/content(?:[?#].*)?", re.DOTALL
).fullmatch
"""A URL that a gateway gave for an artifact; whose it is, the tenant decides, not the host.  It is not fetched."""

T = TypeVar("T")


class Named(NamedTuple):
    """A picture as a request names it."""

    at: str
    """The field, by its path."""
    place: str
    """A data URL, an https URL or an artifact's id."""


class Given(NamedTuple):
    media: Media
    """With its data."""
    artifact_id: str | None
    """The artifact that it is, where it was one already."""


async def pictures(house: House, tenant: str, named: Sequence[Named], deadline: float) -> dict[str, Given]:
    """The pictures, by their places; each is had once.

    deadline: by the loop's clock.  Raises InvalidRequest; NotFound for an artifact that is not there, or is somebody
    else's.
    """
    if len(named) > PICTURES_MAX:
        at = named[PICTURES_MAX].at
        raise InvalidRequest(
            f"Invalid value for '{at}': a request may name {PICTURES_MAX} pictures.", param=at, code="invalid_value"
        )
    settings = house.cabinet.fetcher.settings
    once: dict[str, Named] = {}
    for one in named:
        once.setdefault(one.place, one)
    wanted = [one for one in once.values() if not one.place.startswith("data:") and _artifact_in(one.place) is None]
    if len(wanted) > settings.count_max:
        raise _invalid(
            wanted[settings.count_max].at,
            f"a request may name {settings.count_max} pictures by URL"
            if settings.count_max
            else "this gateway fetches no pictures. Send them as data URLs",
        )
    most, places, size = amount.parse(settings.request_bytes), asyncio.Semaphore(AT_ONCE), 0
    found: dict[str, Given] = {}

    async def have(one: Named) -> None:
        nonlocal size
        async with places:
            given = await _given(house, tenant, one, deadline)
        size += len(given.media.data or b"")
        if size > most:
            raise _invalid(one.at, f"the pictures of the request are larger than {most} bytes together")
        found[one.place] = given

    await _together([have(one) for one in once.values()])
    return found


async def parsed(read: Callable[[], T], size_bytes: int) -> T:
    """Read a body, a large one in a thread, not to hold up the loop."""
    return read() if size_bytes < LARGE_BYTES else await asyncio.to_thread(read)


async def _given(house: House, tenant: str, one: Named, deadline: float) -> Given:
    cabinet = house.cabinet
    at, place = one
    if place.startswith("data:"):
        return Given(await parsed(lambda: picture(place, at), len(place)), None)
    if (id_ := _artifact_in(place)) is not None:
        return await _artifact(house, tenant, id_, at)
    return Given(await cabinet.fetcher.picture(place, at, deadline), None)


def _artifact_in(place: str) -> str | None:
    """The id of the artifact that is named, by that or by a URL: such a URL is never fetched."""
    found = _ID(place) or _own(place)
    return None if found is None else found[1]


async def _artifact(house: House, tenant: str, id_: str, at: str) -> Given:
    try:
        return Given(await house.cabinet.artifacts.media(tenant, id_), id_)
    except NotFound as e:
        raise NotFound(
            f"Invalid value for '{at}': there is no such artifact.", param=at, code="artifact_not_found"
        ) from e
    except InvalidRequest as e:
        raise InvalidRequest(
            f"Invalid value for '{at}': that artifact is not a picture.", param=at, code="invalid_value"
        ) from e


async def _together(work: Sequence[Awaitable[None]]) -> None:
    """All of them; the first error ends the others, and is the one that is raised."""
    tasks = [asyncio.ensure_future(one) for one in work]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _invalid(at: str, why: str) -> InvalidRequest:
    return InvalidRequest(f"Invalid value for '{at}': {why}.", param=at, code="invalid_image_url")

"""The pictures that come with a request in a session, and the newest that there is in it."""

from collections.abc import Mapping, Sequence
from itertools import islice

from compat.canonical.error import InvalidRequest
from compat.nativeturn import ARTIFACT_URL
from gateway.auth.principal import Grant
from gateway.db.responses import Turn
from gateway.house import House
from gateway.inputs import Given
from gateway.sessions.seeing import newest_first

LOOKED_UP = 100
"""Pictures that are looked for at a time: almost always the first is there."""


async def last_picture(house: House, tenant: str, turns: Sequence[Turn], at: str) -> str:
    """Where the newest picture is that was made or given, and is still there.  Raises InvalidRequest.

    at: the field that names it.
    """
    ids = newest_first(turns)
    while some := list(islice(ids, LOOKED_UP)):
        there = {one.id for one in await house.cabinet.artifacts.rows.several(tenant, some)}
        if (found := next((id_ for id_ in some if id_ in there), None)) is not None:
            return f"{ARTIFACT_URL}{found}"
    raise InvalidRequest(
        f"Invalid value for '{at}': there is no picture in this session, or none that is still kept. Name an artifact, "
        "or give the picture.",
        param=at,
        code="no_picture",
    )


async def put(house: House, grant: Grant, request_id: str, brought: Mapping[str, Given]) -> dict[str, str]:
    """Keep the pictures that came with a request; where they are, by where they stand in its items."""
    places = {}
    for place, one in brought.items():
        id_ = one.artifact_id
        if id_ is None:
            assert one.media.data is not None, "it has been had"
            mime = one.media.mime if one.media.mime.startswith("image/") else "image/png"
            artifact = await house.cabinet.artifacts.put(
                grant, one.media.data, kind="image", mime=mime, request_id=request_id
            )
            id_ = artifact.id
        places[place] = f"{ARTIFACT_URL}{id_}"
    return places

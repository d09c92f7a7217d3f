"""Kept answers are told again for a day, and the signed URLs in them are good for minutes: they are signed anew.

Only what we have signed is, whoever wrote it there, and only for artifacts of the answer's tenant, who could ask for
such a URL anyway: a text in which a model repeats somebody else's gives nobody anything.
"""

import asyncio
import re
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from compat.canonical.error import Forbidden
from compat.mesh import iso
from gateway.artifacts.signing import PARAMETERS, Query, parsed

if TYPE_CHECKING:
    from gateway.artifacts.signing import Signer
    from gateway.house import House

LARGE_BYTES = 256 * 1024
"""From here on a body is looked through in a thread, not to hold up the loop."""
STEP_BYTES = 1024 * 1024
"""Looked through at once: a thread lets others have their turn between two."""
ARTIFACTS_MAX = 500
"""Of one answer: their ids go into one statement."""
_SIGN = b"/v1/artifacts/"
_url = re.compile(
    rb"/v1/artifacts/(art_[0-9a-z]{1,64})/content\?((?:[A-Za-z0-9._~%=&+-]|\\u0026){1,2048}+)"
    rb'(?:","expires_at":"([0-9T:-]{19}Z)")?'
).match


class _Place(NamedTuple):
    """A signed URL in a body, from its path on."""

    start: int
    end: int
    id: str
    path: str
    query: Query
    escaped: bool
    """Its `&` stands as JSON may spell it."""
    dated: bool
    """Its expiry follows it."""


async def signed_anew(house: "House", tenant: str, body: bytes) -> bytes:
    """The body of a tenant's kept answer, JSON or the whole of a stream, with good URLs: all else is as it was."""
    artifacts = house.cabinet.artifacts
    large = len(body) >= LARGE_BYTES
    places = await asyncio.to_thread(_places, artifacts.signer, body) if large else _places(artifacts.signer, body)
    if not places:
        return body
    ids = list(dict.fromkeys(place.id for place in places))[:ARTIFACTS_MAX]
    mine = {one.id for one in await artifacts.rows.several(tenant, ids)}
    out: list[bytes] = []
    at = 0
    until = int(time.time() + house.estate.config.artifacts.ttl_s)
    for place in places:
        if place.id not in mine:
            continue
        url = artifacts.signer.signed("GET", place.path, place.query, until).encode()
        out += (body[at : place.start], url.replace(b"&", rb"\u0026") if place.escaped else url)
        if place.dated:
            out.append(b'","expires_at":"%b"' % iso(until).encode())
        at = place.end
    return b"".join((*out, body[at:]))


def _places(signer: "Signer", body: bytes) -> list[_Place]:
    return list(_found(signer, body))


def _found(signer: "Signer", body: bytes) -> Iterator[_Place]:
    at = 0
    while at < len(body):
        start = body.find(_SIGN, at, at + STEP_BYTES + len(_SIGN) - 1)
        if start < 0:
            at += STEP_BYTES
            continue
        at = start + len(_SIGN)
        if (match := _url(body, start)) is None:
            continue
        at, id_ = match.end(), match[1].decode()
        path = f"/v1/artifacts/{id_}/content"
        try:
            query = parsed(match[2].replace(rb"\u0026", b"&"))
            # As of the beginning of time nothing has expired.
            signer.check("GET", path, query, 0)
        except Forbidden:
            continue
        others = [(name, value) for name, value in query if name not in PARAMETERS]
        yield _Place(start, at, id_, path, others, rb"\u0026" in match[2], match[3] is not None)

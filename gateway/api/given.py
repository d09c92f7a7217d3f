"""Pictures that a request names by URL or by an artifact's id: had before its routes are asked."""

from collections.abc import Callable, Mapping, Sequence

from msgspec.structs import replace

from compat.canonical.message import Media
from compat.canonical.request import Envelope, Request
from gateway import inputs
from gateway.api.generation import Language
from gateway.house import House
from gateway.inputs import Named
from gateway.visit import Visit

Parse = Callable[[Envelope, Mapping[str, Media]], Request]
"""Reads a request, given the pictures that it only names."""
_STAND_IN = Media(mime="image/png", data=b"")


async def with_pictures(
    house: House, visit: Visit, envelope: Envelope, language: Language, named: Sequence[tuple[str, str]], parse: Parse
) -> Language:
    """The language of a request that names these: the path of each, and what stands there.

    Raises InvalidRequest, and NotFound for artifacts.
    """
    if not named:
        return language
    assert visit.principal is not None, "the guard lets nobody in without one"
    assert visit.deadline is not None, "it has a plan"
    # What else is wrong with it is said before anything is fetched.
    stand_ins = {place: _STAND_IN for _, place in named}
    await inputs.parsed(lambda: parse(envelope, stand_ins), len(envelope.body))
    found = await inputs.pictures(house, visit.principal.tenant, [Named(*one) for one in named], visit.deadline)
    pictures = {place: one.media for place, one in found.items()}
    return replace(language, parse=lambda asked: parse(asked, pictures))

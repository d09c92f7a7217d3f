"""Pictures and meshes that an answer gives out by URL: kept as artifacts before it is written."""

from collections.abc import AsyncGenerator

from compat.canonical.event import Event
from compat.canonical.request import Envelope
from gateway.api.generation import Context
from gateway.house import House
from gateway.routing.dispatch import relays
from gateway.routing.router import Plan
from gateway.visit import Visit


async def room(house: House, visit: Visit, envelope: Envelope, plan: Plan) -> None:
    """Whether what is going to be made may be kept; where a provider's own answer may be passed on, it need not be.

    Raises LimitReached, InsufficientStorage.
    """
    assert visit.grant is not None, "the guard lets nobody in without one"
    if not any(relays(route.backend, envelope, route.model) for route in plan.routes):
        await house.cabinet.artifacts.room(visit.grant)


def kept(house: House, events: AsyncGenerator[Event, None], context: Context) -> AsyncGenerator[Event, None]:
    """An answer's events, what they bring kept (`Artifacts.kept`).  Closes them."""
    visit = context.visit
    assert visit.grant is not None, "the guard lets nobody in without one"
    return house.cabinet.artifacts.kept(events, visit.grant, base_url=context.base_url, request_id=visit.request_id)

"""The schemas that were asked for: each worked out once, as long as nothing else is known, and kept with its time.

Writing one down is nobody's wait: it happens behind the answer, and if it fails it is tried when it is asked for again.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec

from compat.canonical.error import GatewayError
from compat.canonical.model import Modality
from gateway.house import Estate, House
from gateway.routing.router import Route
from gateway.routing.selection import allowed
from gateway.schema import content
from gateway.schema.bodies import BODIES, Body, Json
from gateway.schema.carriage import Carriage, carriages
from gateway.schema.content import Taken
from gateway.telemetry.logging import logger

KNOWN_MAX = 256
"""Names whose schemas are remembered."""
TRIED_MAX = 4096
"""Routes with bodies whose carriage is remembered, and versions that are known to be kept."""

Plans = Mapping[Modality, Sequence[Route]]
"""By what is to be made, the routes of a name."""


class Keeps(Protocol):
    """Where old versions are kept."""

    async def put(self, tenant: str, owner: str, model: str, version: str, body: bytes, at: float) -> None: ...


class SchemaBook:
    def __init__(self, house: House, package: str) -> None:
        """package: the version of the gateway."""
        self._house = house
        self._package = package
        self._general: Json | None = None
        self._estate: Estate | None = None
        self._edition: int | None = None
        self._known: dict[object, Json] = {}
        self._tried: dict[object, dict[str, Carriage] | GatewayError] = {}
        self._kept: set[tuple[str, str, str, str]] = set()
        self._writing: set[asyncio.Task[None]] = set()
        self._making = asyncio.Lock()

    async def general(self) -> Json:
        """Of everything that can be asked of the gateway."""
        if self._general is None:
            self._general = await asyncio.to_thread(content.general, self._package)
        return self._general

    async def of_model(self, name: str, plans: Plans, estate: Estate) -> Json:
        """Of a name with these routes.  Raises GatewayError if none of them takes anything."""
        key = name, tuple((made, tuple(map(_told, routes))) for made, routes in plans.items())
        async with self._making:
            if self._estate is not estate or self._edition != estate.registry.edition:
                self._estate, self._edition = estate, estate.registry.edition
                self._known.clear()
                self._tried.clear()
            if (known := self._known.get(key)) is not None:
                return known
            taken = await self._taken(plans)
            whole = await asyncio.to_thread(content.of_model, name, taken, estate, self._package)
            if len(self._known) >= KNOWN_MAX:
                self._known.clear()
            self._known[key] = whole
            return whole

    def keep(self, rows: Keeps, tenant: str, owner: str, name: str, schema: Json) -> None:
        """Have a version written down, once."""
        key = tenant, owner, name, schema["version"]
        if key in self._kept:
            return
        if len(self._kept) >= TRIED_MAX:
            self._kept.clear()
        self._kept.add(key)
        task = asyncio.create_task(self._write(rows, key, schema))
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)

    async def _write(self, rows: Keeps, key: tuple[str, str, str, str], schema: Json) -> None:
        try:
            body = await asyncio.to_thread(msgspec.json.encode, schema)
            await rows.put(*key, body, time.time())
        except Exception as e:  # a full disk, or no database: the answer is out already
            self._kept.discard(key)
            logger().warning("schema_unkept", model=key[2], error=type(e).__name__)

    async def _taken(self, plans: Plans) -> Taken:
        out: list[tuple[Body, list[tuple[Route, dict[str, Carriage]]]]] = []
        failure: GatewayError | None = None
        for body in BODIES:
            carriers = []
            for route in plans.get(body.modality, ()):
                if allowed(route, "auto", body.modality) is not None:
                    continue
                found = await self._carriages(route, body)
                if isinstance(found, GatewayError):
                    failure = failure or found
                else:
                    carriers.append((route, found))
            if carriers:
                out.append((body, carriers))
        if not out and failure is not None:
            raise failure
        return out

    async def _carriages(self, route: Route, body: Body) -> dict[str, Carriage] | GatewayError:
        key = route.backend, route.model, body
        found = self._tried.get(key)
        if found is None:
            if len(self._tried) >= TRIED_MAX:
                self._tried.clear()
            found = self._tried[key] = await carriages(route.backend, route.model, body)
        return found


def _told(route: Route) -> object:
    return route.backend, route.model, route.modality, route.capabilities, route.context_length, route.price

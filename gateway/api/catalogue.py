"""Everything a client can ask for, as it is listed: made once for all who ask, as long as nothing else is known.

Only how local models stand is looked at each time.  Working out what a model takes in memory goes into a thread.
"""

import asyncio
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from itertools import chain
from typing import Any, Protocol, runtime_checkable

import msgspec
from msgspec.structs import replace

from backends.ports import Local
from compat.canonical.error import GatewayError
from compat.canonical.model import Model
from compat.openai import models as openai
from gateway.auth.principal import Grant
from gateway.house import Estate, House
from gateway.registry.book import as_listed
from gateway.registry.entry import Entry
from gateway.settings import Target

FEW = 50
"""So many are listed at once; the list of more is made in a thread, while others are served."""
Standings = Mapping[str, tuple[str, int | None]]
"""By id: how models stand that were ever wanted, and the memory they take."""
Wanted = tuple[str | None, str | None, str | None, str | None]
"""A modality, a backend, a status and a tag; None is any."""


@runtime_checkable
class Surveyed(Protocol):
    """A backend that can tell of many models at once how they stand."""

    def overview(self) -> Mapping[str, tuple[str, int | None]]: ...
    def need_bytes(self, model: str) -> int | None: ...


class Listed:
    """A model under the name a client can ask for it by."""

    def __init__(
        self,
        id_: str,
        models: Sequence[Model],
        routes: list[str] | None = None,
        entry: Entry | None = None,
        bare: str | None = None,
    ) -> None:
        self.id = id_
        self.models = models
        """One; or one for each modality that a configured name has routes for."""
        self.routes = routes
        """Where a configured name leads; None for a backend's own model."""
        self.entry = entry
        """What is registered of it."""
        self.bare = bare
        """Its name without the backend, where that means this one."""
        self._written: dict[int, msgspec.Raw] = {}

    def of(
        self,
        standings: Standings,
        modality: str | None = None,
        backend: str | None = None,
        status: str | None = None,
        tag: str | None = None,
    ) -> tuple[int, Model] | None:
        """What a client gets to see who asks for these only, and which of `models` it is."""
        for n, model in enumerate(self.models):
            if modality not in (None, model.modality) or backend not in (None, model.backend):
                continue
            if tag is not None and tag not in model.tags:
                continue
            stands = standings.get(model.id)
            if status is not None and status != (model.status if stands is None else stands[0]):
                continue
            if stands is not None:
                model = replace(model, status=stands[0], memory_bytes=stands[1] or model.memory_bytes)
            return n, model
        return None

    def is_for(self, name: str, grant: Grant) -> bool:
        """Whether a caller may use any of its routes, under the name, bare or whole, an alias or the route's own."""
        names = [name, *(alias for model in self.models for alias in model.aliases)]
        if self.bare is not None:
            names.append(self.bare)
        return any(
            (grant.may_ask(route) or any(map(grant.may_ask, names))) and grant.may_use(route.partition("/")[0])
            for route in self.routes or [model.id for model in self.models]
        )

    def rendered(self, model: Model) -> dict[str, Any]:
        out = openai.render_model(model, self.id)
        if self.routes is not None:
            return out | {"owned_by": "pluggably", "routes": self.routes}
        entry = self.entry
        return out | {
            "pinned": entry is not None and entry.pinned,
            "reason": None if entry is None or entry.status == "ready" else entry.reason,
            "update": None if entry is None else entry.upstream,
        }

    def written(self, n: int, model: Model) -> msgspec.Raw:
        """The same in JSON."""
        if model is not self.models[n]:
            return msgspec.Raw(msgspec.json.encode(self.rendered(model)))
        if n not in self._written:
            self._written[n] = msgspec.Raw(msgspec.json.encode(self.rendered(model)))
        return self._written[n]


class Catalogue:
    def __init__(self, house: House) -> None:
        self._house = house
        self._known: tuple[Estate, int, dict[str, Listed]] | None = None
        self._needs: dict[str, tuple[Local, int | None]] = {}
        self._making = asyncio.Lock()
        self._body: tuple[Mapping[str, Listed], Standings, Wanted, bytes] | None = None

    async def listed(self, estate: Estate) -> dict[str, Listed]:
        """What the house can be asked for, by the id a client would ask with: configured names first."""
        models = await estate.registry.all()
        async with self._making:
            edition = estate.registry.edition
            if self._known is not None and self._known[0] is estate and self._known[1] == edition:
                return self._known[2]
            listed = await self.of(estate, models)
            if estate is self._house.estate:
                self._known = estate, edition, listed
            return listed

    def body(self, listed: Mapping[str, Listed], stand: Standings, wanted: Wanted) -> bytes:
        """The list in JSON, of those wanted only; the last one that many were given is kept."""
        last = self._body
        if last is not None and last[0] is listed and last[1] == stand and last[2] == wanted:
            return last[3]
        seen = ((one, one.of(stand, *wanted)) for one in listed.values())
        data = [one.written(*shown) for one, shown in seen if shown is not None]
        body = msgspec.json.encode({"object": "list", "data": data, "next_cursor": None})
        if self._known is not None and self._known[2] is listed:
            self._body = listed, dict(stand), wanted, body
        return body

    async def one(self, estate: Estate, id_: str) -> Listed | None:
        """A backend's model, without asking anybody."""
        book, entry = estate.registry.book, self._house.entries.get(id_)
        model = book.known.get(id_)
        if model is None:
            absent = book.absent.get(id_)
            return None if absent is None else Listed(id_, [self._priced(as_listed(absent), estate)], entry=absent)
        if (local := estate.local.get(model.backend, {}).get(model.name)) is not None:
            self._needs |= await asyncio.to_thread(_needs, estate, [local])
        return Listed(id_, [self._priced(model, estate)], entry=entry)

    async def of(self, estate: Estate, models: Sequence[Model]) -> dict[str, Listed]:
        """The same of these models."""
        new = [
            local
            for models_ in estate.local.values()
            for local in models_.values()
            if (known := self._needs.get(local.model.id)) is None or known[0] is not local
        ]
        if new:
            self._needs |= await asyncio.to_thread(_needs, estate, new)
        absent = list(estate.registry.book.absent.values())
        if len(models) + len(absent) < FEW:
            return self._all(estate, models, absent)
        return await asyncio.to_thread(self._all_written, estate, models, absent)

    def _all_written(self, estate: Estate, models: Sequence[Model], absent: Iterable[Entry]) -> dict[str, Listed]:
        listed = self._all(estate, models, absent)
        for one in listed.values():
            one.written(0, one.models[0])
        return listed

    def _all(self, estate: Estate, models: Sequence[Model], absent: Iterable[Entry]) -> dict[str, Listed]:
        by_id = {model.id: self._priced(model, estate) for model in models}
        out: dict[str, Listed] = {}
        for name, entry in estate.config.models.items():
            if "*" in name:
                continue
            if isinstance(entry.routes, tuple):
                targets = _targets(entry.routes)
                out[name] = Listed(name, [replace(_model(targets[0], by_id), aliases=())], targets)
            else:
                by_modality = {modality: _targets(routes) for modality, routes in entry.routes.items()}
                firsts = [
                    replace(_model(targets[0], by_id), modality=modality, aliases=())
                    for modality, targets in by_modality.items()
                ]
                out[name] = Listed(name, firsts, list(dict.fromkeys(chain.from_iterable(by_modality.values()))))
        entries, hidden = self._house.entries, estate.registry.book.hidden
        names = set[tuple[str, str]]()
        configured = estate.config.models
        globs = [name for name in configured if "*" in name]

        def add(id_: str, model: Model, entry: Entry | None) -> None:
            # By a bare name the first is meant that makes what is wanted.
            name = model.name
            meant = (name, model.modality) not in names and name not in configured
            meant = meant and not any(fnmatchcase(name, glob) for glob in globs)
            names.add((name, model.modality))
            out.setdefault(id_, Listed(id_, [model], entry=entry, bare=name if meant else None))

        for id_, model in by_id.items():
            if id_ not in hidden:  # what a user's own account lists
                add(id_, model, entries.get(id_))
        for entry_ in absent:
            add(entry_.id, self._priced(as_listed(entry_), estate), entry_)
        return out

    def _priced(self, model: Model, estate: Estate) -> Model:
        price = estate.router.price(model.backend)
        if not estate.registry.is_closed(model.backend):
            return replace(model, price=price)
        _, need = self._needs.get(model.id, (None, model.memory_bytes))
        here = estate.registry.has_local(model.backend, model.name)
        return replace(model, price=price, memory_bytes=need, status="unloaded" if here else model.status)


def standings(estate: Estate) -> Standings:
    return dict(_standings(estate))


def _standings(estate: Estate) -> Iterator[tuple[str, tuple[str, int | None]]]:
    for name, backend in estate.backends.items():
        if isinstance(backend, Surveyed):
            for model, stands in backend.overview().items():
                if estate.registry.is_closed(name) and estate.registry.has_local(name, model):
                    yield f"{name}/{model}", stands


def _needs(estate: Estate, models: Sequence[Local]) -> dict[str, tuple[Local, int | None]]:
    out: dict[str, tuple[Local, int | None]] = {}
    for local in models:
        backend = estate.backends.get(local.model.backend)
        try:
            need = backend.need_bytes(local.name) if isinstance(backend, Surveyed) else None
        except (GatewayError, ValueError, ArithmeticError):
            need = None  # its own attempt to run it tells why
        out[local.model.id] = local, need
    return out


def _targets(routes: Sequence[str | Target]) -> list[str]:
    return [route if isinstance(route, str) else route.to for route in routes]


def _model(id_: str, known: Mapping[str, Model]) -> Model:
    backend, _, name = id_.partition("/")
    return known.get(id_) or Model(name=name, backend=backend)

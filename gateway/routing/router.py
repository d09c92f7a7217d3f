"""A name → the routes that may answer it, in order, and why.

`BACKEND/MODEL` addresses one backend.  A bare name is looked for among the configured names, then
their globs, then local and registered models and their aliases, then what the providers list.
"""

from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from itertools import chain
from typing import Protocol

import msgspec
from msgspec import Struct

from backends.base import Backend, Price, Timeouts
from compat.canonical.error import GatewayError, InvalidRequest, ModelNotFound, ModelUnavailable
from compat.canonical.model import Modality, Model
from gateway.auth.principal import LOCAL, Grant
from gateway.registry import Registry
from gateway.routing.suggestion import meant
from gateway.settings import Guard, ModelEntry, Strategy, Target, WhileLoading

NAME_MAX = 300
"""Characters of a model's name: names are looked for, and kept, in many places."""


class Route(Struct, frozen=True):
    backend: Backend
    model: str
    """The backend's own name for the model."""
    weight: float = 1.0
    price: Price | None = None
    """None: nobody said."""
    modality: Modality | None = None
    capabilities: tuple[str, ...] = ()
    """None named: unknown."""
    context_length: int | None = None
    account: str | None = None
    """The credential of the user whose own account it asks; None is the house's account."""

    @property
    def name(self) -> str:
        return f"{self.backend.name}/{self.model}"

    @property
    def key(self) -> str:
        """Tells its health from others': what one account meets with says nothing of another's."""
        if self.account is None:
            return f"{self.backend.name}/{self.model}"
        return f"{self.backend.name}#{self.account}/{self.model}"


class Plan(Struct, frozen=True, kw_only=True):
    requested: str
    routes: Sequence[Route]
    """As configured; `gateway.routing.selection` puts them in order for a request."""
    reason: str
    """Why these, in words."""
    retries: int = 0
    """Further attempts once each route has failed."""
    timeouts: Timeouts = Timeouts()
    strategy: Strategy = "order"
    guard: Guard = "off"
    while_loading: WhileLoading = "wait"
    bare: str | None = None
    """Another name that leads to the same: whoever may ask for it may ask for this."""


class Lists(Protocol):
    """Knows by which backend a bare name is listed."""

    async def find(self, name: str, modality: Modality = "text") -> Model | None: ...


class Router:
    def __init__(
        self,
        entries: Mapping[str, ModelEntry],
        backends: Mapping[str, Backend],
        registry: Registry,
        prices: Mapping[str, Price | None] | None = None,
    ) -> None:
        self._backends = backends
        self._registry = registry
        self._prices = prices or {}
        self._exact: dict[str, Plan | dict[str, Plan]] = {}
        """Where an entry has routes by modality, one plan for each."""
        self._leading: dict[tuple[str, Modality], Plan] = {}
        """Of these, with the routes that lead to something now: for every request but the first."""
        self._entries = {name: entry for name, entry in entries.items() if "*" not in name}
        self._globs = [(name, entry) for name, entry in entries.items() if "*" in name]
        self._plan()

    async def plan(
        self, requested: str, modality: Modality = "text", lists: Lists | None = None, grant: Grant = LOCAL
    ) -> Plan:
        """The routes for a name; an empty one means `auto`.  Raises ModelNotFound.

        lists: what whoever asks can have; None is what the house can.
        grant: what whoever asks may use, and thus may be told of where there is no such name.
        """
        name = requested or "auto"
        if self._edition != self._registry.edition:
            self._plan()
        if (leading := self._leading.get((name, modality))) is not None:
            return leading
        plan = self._exact.get(name)
        if plan is not None:
            whole = plan if isinstance(plan, Plan) else self._of_modality(plan, name, modality)
            self._leading[name, modality] = leading = self._here(whole)
            return leading
        if len(name) > NAME_MAX:
            raise self.unknown(requested, grant)
        for pattern, entry in self._globs:
            if fnmatchcase(name, pattern):
                plan = self._by_modality(name, entry, f"configured as '{pattern}'")
                return self._here(plan if isinstance(plan, Plan) else self._of_modality(plan, name, modality))
        backend_name, slash, model = name.partition("/")
        backend = self._backends.get(backend_name)
        if slash and model and backend is not None:
            model = self._registry.meant(backend_name, model)
            if self._registry.is_gone(backend_name, model):
                raise self._absent(requested, grant) or self.unknown(requested, grant)
            route = self._route(backend_name, model)
            same = grant.restricted and grant.may_ask(model) and self.means(route.name, modality)
            why = "addressed as BACKEND/MODEL"
            return Plan(requested=name, routes=(route,), reason=why, retries=2, bare=model if same else None)
        found = self._registry.here(name, modality)
        if found is None:
            # Not sent elsewhere, to a provider that has one of the same name, while it is on its way.
            absent = self._absent(requested, grant)
            if isinstance(absent, ModelUnavailable):
                raise absent
            found = await (lists or self._registry).find(name, modality)
            if found is None or self._registry.is_gone(found.backend, found.name):
                raise absent or self.unknown(requested, grant)
        return Plan(
            requested=name,
            routes=(self._route(found.backend, found.name),),
            reason=self._found(name, found),
            retries=2,
        )

    async def only(self, backend: str, modality: Modality, grant: Grant) -> str:
        """The name of the one model that a backend has for this, and a caller may use.  Raises InvalidRequest."""
        names = [
            model.id
            for model in await self._registry.all()
            if model.backend == backend and model.modality == modality and grant.may_ask(model.id)
        ]
        if len(names) != 1 or not grant.may_use(backend):
            raise InvalidRequest(
                f"The provider '{backend[:100]}' has not exactly one model for {modality}: name one in 'model'.",
                param="model",
                code="missing_required_parameter",
            )
        return names[0]

    def _plan(self) -> None:
        """Draw the plans of exact names, with what is known by now of their models."""
        self._edition = self._registry.edition
        self._leading.clear()
        for name, entry in self._entries.items():
            self._exact[name] = self._by_modality(name, entry, f"configured as '{name}'")

    def _by_modality(self, name: str, entry: ModelEntry, reason: str) -> Plan | dict[str, Plan]:
        if isinstance(entry.routes, tuple):
            return self._planned(name, entry, entry.routes, reason)
        return {
            modality: self._planned(name, entry, routes, f"{reason}, {modality}")
            for modality, routes in entry.routes.items()
        }

    def _of_modality(self, plans: dict[str, Plan], name: str, modality: Modality) -> Plan:
        if modality not in plans:
            raise ModelNotFound(f"The model '{name}' has no routes for {modality}; it has some for {', '.join(plans)}.")
        return plans[modality]

    def means(self, id_: str, modality: Modality) -> bool:
        """Whether the bare name of a model leads to this one, as far as is known without asking anybody."""
        backend, _, name = id_.partition("/")
        configured = name in self._entries or any(fnmatchcase(name, pattern) for pattern, _ in self._globs)
        return not configured and self._registry.is_meant(backend, name, modality)

    def _found(self, name: str, model: Model) -> str:
        if name != model.name:
            return f"an alias of '{model.id}'"
        local = self._registry.is_closed(model.backend)
        return "a local model" if local else f"listed by backend '{model.backend}'"

    def _absent(self, requested: str, grant: Grant) -> GatewayError | None:
        """What is said of a model that is registered and not here, to those who may use it; None: it is none."""
        entry = self._registry.absent(requested)
        if entry is None or not grant.may_use(entry.backend):
            return None
        return self._registry.refusal(entry) if grant.may_ask(entry.id) or grant.may_ask(requested) else None

    def _here(self, plan: Plan) -> Plan:
        """The plan with those of its routes that lead to something.

        Raises ModelUnavailable, or ModelNotFound, where none does.
        """
        here = [route for route in plan.routes if not self._registry.is_gone(route.backend.name, route.model)]
        if len(here) == len(plan.routes):
            return plan
        if here:
            why = f"{plan.reason}; not all of its models are here"
            return msgspec.structs.replace(plan, routes=tuple(here), reason=why)
        absent = (self._registry.absent(route.name) for route in plan.routes)
        if (first := next((entry for entry in absent if entry is not None), None)) is not None:
            raise self._registry.refusal(first)
        raise ModelNotFound(
            f"The model '{plan.requested[:200]}' leads only to models that were removed or are not on this machine: "
            "register one of them again, or change its routes in the configuration file, under models."
        )

    def price(self, backend: str) -> Price | None:
        """The class of price of a backend's models; None: nobody said."""
        return self._prices.get(backend)

    def _planned(self, name: str, entry: ModelEntry, targets: Sequence[str | Target], reason: str) -> Plan:
        routes = []
        for given in targets:
            target = Target(to=given) if isinstance(given, str) else given
            backend, _, model = target.to.partition("/")
            route = self._route(backend, model.replace("*", name))
            routes.append(
                msgspec.structs.replace(
                    route,
                    weight=target.weight,
                    capabilities=target.capabilities or route.capabilities,
                    context_length=target.context_length or route.context_length,
                )
            )
        return Plan(
            requested=name,
            routes=tuple(routes),
            reason=reason,
            retries=entry.retries,
            timeouts=entry.timeouts,
            strategy=entry.strategy,
            guard=entry.stream_guard,
            while_loading=entry.while_loading,
        )

    def _route(self, backend: str, model: str) -> Route:
        id_, book, closed = f"{backend}/{model}", self._registry.book, self._registry.is_closed(backend)
        facts, vouched = book.known.get(id_), book.vouched.get(id_)
        # A provider's list does not say what a model makes, and not all that it can do.
        said = () if vouched is None else vouched.said
        return Route(
            self._backends[backend],
            model,
            price=self._prices.get(backend),
            modality=facts.modality if facts and (closed or "modality" in said) else None,
            capabilities=facts.capabilities if facts and (closed or "capabilities" in said) else (),
            context_length=facts.context_length if facts else None,
        )

    def unknown(self, requested: str, grant: Grant) -> ModelNotFound:
        """What is said of a name that there is none of; with the nearest of those the caller may use."""
        if not requested:
            return ModelNotFound("No model is named, and the configuration has no 'auto'.")
        shown = requested if len(requested) <= 200 else requested[:200] + "…"
        near = meant(requested, self._names(grant))
        hint = f"Did you mean '{near}'? " if near else ""
        return ModelNotFound(f"The model '{shown}' does not exist. {hint}GET /v1/models lists what there is.")

    def _names(self, grant: Grant) -> Iterator[str]:
        """Names of which a caller may use something, as far as that is known without asking anybody."""
        for model in self._registry.local():
            if grant.may_ask(model.id) and grant.may_use(model.backend):
                yield model.id
        for name, plan in self._exact.items():
            routes = plan.routes if isinstance(plan, Plan) else chain.from_iterable(p.routes for p in plan.values())
            if any((grant.may_ask(name) or grant.may_ask(r.name)) and grant.may_use(r.backend.name) for r in routes):
                yield name

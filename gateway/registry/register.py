"""Registering models and changing what is registered: what the HTTP resource does.

Every change is checked, written down with its author, and in force here when it returns.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from backends.ports import Local
from compat.canonical.error import Conflict, Forbidden, InvalidRequest
from compat.canonical.model import Model
from gateway.auth.principal import Grant
from gateway.auth.registrar import By
from gateway.checks import nearest
from gateway.db.audit import Act
from gateway.discovery import at as read_at
from gateway.discovery.problem import Problem
from gateway.findings import faults
from gateway.registry.entry import Entry, Source
from gateway.registry.exchange import NOTHING, is_as_it_was, is_kept, kept, of_provider, provided, source_of
from gateway.registry.form import Kept, KeptModel, ModelChanges, NewModel, check, said, wrong
from gateway.registry.laying import OF_THE_FILES
from gateway.registry.learning import MISSING, entry_of
from gateway.registry.naming import Names, check_alias, check_free, check_name
from gateway.registry.places import allowed, lying, several
from gateway.settings import ConfigError

if TYPE_CHECKING:
    from gateway.house import House

LISTED_S = 3.0
"""How long providers that have not told what they have are waited for when somebody gives an alias."""
CANDIDATES_MAX = 5
"""Models of a folder that a refusal names."""
TOLD_MAX = 50
"""Ids in one line of the audit log."""


class Register:
    def __init__(self, house: "House") -> None:
        self._house = house
        self.deciding = asyncio.Lock()
        """Two who want the same name must not both find it free, nor one change what another takes away."""

    async def create(self, form: NewModel, grant: Grant, by: By) -> str:
        """Register a model; its id.  Raises InvalidRequest, Conflict, Forbidden."""
        check(form)
        await self._listed_by_providers(form.aliases)
        async with self.deciding:
            id_, field = self._id(form)
            self._check_allowed(id_, grant)
            known = self._house.entries.get(id_)
            if known is not None and known.explicit and not known.hidden:
                raise Conflict(f"'{id_}' is registered already: PATCH /v1/models/{{id}} changes it.", param=field)
            entry = await self._entry(form, id_, grant, self._names(), "", field=field)
            if entry.status not in ("ready", "registered"):
                raise InvalidRequest(
                    f"There is no model '{id_}' here: name its 'source' on the hub or its 'path' on the server.",
                    param="source",
                    code="missing_required_parameter",
                )
            act = act_of("register", id_, grant, by, _told(form))
            await self._served([entry], act)
        return id_

    async def change(self, id_: str, form: ModelChanges, grant: Grant, by: By) -> str:
        """Change what is registered of a model.  Raises InvalidRequest, Conflict, ModelNotFound."""
        check(form)
        await self._listed_by_providers(form.aliases)
        async with self.deciding:
            entry = self.entry(id_, grant)
            told = dict(said(form))
            if entry.hidden and "hidden" not in told:
                raise self._house.estate.router.unknown(id_, grant)
            fields = {name: NOTHING[name] if value is None else value for name, value in told.items()}
            names, comes_back = self._names(), entry.hidden and not fields.get("hidden")
            if comes_back:
                check_free(entry.id, names, "hidden")
            if comes_back or "aliases" in told:
                fields["aliases"] = _aliases(fields.get("aliases", entry.aliases), entry.id, names, "")
            if "tags" in told:
                fields["tags"] = tuple(dict.fromkeys(fields["tags"]))
            own = {name for name in OF_THE_FILES if told.get(name) is not None}
            taken_back = {name for name in OF_THE_FILES if name in told} - own

            def edit(now: Entry) -> Entry:
                if now.hidden and not entry.hidden:
                    raise self._house.estate.router.unknown(id_, grant)
                spoken = tuple(sorted((set(now.said) | own) - taken_back))
                new = replace(now, explicit=True, said=spoken, **fields)
                return now if new == now else replace(new, updated_at=time.time())

            changed = edit(entry)
            if not self._is_local(entry.backend) and (changed.defaults or changed.pinned):
                raise wrong("defaults" if changed.defaults else "pinned", "only local models have that")
            if "defaults" in told or "modality" in told:
                self._check_defaults(changed, self._local(changed), "")
            known = self._house.entries.get(entry.id)
            if changed != entry or known is None:
                detail = {name: list(v) if isinstance(v, tuple) else v for name, v in told.items()}
                act = act_of("update", entry.id, grant, by, detail)
                if known is None:
                    await self._served([replace(changed, updated_at=time.time())], act)
                    return entry.id
                try:
                    await self._edited(known, edit, ("explicit", "said", *fields), act)
                except KeyError:
                    raise self._house.estate.router.unknown(id_, grant) from None
        return entry.id

    def export(self, grant: Grant, *, everything: bool) -> Kept:
        """What is registered, to be imported elsewhere; with `everything` what was merely found as well."""
        entries = sorted(self._house.entries.all(), key=lambda entry: entry.id)
        return Kept(
            models=tuple(
                kept(entry)
                for entry in entries
                if (everything or entry.explicit or entry.hidden) and self._allows(grant, entry.id)
            )
        )

    async def take_in(self, registry: Kept, grant: Grant, by: By) -> tuple[int, int]:
        """Register what was exported: all of it or nothing; how many are new, and how many became others.

        Raises what `create` raises, naming the model.
        """
        await self._listed_by_providers([alias for form in registry.models for alias in form.aliases])
        async with self.deciding:
            ids = [self._id(form, f"models[{n}].")[0] for n, form in enumerate(registry.models)]
            known = {id_: self._house.entries.get(id_) for id_ in ids}
            # What is there already may be called what it is called, even if nobody could call it so now.
            same = {id_ for id_, form in zip(ids, registry.models, strict=True) if is_kept(form, known[id_])}
            names, entries, taken = self._names(without=set(ids) - same), list[Entry](), set[str]()
            for n, (id_, form) in enumerate(zip(ids, registry.models, strict=True)):
                at = f"models[{n}]."
                if id_ in taken:
                    raise wrong(f"{at}id", f"'{id_}' is there twice")
                taken.add(id_)
                self._check_allowed(id_, grant)
                if id_ in same:
                    continue
                check(form, at)
                entries.append(await self._entry(form, id_, grant, names, at, field=f"{at}id"))
                names.add(id_, () if form.hidden else entries[-1].aliases)
            news = [entry for entry in entries if not is_as_it_was(entry, known[entry.id])]
            new = sum(known[entry.id] is None for entry in news)
            if news:
                told = {"models": len(news), "ids": [entry.id for entry in news[:TOLD_MAX]]}
                await self._served(news, act_of("import", "registry", grant, by, told))
        return new, len(news) - new

    def entry(self, id_: str, grant: Grant) -> Entry:
        """What is registered of the model that an id, a bare name or an alias means; what would be, where nobody has.

        Raises ModelNotFound, or InvalidRequest for a name of the configuration file.
        """
        house, estate = self._house, self._house.estate
        registry = estate.registry
        found = house.entries.get(id_) or self._listed(id_)
        if found is None and (id_ in estate.config.models):
            raise InvalidRequest(
                f"'{id_}' is in the configuration file: change it there, under models.",
                param="model_id",
                code="configured",
            )
        if found is None:
            backend, _, name = id_.partition("/")
            known = registry.known(backend, registry.meant(backend, name)) or registry.here(id_)
            found = registry.absent(id_) if known is None else house.entries.get(known.id) or self._listed(known.id)
        if found is None:
            hidden = [entry for entry in house.entries.all() if entry.hidden and entry.name == id_]
            found = hidden[0] if len(hidden) == 1 else None
        if found is None or found.backend not in estate.backends or not self._allows(grant, found.id):
            raise estate.router.unknown(id_, grant)
        return found

    def _listed(self, id_: str) -> Entry | None:
        """An entry of a model that nobody has registered."""
        backend, _, name = id_.partition("/")
        estate, now = self._house.estate, time.time()
        if (local := estate.local.get(backend, {}).get(name)) is not None:
            return entry_of(local, now)
        model = estate.registry.known(backend, name)
        return None if model is None else of_provider(model, now)

    def _id(self, form: NewModel, at: str = "") -> tuple[str, str]:
        """The id that a form means, and the field that says it."""
        backends = self._house.estate.backends
        if form.id is not None:
            backend, slash, name = form.id.partition("/")
            if form.name is not None or form.backend is not None:
                raise wrong(f"{at}id", "it says name and backend already; give one of the two")
            if not slash or backend not in backends:
                raise wrong(
                    f"{at}id",
                    f"it must be BACKEND/NAME; there is no backend '{backend[:64]}'{_near(backend, backends)}",
                )
            field = f"{at}id"
        else:
            if form.name is None:
                raise InvalidRequest(
                    f"Missing required parameter: '{at}id'.", param=f"{at}id", code="missing_required_parameter"
                )
            name, field = form.name, f"{at}name"
            backend = form.backend if form.backend is not None else self._only_local(at)
            if backend not in backends:
                raise wrong(f"{at}backend", f"there is no backend '{backend[:64]}'{_near(backend, backends)}")
        check_name(name, field)
        return f"{backend}/{name}", field

    def _only_local(self, at: str) -> str:
        local = [name for name in self._house.estate.backends if self._is_local(name)]
        if len(local) == 1:
            return local[0]
        raise wrong(f"{at}backend", f"say which: there {'are several local ones' if local else 'is no local one'}")

    async def _entry(self, form: NewModel, id_: str, grant: Grant, names: Names, at: str, *, field: str) -> Entry:
        """What a form registers, beside what is known of the model.  Raises InvalidRequest, Conflict."""
        backend, _, name = id_.partition("/")
        again = form if isinstance(form, KeptModel) else None
        check_free(id_, names, field)
        aliases = _aliases(form.aliases, id_, names, at)
        now = time.time()
        base = self._house.entries.get(id_) or self._listed(id_)
        if base is None:
            base = Entry(backend=backend, name=name, status="missing", reason=MISSING, created_at=now, updated_at=now)
        if not base.explicit and (again is None or again.explicit):
            base = replace(base, tenant=grant.principal.tenant, owner=grant.principal.id[:64])
        own = {n: getattr(form, n) for n in OF_THE_FILES if getattr(form, n) is not None}
        # What was said before and is not any more is for the files to tell.
        own |= {n: NOTHING[n] for n in base.said if n in OF_THE_FILES and n not in own}
        entry = replace(
            base,
            explicit=True if again is None else again.explicit,
            hidden=False if again is None else again.hidden,
            said=tuple(sorted(n for n in OF_THE_FILES if getattr(form, n) is not None)),
            aliases=aliases,
            tags=tuple(dict.fromkeys(form.tags)),
            defaults=form.defaults,
            summary=form.summary if form.summary is not None or again is not None else base.summary,
            version=form.version or base.version,
            pinned=form.pinned,
            updated_at=now,
            **own,
        )
        if not self._is_local(backend):
            return provided(form, entry, at)
        if form.source is not None:
            entry = replace(entry, source=source_of(form.source))
            if entry.status == "missing" and entry.path is None:
                entry = replace(entry, status="registered", reason=None)
        local = self._local(entry)
        if form.path is not None and (again is None or base.path != form.path):
            entry, local = await self._lying(form.path, entry, local, at, strict=again is None)
        self._check_defaults(entry, local, at)
        return entry

    async def _lying(
        self, path: str, entry: Entry, local: Local | None, at: str, *, strict: bool
    ) -> tuple[Entry, Local | None]:
        """The entry as it is served from a path; as it is where nothing can be, unless that is an error."""
        estate, problems = self._house.estate, list[Problem]()
        try:
            place = await asyncio.to_thread(lying, path, estate.config, entry.backend, f"{at}path")
            inside = allowed(estate.config, entry.backend)
            if place.is_dir() and (many := await asyncio.to_thread(several, entry.backend, place, inside)):
                listed = ", ".join(f"'{one[:100]}'" for one in many[:CANDIDATES_MAX])
                raise wrong(f"{at}path", f"there are {len(many)} models in this folder; name one of them: {listed}")
            found = await asyncio.to_thread(
                read_at, entry.backend, place, name=entry.name, problems=problems, inside=inside
            )
            if found is None:
                reason = problems[0].reason if problems else "no GGUF file, and no folder of a model"
                raise wrong(f"{at}path", f"what lies there cannot be served: {reason[:300]}")
        except InvalidRequest:
            if strict:
                raise
            return entry, local
        source = entry.source or Source(kind="file", files=(Path(place).name,))
        return replace(entry, path=str(place), found=False, source=source, status="ready", reason=None), found

    def _check_defaults(self, entry: Entry, local: Local | None, at: str) -> None:
        if not entry.defaults:
            return
        if local is None:
            model = Model(name=entry.name, backend=entry.backend, modality=entry.modality)
            local = Local(name=entry.name, path="", model=model, format=entry.format)
        model = replace(local.model, **{name: getattr(entry, name) for name in OF_THE_FILES if name in entry.said})
        settings = self._house.estate.config.backends[entry.backend].settings
        if found := faults(replace(local, model=model, defaults={}), entry.defaults, settings):
            name, _, fault = found[0].partition(": ")
            raise wrong(f"{at}defaults.{name}", fault.rstrip("."))

    def _local(self, entry: Entry) -> Local | None:
        return self._house.estate.local.get(entry.backend, {}).get(entry.name)

    def _is_local(self, backend: str) -> bool:
        return self._house.estate.registry.is_closed(backend)

    def _names(self, without: set[str] | None = None) -> Names:
        """Who is called what; of `without` only the name, not the aliases."""
        estate, without = self._house.estate, without or set()
        names = Names(estate.config.models, estate.backends)
        for model in estate.registry.book.known.values():
            names.add(model.id, () if model.id in without else model.aliases)
        for entry in self._house.entries.all():
            if not entry.hidden and entry.id not in without:
                names.add(entry.id, entry.aliases)
        return names

    async def _listed_by_providers(self, aliases: object) -> None:
        """Ask those who have not told yet what they list, before somebody takes a name of it for an alias."""
        if aliases:
            with suppress(TimeoutError):
                async with asyncio.timeout(LISTED_S):
                    await self._house.estate.registry.all()

    def _allows(self, grant: Grant, id_: str) -> bool:
        if not grant.restricted:
            return True
        backend, _, name = id_.partition("/")
        if not grant.may_use(backend):
            return False
        if grant.may_ask(id_):
            return True
        # By its bare name, where that leads to it.
        estate = self._house.estate
        here = estate.registry.here(name)
        leads = here is None or here.id == id_
        return leads and grant.may_ask(name) and not any(fnmatchcase(name, one) for one in estate.config.models)

    def _check_allowed(self, id_: str, grant: Grant) -> None:
        if not self._allows(grant, id_):
            raise Forbidden(f"This key may not use the model '{id_}', nor register it.", code="model_not_allowed")

    async def _edited(self, known: Entry, edit: Callable[[Entry], Entry], fields: Iterable[str], act: Act) -> None:
        """Change these fields and serve it so; nothing is changed where that cannot be.  Raises KeyError."""
        entries, id_ = self._house.entries, known.id
        before = {name: getattr(known, name) for name in fields}
        await entries.change(id_, edit, act)

        async def undo() -> None:
            with suppress(KeyError):
                await entries.change(id_, lambda now: replace(now, **before))

        await self._renewed(undo)

    async def _served(self, news: Sequence[Entry], act: Act) -> None:
        """Keep these and serve them; nothing is changed where that cannot be."""
        entries = self._house.entries
        before = {entry.id: entries.get(entry.id) for entry in news}
        await entries.put(*news, act=act)

        async def undo() -> None:
            await entries.put(*(entry for entry in before.values() if entry is not None))
            await entries.remove(*(id_ for id_, entry in before.items() if entry is None))

        await self._renewed(undo, look=any(entry.path and before[entry.id] is None for entry in news))

    async def _renewed(self, undo: Callable[[], Awaitable[None]], *, look: bool = False) -> None:
        try:
            await asyncio.shield(self._house.renew(look=look))
        except ConfigError as e:
            await undo()
            raise InvalidRequest(
                f"The configuration file says something of this model that does not fit it: {str(e)[:300]}"
            ) from e


def _aliases(aliases: Sequence[str], id_: str, names: Names, at: str) -> tuple[str, ...]:
    for n, alias in enumerate(aliases):
        check_alias(alias, id_, names, f"{at}aliases[{n}]")
    return tuple(dict.fromkeys(aliases))


def act_of(verb: str, target: str, grant: Grant, by: By, detail: Mapping[str, Any]) -> Act:
    told = {name: value for name, value in detail.items() if value is not None}
    return by.act(f"model.{verb}", target, grant.principal.tenant, told)


def _told(form: NewModel) -> Mapping[str, Any]:
    repo = None if form.source is None else form.source.repo
    return {"repo": repo, "aliases": list(form.aliases) or None, "tags": list(form.tags) or None}


def _near(name: str, known: Mapping[str, Any]) -> str:
    return nearest(name[:64], sorted(known))

"""What is to be fetched for what a client wants, as the hub and what is registered here say; nothing is changed yet."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec.structs import replace

from backends.base import Backend, Loads
from compat.canonical.error import Conflict, InvalidRequest, TimedOut
from gateway.downloads.plan import Plan, drawn
from gateway.hub import Hub
from gateway.hub.choice import Wanted, choose
from gateway.registry.entries import Entries
from gateway.registry.entry import Entry
from gateway.registry.naming import Names, check_free, check_name

if TYPE_CHECKING:
    from gateway.house import House

PLAN_S = 20.0
"""How long the hub may take to say what there is."""
_FOLDERS = frozenset({"image", "3d"})
"""What is served from a folder wherever it lies; others are made into another file first, which discovery does."""
UNKNOWN_MEMORY_BYTES = 1 << 62


class Planner:
    def __init__(self, house: "House", hub: Hub, entries: Entries) -> None:
        self._house = house
        self._hub = hub
        self._entries = entries

    async def plan(self, wanted: Wanted, *, name: str | None, backend: str) -> Plan:
        """What is to be fetched for it.  Raises InvalidRequest, or what the hub answers."""
        try:
            async with asyncio.timeout(PLAN_S):
                repo = await self._hub.repo(wanted.repo, wanted.revision)
                choice = choose(repo, wanted, memory_bytes=self._memory_bytes(backend))
                if not choice.opens and choice.modality not in _FOLDERS:
                    raise InvalidRequest(
                        f"'{repo.id}' is a folder of safetensors for {choice.modality}, which is served from a model "
                        "folder only (model_dirs of the local backend); download a GGUF of it instead, as GET "
                        "/v1/models/search finds it.",
                        param="repo",
                    )
                # Not every hub's list tells hashes: each file is held against its own.
                choice = replace(choice, files=await self._hub.measured(repo, choice.files))
                return drawn(repo, choice, name=name, backend=backend, revision=wanted.revision)
        except TimeoutError:
            raise TimedOut(f"The hub did not say within {PLAN_S:.0f} s what the repository holds.") from None

    def fitted(self, plan: Plan) -> tuple[Plan, Entry | None]:
        """The plan beside what is registered under its name.  Raises Conflict, or InvalidRequest."""
        check_name(plan.name, "name")
        check_free(plan.target, self._names(), "name")
        entry = self._entries.get(plan.target)
        if entry is None:
            if plan.name in self._house.estate.local.get(plan.backend, {}):
                raise taken(plan)
            return plan, None
        if not plan.is_of(entry):
            raise taken(plan)
        serves = entry.status == "ready" and entry.path is not None and Path(entry.path).exists()
        if serves and entry.version not in (None, plan.commit):
            plan = replace(plan, replaces=entry.version)
        known = entry.status in ("registered", "missing")
        return replace(plan, was_known=known), entry

    def is_served(self, entry: Entry, plan: Plan) -> bool:
        """Whether a model is here with just these files."""
        if entry.status != "ready" or entry.version != plan.commit or entry.path is None:
            return False
        used = next((one for one in entry.versions if one.path == entry.path), None)
        return Path(entry.path).exists() if used is None else all(Path(path).is_file() for path in used.files)

    def _names(self) -> Names:
        estate = self._house.estate
        names = Names(estate.config.models, estate.backends)
        for model in estate.registry.book.known.values():
            names.add(model.id, model.aliases)
        for entry in self._entries.all():
            if not entry.hidden:
                names.add(entry.id, entry.aliases)
        return names

    def backend(self, name: str | None) -> str:
        """The local backend that is meant.  Raises InvalidRequest."""
        local = [one for one, entry in self._house.estate.config.backends.items() if entry.kind == "local"]
        if name is None and len(local) == 1:
            return local[0]
        if name in local:
            assert name is not None
            return name
        there_is = f"there is {' and '.join(repr(one) for one in local)}" if local else "none is configured"
        said = "Name the local 'backend' that is to run it" if name is None else f"'{name[:64]}' is no local backend"
        raise InvalidRequest(f"{said}: {there_is}.", param="backend", code="invalid_value")

    def _memory_bytes(self, backend: str) -> int:
        runs: Backend = self._house.estate.backends[backend]
        return int(runs.counts()["memory_max_bytes"]) if isinstance(runs, Loads) else UNKNOWN_MEMORY_BYTES


def taken(plan: Plan) -> Conflict:
    return Conflict(
        f"There is already a model '{plan.target}' that is not from these files; give this one another 'name'.",
        param="name",
        code="name_taken",
    )

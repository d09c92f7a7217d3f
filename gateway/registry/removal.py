"""Taking a model away: out of what is served, out of memory, and with its files if that is asked for.

The order is such that whatever ends it half-way leaves a model that is not served and can be removed again: first it
is hidden, then it leaves the memory, then its files go, then what is registered of it.
"""

import asyncio
import contextlib
import re
import shutil
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec.structs import replace

from backends.base import IN_MEMORY, Loads
from compat.canonical.error import Conflict, InternalError, ModelNotFound
from gateway.auth.principal import Grant
from gateway.auth.registrar import By
from gateway.registry.entry import UNDER_WAY, Entry
from gateway.registry.places import adopted, folders
from gateway.registry.register import Register, act_of
from gateway.telemetry.logging import logger

if TYPE_CHECKING:
    from gateway.house import House

_LISTED = 500
"""Of a tenant's failed downloads, the newest."""
_part = re.compile(r"-(\d{5})-of-(\d{5})$")


class Removal:
    def __init__(self, house: "House", register: Register) -> None:
        self._house = house
        self._register = register

    async def remove(self, id_: str, grant: Grant, by: By, *, files: bool, force: bool) -> tuple[str, int]:
        """Remove a model; its id, and how many bytes that has freed.

        files: its files as well.  force: also while it is used, waited for, pinned or downloaded; what runs on it is
        finished first.
        Raises ModelNotFound, InvalidRequest for a configured name, Conflict.
        """
        entries = self._house.entries
        entry = self._register.entry(id_, grant)
        if not force:
            self._check_idle(entry)
        await self._check_own(entry, grant)
        places = await asyncio.to_thread(self._places, entry) if files else []
        if entry.status in UNDER_WAY or entry.status == "failed":
            await self._cancel(entry, grant)
            await self._house.depot.downloads.settling.forget(entry)
            entry = entries.get(entry.id) or entry
        act = act_of("delete", entry.id, grant, by, {"files": files, "force": force or None})
        # One at a time with those who change it: what they keep meanwhile must not bring it back.
        async with self._register.deciding:
            if entries.get(entry.id) is None:
                await entries.put(replace(entry, hidden=True, updated_at=time.time()), act=act)
            else:
                await entries.change(entry.id, lambda now: replace(now, hidden=True, updated_at=time.time()), act=act)
        # Whoever asked may leave meanwhile: what is hidden has to be gone from the memory as well.
        await asyncio.shield(self._house.renew())
        await self._unloaded(entry)
        freed = await asyncio.to_thread(self._deleted, entry, places) if places else 0
        # What discovery would find again, or its provider list, stays, as hidden.
        stays = entry.id in entries.discovered or self._house.estate.registry.is_listed(entry.id)
        async with self._register.deciding:
            now = entries.get(entry.id)
            # Somebody may have registered it anew meanwhile.
            if (places or not stays) and now is not None and now.hidden:
                await entries.remove(entry.id)
        logger().info("model_removed", model=entry.id, files=files, freed_bytes=freed)
        return entry.id, freed

    def kept_for(self, id_: str, grant: Grant) -> list[str]:
        """The ids of those whose files are this model's too, and thus stay: of those that the caller may use.

        Reads the disk.  Raises ModelNotFound, InvalidRequest.
        """
        entry = self._register.entry(id_, grant)
        own = {path.resolve() for path in _own(entry) if path.exists()}
        return sorted(
            other.id
            for other in self._house.entries.all()
            if other.id != entry.id
            and grant.may_ask(other.id)
            and grant.may_use(other.backend)
            and any(path.resolve() in own for path in _named(other))
        )

    def _check_idle(self, entry: Entry) -> None:
        """Raises Conflict."""
        why = None
        if entry.status in UNDER_WAY:
            why = "is being downloaded"
        elif entry.pinned:
            why = "is pinned"
        elif (stands := self._standing(entry)) is not None:
            if stands["status"] in IN_MEMORY:
                why = "is in memory"
            elif stands["status"] == "queued" or stands.get("waiting") or stands.get("running"):
                why = "is waited for"
            elif stands.get("pinned"):
                why = "is pinned in the configuration file"
        if why is not None:
            raise Conflict(f"'{entry.id}' {why}: unload it first, or remove it with force=true.")

    async def _check_own(self, entry: Entry, grant: Grant) -> None:
        """Raises Conflict where another tenant waits for it."""
        if "admin" in grant.principal.scopes:
            return
        jobs = await self._house.depot.jobs.unfinished()
        if any(job.target == entry.id and job.tenant != grant.principal.tenant for job in jobs):
            raise Conflict(
                f"'{entry.id}' is being downloaded for somebody else: wait for that, or have an administrator (scope "
                "'admin') remove it."
            )

    def _standing(self, entry: Entry) -> dict[str, object] | None:
        backend = self._house.estate.backends.get(entry.backend)
        try:
            return backend.standing(entry.name) if isinstance(backend, Loads) else None
        except ModelNotFound:
            return None

    async def _unloaded(self, entry: Entry) -> None:
        """Return when it is out of memory, and nobody waits for it any more."""
        backend = self._house.estate.backends.get(entry.backend)
        if backend is None or not isinstance(backend, Loads):
            return
        while True:
            try:
                await backend.unload(entry.name, force=True)
            except ModelNotFound:
                return
            stands = self._standing(entry)
            # Those who waited for it before it was hidden may have had it loaded again.
            if stands is None or not (stands["status"] in IN_MEMORY or stands.get("waiting") or stands.get("running")):
                return
            await asyncio.sleep(0.05)

    async def _cancel(self, entry: Entry, grant: Grant) -> None:
        """End what would bring it, and what has failed to and could be gone on with."""
        jobs = self._house.depot.jobs
        of_it = await jobs.unfinished()
        for tenant in {entry.tenant, grant.principal.tenant}:
            of_it += await jobs.page(tenant, status="failed", limit=_LISTED)
        for job in of_it:
            if job.target == entry.id:
                with contextlib.suppress(Conflict):  # it has ended meanwhile
                    await jobs.cancel(job.tenant, job.id)

    def _places(self, entry: Entry) -> list[Path]:
        """The files and folders that are the model's alone.  Raises Conflict where they are not to be deleted."""
        if entry.source is not None and entry.source.kind == "shipped":
            raise Conflict(f"'{entry.id}' comes with the gateway: without files=true it is only removed from the list.")
        house = self._house
        config = house.estate.config
        local = house.estate.local.get(entry.backend, {}).get(entry.name)
        made = None if local is None or local.made_from is None else Path(local.made_from)
        kept = [root.resolve() for root in adopted(config, entry.backend)]
        ours = [root.resolve() for root in (*folders(config, entry.backend), house.depot.storage.root)]
        needed = {path.resolve() for other in house.entries.all() if other.id != entry.id for path in _named(other)}
        places = []
        for path in dict.fromkeys([*_own(entry), *([made] if made is not None else ())]):
            real = path.resolve()
            if not path.exists() or real in needed:
                continue
            if any(real.is_relative_to(root) for root in kept):
                raise Conflict(
                    f"The files of '{entry.id}' are another program's, whose cache is adopted: remove them there, or "
                    "leave files=true out."
                )
            made_here = made is not None and path == Path(entry.path or "") and real.is_relative_to(config.data_dir)
            if not made_here and not any(real.is_relative_to(root) and real != root for root in ours):
                raise Conflict(
                    f"The files of '{entry.id}' lie neither in a model folder nor among the downloads: remove them by "
                    "hand, or leave files=true out."
                )
            if path.is_dir() and any(other.is_relative_to(real) for other in needed):
                raise Conflict(f"In the folder of '{entry.id}' lie other models' files: remove its own by hand.")
            places.append(path)
        return places

    def _deleted(self, entry: Entry, places: Iterable[Path]) -> int:
        roots = {root.resolve() for root in folders(self._house.estate.config, entry.backend)}
        roots.add(root := self._house.depot.storage.root.resolve())
        freed = 0
        try:
            for place in places:
                freed += _size(place)
                if place.is_dir() and not place.is_symlink():
                    shutil.rmtree(place)
                else:
                    real = place.resolve()
                    place.unlink(missing_ok=True)
                    if real != place and any(real.is_relative_to(one) for one in roots):
                        real.unlink(missing_ok=True)
                _prune(place.parent, root)
        except OSError as e:
            logger().error("model_files_undeleted", model=entry.id, error=type(e).__name__)
            raise InternalError(
                f"Not all files of '{entry.id}' could be deleted; it is not served any more. Mend the disk or the "
                "folder's permissions, and DELETE it again."
            ) from e
        return freed


def _own(entry: Entry) -> Iterator[Path]:
    for version in entry.versions:
        yield from map(Path, version.files)
    if entry.path is not None:
        path = Path(entry.path)
        yield path
        if (found := _part.search(path.stem)) is not None:
            stem = path.stem[: found.start()]
            yield from (path.with_name(f"{stem}-{n:05}-of-{found[2]}.gguf") for n in range(1, int(found[2]) + 1))
        if entry.projector is not None and Path(entry.projector).parent == path.parent:
            yield Path(entry.projector)


def _named(entry: Entry) -> Iterator[Path]:
    """Whatever an entry needs on the disk."""
    yield from _own(entry)
    if entry.projector is not None:
        yield Path(entry.projector)


def _size(place: Path) -> int:
    files = place.rglob("*") if place.is_dir() and not place.is_symlink() else [place]
    return sum(file.stat().st_size for file in files if file.is_file())


def _prune(folder: Path, root: Path) -> None:
    """Remove the folders of a download that are empty now."""
    while folder.resolve().is_relative_to(root) and folder.resolve() != root:
        try:
            folder.rmdir()
        except OSError:
            return
        folder = folder.parent

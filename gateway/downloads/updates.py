"""Newer revisions of downloaded models: noticed, served once the model is idle, and gone back from."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec.structs import replace

from backends.base import Loads
from compat.canonical.error import Conflict, GatewayError, InvalidRequest, NotFound
from gateway.downloads import landing
from gateway.downloads.plan import Plan, is_commit, same
from gateway.hub import Hub
from gateway.hub.repo import Repo
from gateway.registry.entries import Entries
from gateway.registry.entry import Entry, Version
from gateway.telemetry.logging import logger

if TYPE_CHECKING:
    from gateway.house import House

FIRST_S = 60.0
"""Not while a gateway starts is it looked for newer revisions."""
LOOK_S = 30.0
"""How often it is looked whether it is time."""
IDLE_S = 120.0
"""How long it is waited for a moment when nobody uses a model, and other jobs for this one's place.
Then it is switched all the same: what runs is finished on the old files, and who comes meanwhile waits for the new ones
to load."""
IDLE_LOOK_S = 0.2


class Updates:
    def __init__(
        self, house: "House", hub: Hub, entries: Entries, clear: Callable[[list[Path]], Awaitable[None]]
    ) -> None:
        """clear: removes files that no registered model has."""
        self._house = house
        self._hub = hub
        self._entries = entries
        self._clear = clear
        self._describing: set[asyncio.Task[None]] = set()

    def downloaded(self, id_: str) -> Entry:
        """A model that came from the hub.  Raises NotFound, InvalidRequest, or Conflict while it is not here."""
        entry = self._entries.get(id_)
        if entry is None:
            raise NotFound(f"There is no registered model '{id_[:200]}'; GET /v1/models lists them all.")
        if entry.source is None or entry.source.kind != "huggingface" or entry.source.repo is None:
            raise InvalidRequest(
                f"'{id_[:200]}' was not downloaded from a repository: there is nothing to compare it with.",
                param="model_id",
                code="not_downloaded",
            )
        if entry.status != "ready" or entry.path is None:
            raise Conflict(f"'{id_[:200]}' is not here yet: it is {entry.status}.")
        return entry

    async def newer(self, entry: Entry) -> tuple[Repo, tuple[str, ...]] | None:
        """The repository where its files have changed since, and those of them that have not; None: none has.

        Most commits change a description only, and none of the files that a model is made of.
        """
        source = entry.source
        assert source is not None
        assert source.repo is not None, "as `downloaded` has it"
        repo = await self._hub.repo(source.repo, source.revision, fresh=True)
        if entry.version is None or repo.commit == entry.version:
            return None
        try:
            before = await self._hub.repo(source.repo, entry.version)
        except NotFound:  # the commit was squashed away
            return repo, ()
        unchanged = same(before, repo, source.files)
        return None if set(unchanged) == set(source.files) else (repo, unchanged)

    async def serve(self, id_: str, edit: Callable[[Entry], Entry]) -> Entry:
        """Register a model with another version in use, have it served, and remove what is not kept any more.

        Raises KeyError when it is not registered any more.
        """
        before = self._entries.get(id_)
        new = await self._entries.change(id_, edit)
        await self._house.renew()
        kept = {file for one in new.versions for file in one.files}
        old = () if before is None else before.versions
        await self._clear([Path(file) for one in old for file in one.files if file not in kept])
        return new

    async def idle(self, id_: str, within_s: float = IDLE_S) -> None:
        """Return when nobody uses a model, or the time is over."""
        loop = asyncio.get_running_loop()
        end = loop.time() + within_s
        while self._is_used(id_) and loop.time() < end:
            await asyncio.sleep(IDLE_LOOK_S)

    def _is_used(self, id_: str) -> bool:
        backend_name, _, name = id_.partition("/")
        backend = self._house.estate.backends.get(backend_name)
        here = name in self._house.estate.local.get(backend_name, {})
        if not here or backend is None or not isinstance(backend, Loads):
            return False
        standing = backend.standing(name)
        return bool(standing.get("running") or standing.get("waiting"))

    async def roll_back(self, id_: str, commit: str | None) -> Entry:
        """Serve another version that is on the disk; None is the newest of the others.

        Raises NotFound, InvalidRequest, or Conflict when there is none.
        """
        if commit is not None and not is_commit(commit):
            raise InvalidRequest(
                "Invalid value for 'commit': expected one of the model's 'versions', or its beginning.",
                param="commit",
                code="invalid_value",
            )
        entry = self.downloaded(id_)
        others = [one for one in entry.versions if one.path != entry.path]
        wanted = [one for one in others if commit is None or one.commit.startswith(commit)]
        there = await asyncio.to_thread(_whole, wanted)
        if not there:
            said = ", ".join(one.commit[:12] for one in others) or "none"
            raise Conflict(
                f"There is no such version of '{id_[:200]}' on the disk to go back to. Besides the one in use: {said}.",
                param=None if commit is None else "commit",
                code="no_version",
            )
        await self.idle(id_)
        self.downloaded(id_)
        now = time.time()
        new = await self.serve(id_, lambda entry: landing.serving(entry, there[0], now))
        logger().info("model_rolled_back", model=id_, commit=there[0].commit)
        return new

    async def watch(self) -> None:
        """Look for newer revisions as often as the configuration says, until cancelled."""
        await asyncio.sleep(FIRST_S * random.uniform(1.0, 2.0))  # noqa: S311
        looked = 0.0
        while True:
            hours = self._hub.settings.updates_h
            if hours and time.monotonic() - looked >= hours * 3600:
                looked = time.monotonic()
                await self.look()
            await asyncio.sleep(LOOK_S * random.uniform(0.8, 1.2))  # noqa: S311

    async def look(self) -> None:
        """Ask the hub of every downloaded model, and note what is newer."""
        for entry in self._entries.all():
            source = entry.source
            if source is None or source.kind != "huggingface" or entry.status != "ready" or not entry.versions:
                continue
            if source.revision is not None and source.commit is not None and source.commit.startswith(source.revision):
                continue  # that commit was asked for, and no other
            try:
                newer = await self.newer(entry)
            except GatewayError as e:
                logger().warning("update_unknown", model=entry.id, code=e.code, reason=e.message)
                continue
            await self._note(entry.id, None if newer is None else newer[0].commit)

    async def _note(self, id_: str, commit: str | None) -> None:
        entry = self._entries.get(id_)
        if entry is None or entry.upstream == commit or any(one.commit == commit for one in entry.versions):
            return
        await self._entries.change(id_, lambda entry: replace(entry, upstream=commit))
        if commit is not None:
            logger().info("update_found", model=id_, commit=commit)
        await self._house.renew()

    def describe(self, plan: Plan) -> None:
        """Begin to take a model's summary from its card, on which nothing waits."""
        task = asyncio.create_task(self._described(plan))
        self._describing.add(task)
        task.add_done_callback(self._describing.discard)

    async def aclose(self) -> None:
        for task in self._describing:
            task.cancel()
        await asyncio.gather(*self._describing, return_exceptions=True)

    async def _described(self, plan: Plan) -> None:
        try:
            repo = await self._hub.enrich(await self._hub.described(plan.repo, plan.commit))
            await self._entries.change(
                plan.target,
                lambda entry: replace(
                    entry, summary=entry.summary or repo.summary, license=entry.license or repo.license
                ),
            )
            await self._house.renew()
        except (GatewayError, KeyError):
            return  # it is served without


def _whole(versions: list[Version]) -> list[Version]:
    return [one for one in versions if all(Path(file).is_file() for file in one.files)]

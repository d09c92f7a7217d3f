"""What a download leaves behind that nobody goes on with: its parts are removed, its model is as it was before."""

import asyncio
import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from gateway.downloads import landing
from gateway.downloads.plan import Plan, folder_of, read
from gateway.jobs.job import Job
from gateway.registry.entries import Entries
from gateway.registry.entry import UNDER_WAY, Entry

if TYPE_CHECKING:
    from gateway.jobs import Jobs

KIND = "download"
_LOOKED = 500
"""Of a tenant's newest downloads, where it is looked for the one that a model was left behind by."""


class Settling:
    def __init__(self, entries: Entries, jobs: "Callable[[], Jobs]", root: Callable[[], Path]) -> None:
        self._entries = entries
        self._jobs = jobs
        self._root = root

    async def stand(self, plan: Plan, status: Any, reason: str | None = None) -> None:
        """Say how the model stands; one that is served meanwhile stays so, and so does another one of that name."""
        now = time.time()
        with contextlib.suppress(KeyError):
            await self._entries.change(
                plan.target,
                lambda entry: (
                    entry
                    if entry.status == "ready"
                    or not plan.is_of(entry)
                    or (entry.status, entry.reason) == (status, reason)
                    else replace(entry, status=status, reason=reason, updated_at=now)
                ),
            )

    async def settled(self, job: Job) -> None:
        """Clear away after a job that was paused or cancelled: a `Settled`."""
        plan = read(job.spec)
        others = [one for one in await self._jobs().unfinished() if one.id != job.id and one.target == job.target]
        if any(one.status != "paused" for one in others):
            return  # somebody else's job goes on with it
        if job.status == "paused":
            await self.stand(plan, "downloading", "paused")
            return
        if others:
            return
        await self.clear_of(plan, job)
        entry = self._entries.get(plan.target)
        if entry is None or entry.status == "ready" or not plan.is_of(entry):
            return
        if plan.was_known:
            await self.stand(plan, "registered")
        else:
            await self._entries.remove(plan.target)

    async def clear_of(self, plan: Plan, job: Job | None) -> None:
        """Remove what came for a plan, but for what another job wants as well."""
        await self._clear_unwanted(list(plan.paths(self._root()).values()), job)

    async def forget(self, entry: Entry) -> None:
        """Remove what came of a model that is not wanted any more, and is not here."""
        source = entry.source
        commit = entry.version or (None if source is None else source.commit)
        if source is None or source.kind != "huggingface" or source.repo is None or commit is None:
            return
        folder = folder_of(source.repo, commit, self._root())
        paths = [folder / name for name in source.files]
        await self._clear_unwanted([path for path in paths if path.resolve().is_relative_to(folder.resolve())], None)

    async def clear(self, paths: list[Path]) -> None:
        """Remove downloaded files, but for those that a registered model has."""
        needed = {file for entry in self._entries.all() for one in entry.versions for file in one.files}
        needed |= {file for entry in self._entries.all() for file in (entry.path, entry.projector) if file}
        await asyncio.to_thread(landing.remove, [path for path in paths if str(path) not in needed], self._root())

    async def reconcile(self) -> None:
        """What was being ended when the gateway died is ended now; what was to be downloaded, and there was no job
        for it yet, is only registered."""
        targets = {job.target for job in await self._jobs().unfinished()}
        for entry in self._entries.all():
            if entry.status not in (*UNDER_WAY, "failed") or entry.id in targets:
                continue
            last = await self._last(entry)
            if last is not None and last.status == "cancelled" and last.updated_at >= entry.updated_at:
                await self.settled(last)
            elif entry.status in UNDER_WAY:
                await self._entries.put(replace(entry, status="registered", updated_at=time.time()))

    async def _last(self, entry: Entry) -> Job | None:
        """The newest download of a model that was asked for by whoever registered it."""
        jobs = await self._jobs().page(entry.tenant, kind=KIND, limit=_LOOKED)
        return next((job for job in jobs if job.target == entry.id), None)

    async def _clear_unwanted(self, paths: list[Path], job: Job | None) -> None:
        wanted = {
            path
            for one in await self._jobs().unfinished()
            if one.kind == KIND and (job is None or one.id != job.id)
            for path in read(one.spec).paths(self._root()).values()
        }
        await self.clear([path for path in paths if path not in wanted])

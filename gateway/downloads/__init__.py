"""Downloads: what to fetch is planned while the client waits, and fetched by a job, which registers the model.

A file has its name only once it is what its hash says, and a model is served only once all of its files have theirs.
Every step can be taken again: a job that was killed between any two goes on from what it finds.
"""

import asyncio
import time
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from compat import amount
from compat.canonical.error import (
    Conflict,
    Corrupted,
    Forbidden,
    GatewayError,
    InternalError,
    InvalidRequest,
    TimedOut,
)
from gateway.downloads import landing
from gateway.downloads.holding import Holding
from gateway.downloads.pace import Pace
from gateway.downloads.part import FULL, disk_full
from gateway.downloads.piece import Piece
from gateway.downloads.plan import Plan, read
from gateway.downloads.planning import PLAN_S, Planner, taken
from gateway.downloads.settling import KIND, Settling
from gateway.downloads.tally import Tally
from gateway.downloads.transfer import fetch
from gateway.downloads.updates import Updates
from gateway.hub import Hub
from gateway.hub.choice import Wanted
from gateway.jobs.job import UNFINISHED, Job, Report
from gateway.registry.entries import Entries
from gateway.registry.entry import Entry, Source
from gateway.registry.naming import check_name
from gateway.storage import Storage
from gateway.telemetry.logging import logger

if TYPE_CHECKING:
    from gateway.house import House
    from gateway.jobs import Jobs

__all__ = ["DONE_S", "KIND", "Downloads"]
DONE_S = 3.0
"""How long a request waits for a job that has nothing to fetch."""


class Downloads:
    def __init__(self, house: "House", hub: Hub, storage: Storage, entries: Entries) -> None:
        self._house = house
        self._hub = hub
        self._storage = storage
        self._entries = entries
        self.pace = Pace(_bytes_per_s(hub))
        self._planner = Planner(house, hub, entries)
        self.settling = Settling(entries, lambda: self.jobs, lambda: self.root)
        self.updates = Updates(house, hub, entries, self.settling.clear)
        self._deciding = asyncio.Lock()
        self._placing: set[asyncio.Task[Any]] = set()
        self._holding = Holding()
        self.jobs: Jobs
        """Lent when they are there: they need `work`."""

    @property
    def root(self) -> Path:
        return self._storage.root.absolute()

    def adopt(self) -> None:
        """Go by the hub's settings as they are now."""
        self.pace.bytes_per_s = _bytes_per_s(self._hub)

    async def begin(
        self,
        wanted: Wanted,
        *,
        tenant: str,
        owner: str,
        name: str | None = None,
        backend: str | None = None,
        priority: int = 0,
        allows: Callable[[str], bool] = lambda _: True,
    ) -> tuple[Job, bool]:
        """Plan a download and have it done; the job, and whether it is new.  Raises what planning meets with.

        allows: whether the client may use a model of this id; what it may not, it may not download.
        """
        backend = self._planner.backend(backend)
        if name is not None:
            check_name(name, "name")
        plan = await self._planner.plan(wanted, name=name, backend=backend)
        if not allows(plan.target):
            raise Forbidden(
                f"This key may not use the model '{plan.target}', nor download it.", code="model_not_allowed"
            )
        job, new, whole = await self._placed(plan, tenant, owner, priority)
        return (await self._ended(job) if whole else job), new

    async def begin_registered(self, id_: str, *, tenant: str, owner: str, priority: int = 0) -> tuple[Job, bool]:
        """Have the files of a registered model fetched from its source.  Raises as `begin`; InvalidRequest."""
        entry = self._entries.get(id_)
        source = None if entry is None else entry.source
        if entry is None or source is None or source.kind != "huggingface" or source.repo is None:
            raise InvalidRequest(
                f"'{id_[:200]}' is not registered with a repository that it could be downloaded from; name the 'repo' "
                "instead.",
                param="model",
                code="no_source",
            )
        file = _gguf(entry, source)
        wanted = Wanted(
            repo=source.repo,
            file=file,
            quantization=None if file else entry.quantization,
            revision=source.revision or source.commit,
        )
        return await self.begin(
            wanted, tenant=tenant, owner=owner, name=entry.name, backend=entry.backend, priority=priority
        )

    async def _placed(self, plan: Plan, tenant: str, owner: str, priority: int) -> tuple[Job, bool, bool]:
        """As `_put`.  Whoever leaves meanwhile leaves nothing half done."""

        async def alone() -> tuple[Job, bool, bool]:
            async with self._deciding:
                return await self._put(plan, tenant, owner, priority)

        task = asyncio.create_task(alone())
        self._placing.add(task)
        task.add_done_callback(self._placing.discard)
        return await asyncio.shield(task)

    async def _put(self, plan: Plan, tenant: str, owner: str, priority: int) -> tuple[Job, bool, bool]:
        """The job, whether it is new, and whether nothing is to be fetched.  Under the lock: two who want the same
        name must not both find it free."""
        plan, entry = self._planner.fitted(plan)
        unfinished = [job for job in await self.jobs.unfinished() if job.kind == KIND]
        flying = [job for job in unfinished if job.flight == plan.flight]
        if (mine := next((job for job in flying if job.tenant == tenant), None)) is not None:
            return mine, False, False
        if not flying and any(job.target == plan.target for job in unfinished):
            raise Conflict(
                f"Something else is being downloaded as '{plan.target}' just now; give this one another 'name', or "
                "wait for it.",
                param="name",
            )
        whole = entry is not None and self._planner.is_served(entry, plan)
        if not whole and not flying:
            await self._storage.reserve(plan.flight, await self._to_come(plan))
            self._storage.release(plan.flight)  # the job reserves for itself
        now = time.time()
        if entry is None:
            await self._entries.put(plan.entry(now, tenant=tenant, owner=owner))
        elif not whole and plan.replaces is None:
            await self._entries.put(plan.awaited(entry, now))
        elif entry.hidden:
            await self._entries.put(replace(entry, hidden=False, updated_at=now))
            await self._house.renew()
        try:
            job, new = await self.jobs.put(
                KIND,
                plan.spec,
                tenant=tenant,
                owner=owner,
                target=plan.target,
                flight=plan.flight,
                priority=priority,
                total_bytes=plan.size_bytes,
            )
        except BaseException:
            await asyncio.shield(self._as_before(plan, entry))
            raise
        if new:
            logger().info("download_planned", model=plan.target, repo=plan.repo, commit=plan.commit, job=job.id)
        return job, new, whole

    async def _as_before(self, plan: Plan, entry: Entry | None) -> None:
        await (self._entries.remove(plan.target) if entry is None else self._entries.put(entry))

    async def _ended(self, job: Job) -> Job:
        """The job when it is over, if that is soon."""
        try:
            async with asyncio.timeout(DONE_S), aclosing(self.jobs.watch(job.tenant, job.id)) as news:
                async for standing in news:
                    job = standing
                    if job.status not in UNFINISHED:
                        break
        except TimeoutError:
            pass
        return job

    async def work(self, job: Job, report: Report) -> dict[str, Any]:
        """Do a download: a `Work`."""
        plan = read(job.spec)
        try:
            return await self._done(plan, job, report)
        except OSError as e:
            failure = _of_disk(e)
            await self._failed(plan, failure)
            raise failure from e
        except Exception as e:
            await self._failed(plan, e)
            raise
        finally:
            self._storage.release(job.id)
            self._entries.progressed(plan.target, None)

    async def _done(self, plan: Plan, job: Job, report: Report) -> dict[str, Any]:
        tally = Tally(plan, report, self._entries.progressed)
        try:
            plan, entry = await self._held(plan)
        except Conflict:
            await self.settling.clear_of(plan, job)  # nobody can go on with it
            raise
        if self._planner.is_served(entry, plan):
            tally.begin({file.path: file.size_bytes for file in plan.files})
            if plan.name not in self._house.estate.local.get(plan.backend, {}):
                await self._house.renew()
            return plan.result
        tally.say("waiting")
        async with self._holding.of(plan.paths(self.root).values()):
            await self.settling.stand(plan, "downloading")
            await self._fetched(plan, job, tally)
            await self.settling.stand(plan, "verifying")
            tally.say("verifying")
            try:
                local = await asyncio.to_thread(landing.landed, plan, self.root)
            except (Corrupted, InvalidRequest):
                await self.settling.clear_of(plan, job)  # another attempt would bring the same
                raise
            if plan.replaces is not None:
                tally.say("switching")
                await self.updates.idle(plan.target)
            now = time.time()
            version = landing.version(plan, local, self.root, now)
            try:
                await self.updates.serve(
                    plan.target, lambda entry: landing.serving(_wanted(plan, entry), version, now, plan, local)
                )
            except (KeyError, Conflict) as e:
                await self.settling.clear_of(plan, job)
                if isinstance(e, Conflict):
                    raise
                raise _removed(plan) from None
        tally.say("ready")
        logger().info("model_downloaded", model=plan.target, repo=plan.repo, commit=plan.commit, job=job.id)
        if plan.summary is None:
            self.updates.describe(plan)
        return plan.result

    async def _held(self, plan: Plan) -> tuple[Plan, Entry]:
        """The plan beside the model that is registered under its name by now: whoever has a name since then keeps it.

        Raises Conflict, or InvalidRequest.
        """
        async with self._deciding:
            if self._entries.get(plan.target) is None:
                # Another process on the same database may have registered it.
                there = next((one for one in await self._entries.written() if one.id == plan.target), None)
                if there is None:
                    raise _removed(plan)
                await self._entries.put(there)
            fitted, entry = self._planner.fitted(plan)
            assert entry is not None, "it was there"
            return replace(fitted, was_known=plan.was_known), _wanted(plan, entry)

    async def _fetched(self, plan: Plan, job: Job, tally: Tally) -> None:
        """Have every file of the plan there: small ones first, which tell most of what is wrong."""
        await asyncio.to_thread(landing.reuse, plan, self.root)
        here = await asyncio.to_thread(landing.here, plan, self.root)
        await self._storage.reserve(job.id, plan.size_bytes - sum(here.values()))
        tally.begin(here)
        paths, settings = plan.paths(self.root), self._hub.settings
        for file in sorted(plan.files, key=lambda one: one.size_bytes):
            piece = Piece(
                url=self._hub.url(plan.repo, plan.commit, file.path),
                path=paths[file.path],
                size_bytes=file.size_bytes,
                sha256=file.sha256,
                blob=file.blob,
                etag=file.sha256 or file.blob,
                commit=plan.commit,
                repo=plan.repo,
            )
            await asyncio.to_thread(piece.path.parent.mkdir, parents=True, exist_ok=True)
            await fetch(
                piece,
                token=self._hub.token,
                pace=self.pace,
                report=lambda size, path=file.path: tally.at(path, size),  # type: ignore[misc]
                verifying=lambda: tally.say("verifying"),
                stall_s=settings.stall_s,
                retries=settings.retries,
            )
            tally.whole(file.path)

    async def _to_come(self, plan: Plan) -> int:
        here = await asyncio.to_thread(landing.here, plan, self.root)
        return plan.size_bytes - sum(here.values())

    async def _failed(self, plan: Plan, error: BaseException) -> None:
        said = error.message if isinstance(error, GatewayError) else "It failed through a defect of the gateway."
        logger().warning("download_failed", model=plan.target, error=type(error).__name__, reason=said)
        await self.settling.stand(plan, "failed", said)

    async def settled(self, job: Job) -> None:
        """Clear away after a job that was paused or cancelled: a `Settled`."""
        await self.settling.settled(job)

    async def update(self, id_: str, *, tenant: str, owner: str) -> Job | None:
        """Fetch a newer revision of a model beside the one that is here; None: there is none."""
        entry = self.updates.downloaded(id_)
        try:
            async with asyncio.timeout(PLAN_S):
                newer = await self.updates.newer(entry)
        except TimeoutError:
            raise TimedOut(f"The hub did not say within {PLAN_S:.0f} s whether there is a newer revision.") from None
        if newer is None:
            return None
        repo, unchanged = newer
        assert entry.source is not None
        wanted = Wanted(
            repo=repo.id,
            file=_gguf(entry, entry.source),
            revision=entry.source.revision,
        )
        plan = await self._planner.plan(wanted, name=entry.name, backend=entry.backend)
        plan = replace(plan, unchanged=unchanged if plan.commit == repo.commit else ())
        job, _, _ = await self._placed(plan, tenant, owner, 0)
        return job

    async def roll_back(self, id_: str, commit: str | None = None) -> Entry:
        """Serve another of the versions that are on the disk; None is the one before."""
        return await self.updates.roll_back(id_, commit)

    async def watch(self) -> None:
        """Look for newer revisions now and then, until cancelled."""
        async with self._deciding:
            await self.settling.reconcile()
        await self.updates.watch()

    async def aclose(self) -> None:
        """Give up what nobody waits for, and finish what was promised."""
        await self.updates.aclose()
        await asyncio.gather(*self._placing, return_exceptions=True)


def _gguf(entry: Entry, source: Source) -> str | None:
    """The file that a model is asked for by at its source; None where it is a folder, or not known."""
    return source.files[0] if source.files and entry.format == "gguf" else None


def _wanted(plan: Plan, entry: Entry) -> Entry:
    """The same, if it is still the model that the plan is for.  Raises Conflict."""
    if entry.hidden:
        raise _removed(plan)
    if not plan.is_of(entry):
        raise taken(plan)
    return entry


def _removed(plan: Plan) -> Conflict:
    return Conflict(f"The model '{plan.target}' was removed since: download it anew.", code="model_removed")


def _of_disk(error: OSError) -> GatewayError:
    if error.errno in FULL:
        return disk_full()
    return InternalError("The files could not be written where downloaded models lie.", code="storage_unwritable")


def _bytes_per_s(hub: Hub) -> int | None:
    given = hub.settings.bytes_per_s
    return None if given is None else amount.parse(given) or None

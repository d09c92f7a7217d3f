"""What downloaded models take of the disk, what they may, and which of them make room.

Only what lies in the folder of downloads is ever removed, and nothing that is loaded, pinned, waited for or being
downloaded.  A model that makes room stays registered, so that it can be downloaded again.
"""

import asyncio
import glob
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from compat import amount
from compat.canonical.error import InsufficientStorage
from gateway.db.engine import is_full
from gateway.jobs.job import Job
from gateway.registry.entries import Entries
from gateway.registry.entry import Entry
from gateway.storage import disk
from gateway.storage.holds import Holds
from gateway.storage.inventory import View, take
from gateway.storage.occupancy import occupied
from gateway.storage.removal import Remover
from gateway.storage.report import CleanupReport, Removed, StorageReport, told
from gateway.storage.retention import Kind, Plan, Policy, Removal, make_room, tidy
from gateway.storage.telling import removed, report
from gateway.telemetry.logging import logger

if TYPE_CHECKING:
    from gateway.house import House

FIRST_S, EVERY_S = 60.0, 600.0
"""After the start, and then: when the policy is applied."""
MEASURE_S = 30.0
"""How old the figures for metrics may become."""
TRIES = 3
"""How often room is made anew because what was to go came into use."""
_DAY_S = 86_400.0
T = TypeVar("T")
_AGED: tuple[Kind, ...] = ("partial", "version", "model")


class Storage:
    def __init__(self, house: "House", entries: Entries) -> None:
        self._house = house
        self._entries = entries
        self._holds = Holds()
        self._working: set[asyncio.Task[Any]] = set()
        self._remover = Remover(house, entries)
        self.unfinished: Callable[[], Awaitable[list[Job]]] = lambda: house.depot.jobs.unfinished()
        """Everybody's jobs that are not over."""
        self.figures: dict[str, int] = {}
        """For metrics: bytes by what they are, as they were at the last look."""

    @property
    def root(self) -> Path:
        """The folder that downloaded models lie in: `{data_dir}/models/hub`.

        {root}/{ORG}--{NAME}/{first 12 of the commit}/PATH/IN/REPO, and `*.part`, `*.part.json` of what is unfinished.
        """
        return self._house.estate.config.data_dir / "models" / "hub"

    @property
    def policy(self) -> Policy:
        """What the configuration says now."""
        given = self._house.estate.config.storage
        return Policy(
            limit_bytes=None if given.model_bytes_max is None else amount.parse(given.model_bytes_max),
            min_free_bytes=amount.parse(given.min_free_bytes),
            lru=given.keep == "lru",
            unused_s=None if given.unused_days is None else given.unused_days * _DAY_S,
            partial_s=given.partial_days * _DAY_S,
        )

    @property
    def removed(self) -> Counter[Kind]:
        """How many things were removed since the start."""
        return self._remover.counts

    def in_use(self, id_: str) -> bool:
        """Whether a model, by its id, is loaded, being loaded or waited for."""
        return occupied(self._house.estate, id_)

    async def reserve(self, holder: str, size_bytes: int) -> None:
        """Have room for a download before its first byte: within `model_bytes_max`, with `min_free_bytes` left, beside
        what others have reserved; where the policy allows it, models that were not used for longest are removed.

        holder: a job's id, which may reserve again with another size.  size_bytes: what is still to come.
        Raises InsufficientStorage that says what there is, what is wanted and what helps; nothing is removed then.
        """
        # Not ended half-way by who does not want it any more: what goes is first taken out of service.
        task = self._begin(self._reserve(holder, size_bytes))
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(lambda _: self.release(holder))
            raise

    def release(self, holder: str) -> None:
        """It is finished, or given up; what it has written counts by itself."""
        if self._holds.drop(holder):
            self._begin(self._publish())

    async def survey(self, *, tenant: str | None = None) -> StorageReport:
        """What lies there, without `root` and problems.

        tenant: whose jobs are named; None: everybody's.
        """
        view = await self._look()
        self._measured(view)
        entries, config = self._entries.all(), self._house.estate.config
        return await asyncio.to_thread(
            report,
            view,
            self.policy,
            entries,
            keep=config.storage.keep,
            used=view.used,
            pins=self._pins(),
            jobs={job.id for job in view.jobs if tenant is None or job.tenant == tenant},
        )

    async def clean(self, *, dry_run: bool, kinds: Collection[Kind] | None = None) -> CleanupReport:
        """Remove what the policy says, and what is of no use: told in full, with reasons, and with dry_run not done.

        kinds: only these; versions that are not served go when they are named here, or by their age.
        """
        if dry_run:
            view = await self._look(removing=True)
            plan = await self._tidied(view, kinds)
            return _told(plan, plan.removals, dry_run=True)
        return await asyncio.shield(self._begin(self._clean(kinds)))

    async def watch(self) -> None:
        """Apply the policy now and then, until cancelled."""
        loop = asyncio.get_running_loop()
        due = loop.time() + FIRST_S
        await self._try(self._finish)
        while True:
            await self._try(self._measure)
            if loop.time() >= due:
                due = loop.time() + EVERY_S
                await self._try(self._age)
            await asyncio.sleep(MEASURE_S)

    async def _reserve(self, holder: str, size_bytes: int) -> None:
        async with self._holds.alone(self.root):
            for _ in range(TRIES):
                policy = self.policy
                view = await self._look(removing=policy.lru)
                room, now = view.room(holder), time.time()
                plan = await asyncio.to_thread(make_room, view.inventory.things, room, policy, size_bytes, now)
                if plan.missing_bytes:
                    raise await asyncio.to_thread(_refusal, view, policy, size_bytes, holder)
                if len(await self._remover.remove(view.root, plan.removals)) == len(plan.removals):
                    break
            else:
                raise await asyncio.to_thread(_refusal, view, policy, size_bytes, holder)
            self._holds.put(holder, size_bytes)
            try:
                await asyncio.to_thread(self._holds.write, view.root)
            except OSError as e:
                if is_full(e):
                    self._holds.drop(holder)
                    raise await asyncio.to_thread(_refusal, view, policy, size_bytes, holder) from e
                logger().warning("reservation_unwritten", error=type(e).__name__)
        await self._try(self._measure)

    async def _clean(self, kinds: Collection[Kind] | None) -> CleanupReport:
        async with self._holds.alone(self.root):
            await self._finish_all()
            view = await self._look(removing=True)
            plan = await self._tidied(view, kinds)
            done = await self._remover.remove(view.root, plan.removals)
        await self._try(self._measure)
        return _told(plan, done, dry_run=False)

    async def _tidied(self, view: View, kinds: Collection[Kind] | None, *, aged_only: bool = False) -> Plan:
        now = time.time()
        return await asyncio.to_thread(
            tidy, view.inventory.things, view.room(), self.policy, now, kinds=kinds, aged_only=aged_only
        )

    async def _age(self) -> None:
        async with self._holds.alone(self.root):
            await self._finish_all()
            view = await self._look(removing=True)
            plan = await self._tidied(view, _AGED, aged_only=True)
            await self._remover.remove(view.root, plan.removals)

    async def _finish(self) -> None:
        async with self._holds.alone(self.root):
            await self._finish_all()

    async def _finish_all(self) -> None:
        """End what was being removed when this process, or one before it, was killed."""
        if not await asyncio.to_thread(disk.unfinished, self.root):
            return
        view = await self._look(removing=True)
        kept = {path for one in view.inventory.things if one.model or one.kept for path, _ in one.files}
        await self._remover.finish(view.root, kept)

    async def _publish(self) -> None:
        with suppress(OSError):
            async with self._holds.alone(self.root):
                await asyncio.to_thread(self._holds.write, self.root)

    async def _measure(self) -> None:
        self._measured(await self._look())

    def _measured(self, view: View) -> None:
        sizes: Counter[str] = Counter()
        registered: dict[str, int] = {}
        for thing in view.inventory.things:
            if thing.model is not None and thing.kind != "partial":
                registered |= dict(thing.files)
            else:
                sizes[f"{thing.kind}s"] += thing.size_bytes
        figures = {"models": sum(registered.values()), "partials": sizes["partials"], "orphans": sizes["orphans"]}
        figures |= {"reserved": view.room().reserved_bytes, "free": view.free_bytes}
        limit = self.policy.limit_bytes
        self.figures = figures if limit is None else figures | {"limit": limit}

    async def _look(self, *, removing: bool = False) -> View:
        """The disk is read in a thread; what the house says of it is of the moment before.

        removing: with what other processes on the same database have registered, which is nobody's orphan.
        """
        written = await self._entries.written() if removing else []
        root, entries, jobs = self.root, self._entries.all(), tuple(await self.unfinished())
        known = {entry.id: entry for entry in entries}
        foreign = [one for one in written if one.id not in known or one.versions != known[one.id].versions]
        pins, used = self._pins(), await self._used(entries)

        def read() -> View:
            files, (free, size) = disk.walk(root), disk.free_bytes(root)
            return View(
                root=root,
                inventory=take(root, files, entries, jobs, pins, used.__contains__, foreign),
                jobs=jobs,
                used=used,
                rests=_rests(self._holds.all(root), jobs),
                free_bytes=free,
                disk_bytes=size,
            )

        return await asyncio.to_thread(read)

    async def _used(self, entries: Collection[Entry]) -> frozenset[str]:
        found = set()
        for n, entry in enumerate(entries):
            if n % 50 == 49:  # a thousand of them take longer than others should wait
                await asyncio.sleep(0)
            if (entry.path is not None or entry.versions) and self.in_use(entry.id):
                found.add(entry.id)
        return frozenset(found)

    def _pins(self) -> tuple[str, ...]:
        """What is pinned on the disk, and what is in memory: that is wanted at every start."""
        config = self._house.estate.config
        loaded = [
            f"{glob.escape(name)}/{glob.escape(model)}"
            for name, entry in config.backends.items()
            for model in getattr(entry.settings, "pin", ())
        ]
        return (*config.storage.pin, *loaded)

    def _begin(self, work: Coroutine[Any, Any, T]) -> "asyncio.Task[T]":
        task = asyncio.create_task(work)
        self._working.add(task)
        task.add_done_callback(self._working.discard)
        return task

    async def _try(self, work: Callable[[], Awaitable[None]]) -> None:
        """What fails now is tried again later; it must not end who looks after the disk."""
        try:
            await work()
        except Exception as e:
            logger().error("storage_failed", work=work.__name__.strip("_"), error=type(e).__name__)


def _rests(promised: dict[str, int], jobs: Collection[Job]) -> dict[str, int]:
    """What was promised and has not come yet: what has come takes room by itself."""
    rests = dict(promised)
    for job in jobs:
        if job.id in rests and (total := job.progress.bytes_total) is not None:
            rests[job.id] = min(rests[job.id], max(total - job.progress.bytes_done, 0))
    return rests


def _told(plan: Plan, done: Collection[Removal], *, dry_run: bool) -> CleanupReport:
    gone: list[Removed] = [removed(one) for one in done]
    return CleanupReport(
        dry_run=dry_run, removed=gone, total_bytes=sum(one.size_bytes for one in gone), missing_bytes=plan.missing_bytes
    )


def _refusal(view: View, policy: Policy, wanted: int, holder: str) -> InsufficientStorage:
    room = view.room(holder)
    said = [f"{told(wanted)} more are wanted; {told(room.free_bytes)} are free on the disk"]
    if policy.min_free_bytes:
        said.append(f"of which {told(policy.min_free_bytes)} stay free (storage.min_free_bytes)")
    if policy.limit_bytes is not None:
        limit = told(policy.limit_bytes)
        said.append(f"models take {told(room.used_bytes)} of the {limit} they may (storage.model_bytes_max)")
    if room.reserved_bytes:
        said.append(f"{told(room.reserved_bytes)} are reserved for other downloads")
    cures = ["delete models that are not needed"]
    if useless := tidy(view.inventory.things, room, policy, time.time()).freed_bytes:
        cures.insert(0, f"POST /v1/storage/cleanup frees {told(useless)}")
    if not policy.lru:
        cures.append("with storage.keep set to lru, models that were not used for longest make room")
    return InsufficientStorage(f"No room for this download: {', '.join(said)}. What helps: {'; '.join(cures)}.")

"""Rows of jobs.  A job's status here is what everybody goes by: who asked for it, who does it, and whose turn it is."""

import time
from collections.abc import Collection
from typing import Any

import msgspec
from sqlalchemy import Row, Select, delete, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine

from gateway.db.audit import Act, note
from gateway.db.tables import jobs
from gateway.jobs.job import STOPPED, UNFINISHED, Job, JobFailure, JobStatus, Progress

_JSON = {"spec": dict[str, Any], "progress": Progress, "error": JobFailure, "result": dict[str, Any]}
"""Columns that hold JSON, and what it is."""
_TRIES = 5


class Taken(Exception):
    """There is an unfinished job of the same flight."""


class JobRows:
    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def put(self, job: Job) -> tuple[Job, bool]:
        """Keep a job, unless its tenant has an unfinished one of the same flight: that one, and False."""
        same = select(jobs).where(jobs.c.tenant_id == job.tenant, jobs.c.flying == job.flight)
        for _ in range(_TRIES):
            try:
                async with self._engine.begin() as connection:
                    await connection.execute(insert(jobs).values(_columns(job)))
            except IntegrityError:
                async with self._engine.connect() as connection:
                    row = (await connection.execute(same)).first()
                if row is not None:
                    return _job(row), False
                # It has ended meanwhile.
            else:
                return job, True
        raise Taken

    async def get(self, id_: str, tenant: str | None = None) -> Job | None:
        """A job; with a tenant only one of its own."""
        query = select(jobs).where(jobs.c.id == id_)
        if tenant is not None:
            query = query.where(jobs.c.tenant_id == tenant)
        async with self._engine.connect() as connection:
            row = (await connection.execute(query)).one_or_none()
        return None if row is None else _job(row)

    async def page(
        self, tenant: str, limit: int, before: str | None = None, *, status: str | None = None, kind: str | None = None
    ) -> list[Job]:
        """A tenant's newest jobs, or those before the one of the id `before`."""
        query = select(jobs).where(jobs.c.tenant_id == tenant).order_by(jobs.c.id.desc()).limit(limit)
        if before is not None:
            query = query.where(jobs.c.id < before)
        if status is not None:
            query = query.where(jobs.c.status == status)
        if kind is not None:
            query = query.where(jobs.c.kind == kind)
        return await self._found(query)

    async def unfinished(self) -> list[Job]:
        """Everybody's, the oldest first."""
        return await self._found(select(jobs).where(jobs.c.status.in_(UNFINISHED)).order_by(jobs.c.id))

    async def unsettled(self, id_: str | None = None) -> list[Job]:
        """Everybody's that were paused or cancelled and not cleared away after; with an id that one, if it is so."""
        query = select(jobs).where(jobs.c.status.in_(STOPPED), jobs.c.unsettled == 1).order_by(jobs.c.id)
        if id_ is not None:
            query = query.where(jobs.c.id == id_)
        return await self._found(query)

    async def settle(self, job: Job) -> None:
        """A job that was stopped is cleared away after, unless it stands otherwise by now."""
        same = (jobs.c.id == job.id, jobs.c.status == job.status, jobs.c.attempts == job.attempts)
        async with self._engine.begin() as connection:
            await connection.execute(update(jobs).where(*same).values(unsettled=0))

    async def move(
        self, tenant: str, id_: str, status: JobStatus, of: Collection[JobStatus], act: Act | None = None
    ) -> Job | None:
        """Give a tenant's job another status if it has one `of` these; None when there is none that has.

        act: written down with it.  One that is stopped by it is `unsettled` from then on.
        Raises Taken where an unfinished job of the same flight is in the way.
        """
        now = time.time()
        values: dict[str, Any] = {"status": status, "updated_at": now, "unsettled": int(status in STOPPED)}
        if status in UNFINISHED:
            values |= {"ended_at": None, "error": None, "fruitless": 0, "flying": jobs.c.flight}
        else:
            values |= {"ended_at": now, "flying": None}
        there = (jobs.c.tenant_id == tenant, jobs.c.id == id_, jobs.c.status.in_(of))
        try:
            async with self._engine.begin() as connection:
                moved = update(jobs).where(*there).values(values).returning(jobs)
                row = (await connection.execute(moved)).one_or_none()
                if row is not None and act is not None:
                    await note(connection, msgspec.structs.replace(act, tenant=row.tenant_id))
        except IntegrityError as e:
            raise Taken from e
        return None if row is None else _job(row)

    async def advance(self, job: Job, progress: Progress, *, further: bool) -> None:
        """Write down how far this attempt at a job is; further: than any attempt before."""
        values: dict[str, Any] = {"progress": _json(progress), "updated_at": time.time()}
        if further:
            values["fruitless"] = 0
        mine = (jobs.c.id == job.id, jobs.c.attempts == job.attempts)
        async with self._engine.begin() as connection:
            await connection.execute(update(jobs).where(*mine).values(values))

    async def end(self, job: Job, outcome: dict[str, Any] | JobFailure, progress: Progress) -> bool:
        """Write down how this attempt at a job ended; False when somebody has paused, cancelled or taken it before."""
        now, failed = time.time(), isinstance(outcome, JobFailure)
        values = {
            "status": "failed" if failed else "done",
            "error": _json(outcome) if failed else None,
            "result": None if failed else _json(outcome),
            "progress": _json(progress),
            "updated_at": now,
            "ended_at": now,
            "flying": None,
        }
        mine = (jobs.c.id == job.id, jobs.c.attempts == job.attempts, jobs.c.status == "running")
        async with self._engine.begin() as connection:
            return (await connection.execute(update(jobs).where(*mine).values(values))).rowcount == 1

    async def forget(self, before: float, kept: int) -> int:
        """Delete jobs that ended `before`, and all that are over but the newest so many; how many."""
        over = jobs.c.status.not_in(UNFINISHED)
        async with self._engine.connect() as connection:
            first = select(jobs.c.id).where(over).order_by(jobs.c.id.desc()).offset(kept).limit(1)
            last = (await connection.execute(first)).scalar()
        old = jobs.c.ended_at < before
        async with self._engine.begin() as connection:
            gone = delete(jobs).where(over, old if last is None else old | (jobs.c.id <= last))
            return (await connection.execute(gone)).rowcount

    async def _found(self, query: Select[Any]) -> list[Job]:
        async with self._engine.connect() as connection:
            return [_job(row) for row in (await connection.execute(query)).all()]


def _columns(job: Job) -> dict[str, Any]:
    values = msgspec.structs.asdict(job)
    values |= {name: None if values[name] is None else _json(values[name]) for name in _JSON}
    values |= {"flying": job.flight if job.status in UNFINISHED else None, "unsettled": 0}
    return values | {"tenant_id": values.pop("tenant"), "owner_id": values.pop("owner")}


def _job(row: Row[Any]) -> Job:
    values = {name: getattr(row, name) for name in Job.__struct_fields__ if name not in ("tenant", "owner")}
    for name, type_ in _JSON.items():
        if values[name] is not None:
            values[name] = msgspec.json.decode(values[name], type=type_)
    return Job(tenant=row.tenant_id, owner=row.owner_id, **values)


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()

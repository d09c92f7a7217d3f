"""Answers that are kept, and which process works on those that are not there yet.

A process holds what it works on by a lease, by the database's clock, and renews it while it lives; on SQLite, where
there is one process, there are none: whatever was worked on when it starts has been broken off.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import (
    ColumnElement,
    Float,
    and_,
    case,
    cast,
    delete,
    exists,
    extract,
    func,
    insert,
    or_,
    select,
    true,
    update,
)
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine

from gateway.answers.answer import Answer
from gateway.db.engine import durably
from gateway.db.tables import answers, usage
from gateway.requests import CANCELLED, INTERRUPTED, INTERRUPTED_SAID
from gateway.visit import new_id

LEASE_S = 6.0
"""How long after the death of a process what it worked on counts as broken off."""
_TRIES = 20
_FORGOTTEN = 200
"""Rows that are deleted in one transaction: they may be large."""


class SameId(Exception):
    """The tenant has an answer of this id already."""


class AnswerRows:
    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self.leases = engine.dialect.name == "postgresql"
        """Whether other processes may work on answers of the same database."""

    async def begin(self, answer: Answer, worker: str) -> Answer | None:
        """Take an answer down that is worked on from now on, durably; or return the one of the same flight.

        What is there and has expired, or has failed, gives way.  Raises SameId.
        """
        for _ in range(_TRIES):
            try:
                async with durably(self._engine) as connection:
                    await connection.execute(insert(answers).values(_values(answer, worker) | self._lease()))
            except IntegrityError:
                there = None if answer.flight is None else await self._of_flight(answer.tenant, answer.flight)
                if there is not None:
                    return there
                if not await self._clear(answer.tenant, answer.id):
                    raise SameId from None
            else:
                return None
        raise SameId

    async def _of_flight(self, tenant: str, flight: str) -> Answer | None:
        """The one of a flight, without its body; None, and gone, where it is of no use."""
        mine = and_(answers.c.tenant_id == tenant, answers.c.flight == flight)
        now = time.time()
        async with self._engine.connect() as connection:
            row = (await connection.execute(select(*_light, self._lapsed()).where(mine))).one_or_none()
        if row is None:
            return None
        if row.lapsed:
            await self.interrupt()
            return None
        if row.expires_at <= now and row.status != "running":
            async with self._engine.begin() as connection:
                await connection.execute(delete(answers).where(mine, answers.c.expires_at <= now))
            return None
        return _answer(row)

    async def _clear(self, tenant: str, id_: str) -> bool:
        """Remove the one of an id, if nobody can want it any more; whether there is none now."""
        there = (answers.c.tenant_id == tenant, answers.c.id == id_)
        useless = or_(answers.c.status.in_(("failed", "cancelled")), answers.c.expires_at <= time.time())
        async with self._engine.begin() as connection:
            await connection.execute(delete(answers).where(*there, answers.c.worker.is_(None), useless))
            return (await connection.execute(select(answers.c.id).where(*there))).first() is None

    async def get(self, tenant: str, id_: str, body_max: int | None = None) -> Answer | None:
        """A tenant's answer; its body only where that has at most so many bytes."""
        body: Any = answers.c.body
        if body_max is not None:
            body = case((func.length(answers.c.body) <= body_max, answers.c.body), else_=None).label("body")
        query = select(*_light, body, self._lapsed()).where(
            answers.c.tenant_id == tenant,
            answers.c.id == id_,
            or_(answers.c.status == "running", answers.c.expires_at > time.time()),
        )
        async with self._engine.connect() as connection:
            row = (await connection.execute(query)).one_or_none()
        if row is not None and row.lapsed:
            await self.interrupt()
            return await self.get(tenant, id_, body_max)
        return None if row is None else _answer(row)

    async def kept(self, tenant: str, ids: Sequence[str]) -> list[Answer]:
        """The answers to requests of these ids that can be had, without their bodies."""
        there = (answers.c.tenant_id == tenant, answers.c.request_id.in_(ids), answers.c.body.is_not(None))
        async with self._engine.connect() as connection:
            found = await connection.execute(select(*_light).where(*there, answers.c.expires_at > time.time()))
            return [_answer(row) for row in found]

    async def unaccounted(
        self, tenant: str, limit: int, since: float, until: float, after: tuple[float, str] | None, status: str | None
    ) -> list[Answer]:
        """Answers that ended since and until these times, without their bodies, whose row of usage is lost (their
        process was killed before it was written), the newest first, behind the one of the time and id `after`.
        """
        row = answers.c
        accounted = exists().where(
            usage.c.request_id == row.request_id, usage.c.tenant_id == tenant, usage.c.created_at >= row.created_at
        )
        query = select(*_light).where(
            row.tenant_id == tenant,
            row.ended_at.between(since, until),
            row.worker.is_(None),
            row.expires_at > time.time(),
            ~accounted,
        )
        if after is not None:
            at, id_ = after
            query = query.where(row.ended_at <= at, or_(row.ended_at < at, row.id < id_))
        if status is not None:
            query = query.where(row.status == status)
        async with self._engine.connect() as connection:
            found = await connection.execute(query.order_by(row.ended_at.desc(), row.id.desc()).limit(limit))
            return [_answer(row) for row in found]

    async def add(self, answer: Answer) -> None:
        """Keep what is over, unless there is one of its id."""
        try:
            async with self._engine.begin() as connection:
                await connection.execute(insert(answers).values(_values(answer, None)))
        except IntegrityError:
            return

    async def end(self, answer: Answer, worker: str) -> bool:
        """Write down, durably, how one ended that this process works on; whether it still was its own."""
        values = _values(answer, None)
        mine = (answers.c.tenant_id == answer.tenant, answers.c.id == answer.id, answers.c.worker == worker)
        async with durably(self._engine) as connection:
            return (await connection.execute(update(answers).where(*mine).values(values))).rowcount == 1

    async def drop(self, tenant: str, id_: str, worker: str) -> None:
        """Forget one that this process works on: whoever asks the same works on it anew."""
        mine = (answers.c.tenant_id == tenant, answers.c.id == id_, answers.c.worker == worker)
        async with self._engine.begin() as connection:
            await connection.execute(delete(answers).where(*mine))

    async def beat(self, worker: str, standings: Mapping[tuple[str, str], bytes | None]) -> list[tuple[str, str]]:
        """Renew the leases of these, by tenant and id, and tell how they stand; returns those that are not wanted any
        more.
        """
        ended: list[tuple[str, str]] = []
        async with self._engine.begin() as connection:
            for (tenant, id_), standing in standings.items():
                values = self._lease() | ({} if standing is None else {"standing": standing.decode()})
                mine = (answers.c.tenant_id == tenant, answers.c.id == id_, answers.c.worker == worker)
                done = await connection.execute(update(answers).where(*mine).values(values).returning(answers.c.status))
                if done.scalar() == "cancelled":
                    ended.append((tenant, id_))
        return ended

    async def cancel(self, tenant: str, id_: str) -> bool:
        """One that another process works on is not wanted any more; whether there was one."""
        there = (answers.c.tenant_id == tenant, answers.c.id == id_, answers.c.status == "running")
        async with self._engine.begin() as connection:
            done = await connection.execute(update(answers).where(*there).values(status="cancelled"))
            return done.rowcount == 1

    async def running(self, tenant: str) -> list[Answer]:
        """A tenant's that are worked on without a connection, by whatever process."""
        query = select(*_light).where(
            answers.c.tenant_id == tenant, answers.c.status == "running", answers.c.asynchronous == 1
        )
        async with self._engine.connect() as connection:
            return [_answer(row) for row in await connection.execute(query)]

    async def interrupt(self, *, all_: bool = False, lost: tuple[str, Sequence[str]] | None = None) -> int:
        """Those whose process is gone have failed; how many.  What nobody comes back for is forgotten.

        all_: every one that is worked on.  lost: a process's that are none of these ids.
        """
        broken: ColumnElement[bool] = answers.c.lease_until < self._now()
        if all_:
            broken = true()
        elif lost is not None:
            worker, ids = lost
            broken = and_(answers.c.worker == worker, answers.c.id.not_in(ids))
        open_ = and_(answers.c.worker.is_not(None), broken)
        now = time.time()
        over = {
            "status": case((answers.c.status == "cancelled", "cancelled"), else_="failed"),
            "flight": None,
            "worker": None,
            "lease_until": None,
            "ended_at": now,
        }
        async with self._engine.begin() as connection:
            await connection.execute(delete(answers).where(open_, answers.c.asynchronous == 0))
            rows = (await connection.execute(update(answers).where(open_).values(over).returning(*_light))).all()
            if rows:
                await connection.execute(insert(usage), [_trace(row, now) for row in rows])
        return len(rows)

    async def forget(self, before: float) -> int:
        """Delete what has expired; how many."""
        gone = 0
        old = select(answers.c.tenant_id, answers.c.id).where(
            answers.c.expires_at < before, answers.c.status != "running"
        )
        while True:
            async with self._engine.begin() as connection:
                rows = (await connection.execute(old.limit(_FORGOTTEN))).all()
                for tenant, id_ in rows:
                    await connection.execute(delete(answers).where(answers.c.tenant_id == tenant, answers.c.id == id_))
            gone += len(rows)
            if len(rows) < _FORGOTTEN:
                return gone

    def _now(self) -> ColumnElement[Any]:
        return cast(extract("epoch", func.clock_timestamp()), Float) if self.leases else cast(time.time(), Float)

    def _lease(self) -> dict[str, Any]:
        return {"lease_until": self._now() + LEASE_S if self.leases else None}

    def _lapsed(self) -> ColumnElement[Any]:
        return case((answers.c.lease_until < self._now(), 1), else_=0).label("lapsed")


_light = [column for column in answers.columns if column.name not in ("body", "lease_until", "worker")]


def _values(answer: Answer, worker: str | None) -> dict[str, Any]:
    values = msgspec.structs.asdict(answer)
    values["headers"] = msgspec.json.encode(answer.headers).decode()
    values["standing"] = None if answer.standing is None else answer.standing.decode()
    values["asynchronous"] = int(answer.asynchronous)
    values["request_id"] = answer.request_id or answer.id
    values |= {"tenant_id": values.pop("tenant"), "owner_id": values.pop("owner")}
    return values | {"worker": worker, "lease_until": None}


def _answer(row: Any) -> Answer:
    known = row._mapping
    return Answer(
        id=row.id,
        request_id="" if row.request_id == row.id else row.request_id,
        tenant=row.tenant_id,
        owner=row.owner_id,
        endpoint=row.endpoint,
        asynchronous=bool(row.asynchronous),
        flight=row.flight,
        fingerprint=row.fingerprint,
        status=row.status,
        standing=None if row.standing is None else row.standing.encode(),
        http_status=row.http_status,
        headers=msgspec.json.decode(row.headers, type=tuple[tuple[str, str], ...]),
        body=known.get("body"),
        partial=row.partial,
        created_at=row.created_at,
        ended_at=row.ended_at,
        expires_at=row.expires_at,
    )


def _trace(row: Any, now: float) -> dict[str, Any]:
    """What is left of one whose process is gone, among what tells of requests."""
    standing = msgspec.json.decode(row.standing) if row.standing else {}
    cancelled = row.status == "cancelled"
    return dict.fromkeys(column.name for column in usage.columns) | {
        "id": new_id("use"),
        "tenant_id": row.tenant_id,
        "owner_id": row.owner_id,
        "request_id": row.request_id,
        "created_at": now,
        "route": row.endpoint,
        "requested_model": (standing.get("model") or "")[:300],
        "backend": standing.get("backend"),
        "model": standing.get("answered_model"),
        "status": 499 if cancelled else 503,
        "code": CANCELLED if cancelled else INTERRUPTED,
        "attempts": standing.get("attempts") or 0,
        "streamed": int(bool(standing.get("streamed"))),
        "queue_s": 0.0,
        "load_s": 0.0,
        "total_s": max(0.0, now - row.created_at),
        "said": None if cancelled else INTERRUPTED_SAID,
    }

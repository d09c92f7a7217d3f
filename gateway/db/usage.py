"""Usage rows: what each request cost, to be written in batches and asked for by whom, when and what."""

import asyncio
from collections.abc import AsyncGenerator, Collection, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
from msgspec import Struct
from sqlalchemy import BigInteger, Select, String, case, cast, delete, func, literal_column, or_, select, text
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.sql.elements import ColumnElement

from gateway.db.query import ask
from gateway.db.tables import usage

Row = dict[str, Any]
"""Column name → value; see `gateway.db.tables.usage`."""
LENGTHS = {column.name: column.type.length for column in usage.columns if isinstance(column.type, String)}
"""Characters that fit into the columns of text."""

_NAMES = [column.name for column in usage.columns]
_COLUMNS = ", ".join(_NAMES)
_PLACES = f"({', '.join('?' * len(_NAMES))})"
_CHUNK = 100
"""Rows in one statement of SQLite, which may have 32,766 parameters."""
# Many rows in each statement: of one statement a row, SQLite's driver fights the event loop for the
# interpreter's lock.
_INTO = f"INSERT INTO usage ({_COLUMNS})"
# A batch whose commit was not heard of is written again.
_ONCE = "ON CONFLICT DO NOTHING"
# PostgreSQL takes a batch as one JSON text: binding a parameter per value costs more than what it accounts for.
_FROM_JSON = text(
    f"{_INTO} SELECT {_COLUMNS} FROM json_populate_recordset(NULL::usage, CAST(:rows AS json)) {_ONCE}"  # noqa: S608
)
_STRETCH = 250
"""Rows that are read at a time: writing them out must not hold up the requests under way."""
_FORGOTTEN = 1000
"""Rows that are deleted in one transaction."""

FIRST = datetime(2020, 1, 1, tzinfo=UTC).timestamp()
"""No row is older."""
SECONDS = {"hour": 3600, "day": 86_400}
COLUMNS = {
    "model": usage.c.model,
    "backend": usage.c.backend,
    "route": usage.c.route,
    "key": usage.c.key_id,
    "user": usage.c.owner_id,
    "tenant": usage.c.tenant_id,
    "status": usage.c.status,
}
GROUPS = (*COLUMNS, *SECONDS, "month")
"""What rows can be grouped by."""
_SANE = 2**43
"""Tokens: a provider's nonsense must not make sums too large for a database."""
_failed = or_(usage.c.status >= 400, usage.c.code.is_not(None))
_SUMS: dict[str, ColumnElement[Any]] = {
    "requests": func.count(),
    "errors": func.sum(case((_failed, 1), else_=0)),
    **{
        name: func.coalesce(func.sum(case((usage.c[name] > _SANE, _SANE), else_=usage.c[name])), 0)
        for name in ("input_tokens", "output_tokens", "cached_tokens", "reasoning_tokens", "cache_written_tokens")
    },
    "cost_nanousd": func.sum(usage.c.cost_nanousd),
    "unpriced_requests": func.count() - func.count(usage.c.cost_nanousd),
    "total_s": func.sum(usage.c.total_s),
}


class Which(Struct, frozen=True, kw_only=True):
    """Which rows; None is any."""

    since: float = FIRST
    until: float
    """Exclusive; both in seconds since 1970."""
    tenant: str | None = None
    owner: str | None = None
    key: str | None = None
    model: str | None = None
    """As it was asked for, or by the backend's name for it."""
    backend: str | None = None

    @property
    def conditions(self) -> list[ColumnElement[bool]]:
        by_value = {"tenant_id": self.tenant, "owner_id": self.owner, "key_id": self.key, "backend": self.backend}
        found = [usage.c.created_at >= self.since, usage.c.created_at < self.until]
        found += [usage.c[name] == value for name, value in by_value.items() if value is not None]
        if self.model is not None:
            found.append(or_(usage.c.model == self.model, usage.c.requested_model == self.model))
        return found


class UsageRows:
    def __init__(self, engine: AsyncEngine, limit_s: float | None = None) -> None:
        """limit_s: what takes longer to be read raises Unfinished."""
        self._engine = engine
        self._limit_s = limit_s

    async def add(self, rows: Sequence[Row]) -> None:
        """Insert a batch, all or none; rows that are there already stay as they are."""
        async with self._engine.begin() as connection:
            if connection.dialect.name == "postgresql":
                await connection.execute(_FROM_JSON, {"rows": msgspec.json.encode(rows).decode()})
                return
            for start in range(0, len(rows), _CHUNK):
                chunk = rows[start : start + _CHUNK]
                values = tuple(row[name] for row in chunk for name in _NAMES)
                places = ", ".join([_PLACES] * len(chunk))
                await connection.exec_driver_sql(f"{_INTO} VALUES {places} {_ONCE}", values)

    async def page(self, which: Which, limit: int, after: tuple[float, str] | None = None) -> list[Row]:
        """Rows, newest first; `after` goes on behind the one of this time and id."""
        query = select(usage).where(*which.conditions)
        if after is not None:
            at, id_ = after
            query = query.where(usage.c.created_at <= at, or_(usage.c.created_at < at, usage.c.id < id_))
        return await self._all(query.order_by(usage.c.created_at.desc(), usage.c.id.desc()).limit(limit))

    async def requested(self, tenant: str, request_id: str, since: float = FIRST) -> Row | None:
        """The newest row of a request's id."""
        query = select(usage).where(
            usage.c.tenant_id == tenant, usage.c.request_id == request_id, usage.c.created_at >= since
        )
        newest = query.order_by(usage.c.created_at.desc(), usage.c.id.desc()).limit(1)
        return next(iter(await self._all(newest)), None)

    async def history(
        self,
        tenant: str,
        limit: int,
        *,
        since: float,
        after: tuple[float, str] | None = None,
        seen: tuple[float, float] | None = None,
        cancelled: Collection[str] = (),
        outcome: str | None = None,
    ) -> list[Row]:
        """A tenant's rows, newest first, behind the one of the time and id `after`.

        seen: without those that ended after the first of these times, unless they began before the second.
        outcome: `done`, `failed` or `cancelled`, which a row is by one of the codes `cancelled`.
        """
        row = usage.c
        query = select(usage).where(row.tenant_id == tenant, row.created_at >= since)
        if after is not None:
            at, id_ = after
            query = query.where(row.created_at <= at, or_(row.created_at < at, row.id < id_))
        if seen is not None:
            ended, began = seen
            query = query.where(or_(row.created_at <= ended, row.created_at - row.total_s < began))
        if outcome == "cancelled":
            query = query.where(row.code.in_(cancelled))
        elif outcome == "done":
            query = query.where(row.status < 400, row.code.is_(None))
        elif outcome == "failed":
            query = query.where(_failed, or_(row.code.is_(None), row.code.not_in(cancelled)))
        return await self._all(query.order_by(row.created_at.desc(), row.id.desc()).limit(limit))

    async def each(self, which: Which) -> AsyncGenerator[list[Row], None]:
        """All rows, newest first, in stretches; no connection is held between them."""
        after = None
        while rows := await self.page(which, _STRETCH, after):
            yield rows
            after = (rows[-1]["created_at"], rows[-1]["id"])

    async def groups(self, which: Which, by: Sequence[str], limit: int, skip: int = 0) -> list[Row]:
        """Sums by some of GROUPS, in their order: `hour` and `day` count from 1970, `month` from year 0."""
        parts = {name: self._part(name, which) for name in by}
        labels = [part.label(f"by_{name}") for name, part in parts.items()]
        query = select(*labels, *(total.label(name) for name, total in _SUMS.items())).where(*which.conditions)
        # Databases differ in where nulls come.
        order = [way for part in parts.values() for way in (case((part.is_(None), 1), else_=0), part)]
        rows = await self._all(query.group_by(*parts.values()).order_by(*order).limit(limit).offset(skip))
        return [{name.removeprefix("by_"): value for name, value in _whole(row).items()} for row in rows]

    async def totals(self, which: Which) -> Row:
        """The sums of all."""
        [row] = await self._all(select(*(total.label(name) for name, total in _SUMS.items())).where(*which.conditions))
        return _whole(row)

    async def forget(self, before: float) -> int:
        """Delete rows from before a time, bit by bit, and return how many."""
        old = select(usage.c.id).where(usage.c.created_at < before).limit(_FORGOTTEN)
        gone = 0
        while True:
            async with self._engine.begin() as connection:
                count = (await connection.execute(delete(usage).where(usage.c.id.in_(old)))).rowcount
            gone += count
            if count < _FORGOTTEN:
                return gone
            await asyncio.sleep(0.05)  # others want to write as well

    def _part(self, name: str, which: Which) -> ColumnElement[Any]:
        if name in COLUMNS:
            return COLUMNS[name]
        if name == "month":
            return _month(which)
        count = usage.c.created_at / SECONDS[name]
        # To a whole number PostgreSQL would round it; not every SQLite can floor.
        return cast(func.floor(count) if self._engine.dialect.name == "postgresql" else count, BigInteger)

    async def _all(self, query: Select[Any]) -> list[Row]:
        return [dict(row) for row in await ask(self._engine, query, self._limit_s)]


def _month(which: Which) -> ColumnElement[Any]:
    """Months have no one length: a row's is found among the beginnings of all in question."""
    first, last = (_month_of(at) for at in (max(which.since, FIRST), which.until))
    # Literals: PostgreSQL takes an expression with parameters for another one each time.
    later: list[tuple[ColumnElement[bool], ColumnElement[Any]]] = [
        (usage.c.created_at >= literal_column(repr(_beginning(n))), literal_column(str(n)))
        for n in range(last, first, -1)
    ]
    return case(*later, (usage.c.id.is_not(None), literal_column(str(first))))


def _month_of(at: float) -> int:
    moment = datetime.fromtimestamp(at, UTC)
    return moment.year * 12 + moment.month - 1


def _beginning(month: int) -> float:
    return datetime(month // 12, month % 12 + 1, 1, tzinfo=UTC).timestamp()


def _whole(row: Row) -> Row:
    """Sums as whole numbers: PostgreSQL's are decimals; of no rows some are null."""
    return {
        name: int(value or 0) if name in _SUMS and name not in ("cost_nanousd", "total_s") else value
        for name, value in row.items()
    } | {
        "cost_nanousd": None if row["cost_nanousd"] is None else int(row["cost_nanousd"]),
        "total_s": row["total_s"] or 0.0,
    }

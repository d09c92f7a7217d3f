"""The sums of budgets: reserved and settled in one transaction, however many processes do so at once."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from functools import lru_cache

from sqlalchemy import delete, select, tuple_
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from gateway.db.tables import budgets
from gateway.limits.budgets import Ask, Lack, Scope, Unsettled

_CHUNK = 500
"""Rows in one statement; PostgreSQL takes 32,767 parameters."""
_COLUMNS = ("scope", "period", "tenant_id", "owner_id", "spent_nanousd", "updated_at")
_Key = tuple[str, str]


class BudgetRows:
    """Keeps one connection, on which a transaction is as short as can be."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._connection: AsyncConnection | None = None
        self._taken = asyncio.Lock()

    async def apply(self, changes: Mapping[Scope, int], asks: Sequence[Ask]) -> list[Lack | None]:
        """Make the changes, then grant what still fits, in order; one transaction.  Raises Unsettled."""
        async with self._taken:
            while True:
                kept = self._connection is not None
                committing = False
                try:
                    connection = await self._connected()
                    lacks = await self._apply(connection, changes, asks)
                    committing = True
                    await connection.commit()
                except BaseException as e:
                    await self._drop()
                    if not isinstance(e, (SQLAlchemyError, OSError, TimeoutError)):
                        raise
                    if kept and not committing:
                        continue  # it may have been lost long ago
                    raise Unsettled(unsure=committing) from e
                return lacks

    async def _apply(
        self, connection: AsyncConnection, changes: Mapping[Scope, int], asks: Sequence[Ask]
    ) -> list[Lack | None]:
        scopes = sorted({*changes, *(line.scope for ask in asks for line in ask.lines)})
        # Each row is made if need be, locked and read at once, and all in one order: nobody waits in a circle.
        sums = await self._write(connection, dict.fromkeys(scopes, 0), locking=True)
        before = dict(sums)
        for scope, change in changes.items():
            sums[scope.account, scope.period] += change
        lacks = [_granted(ask, sums) for ask in asks]
        changed = {s: sums[k] for s in scopes if sums[k := (s.account, s.period)] != before[k]}
        if changed:
            await self._write(connection, changed, locking=False)
        return lacks

    async def spent(self, scopes: Sequence[Scope]) -> dict[Scope, int]:
        """What is spent and reserved, of those that have a row."""
        keys = {(scope.account, scope.period): scope for scope in scopes}
        query = select(budgets.c.scope, budgets.c.period, budgets.c.spent_nanousd).where(
            tuple_(budgets.c.scope, budgets.c.period).in_(list(keys))
        )
        async with self._engine.connect() as connection:
            return {keys[account, period]: spent for account, period, spent in (await connection.execute(query)).all()}

    async def forget(self, before: float) -> int:
        """Delete the rows of months before the one of that time, bit by bit, and return how many."""
        month = time.strftime("%Y-%m", time.gmtime(before))
        key, gone = (budgets.c.scope, budgets.c.period), 0
        old = select(*key).where(budgets.c.period < month).limit(_CHUNK)
        while True:
            async with self._engine.connect() as connection:
                found = [tuple(row) for row in await connection.execute(old)]
            if not found:
                return gone
            async with self._engine.begin() as connection:
                gone += (await connection.execute(delete(budgets).where(tuple_(*key).in_(found)))).rowcount
            await asyncio.sleep(0.05)  # others want to write as well

    async def aclose(self) -> None:
        async with self._taken:
            if self._connection is not None:
                await self._connection.close()
                self._connection = None

    async def _write(self, connection: AsyncConnection, sums: Mapping[Scope, int], *, locking: bool) -> dict[_Key, int]:
        """Write these sums, or, `locking`, only the rows that are not there; returns what they are then."""
        found: dict[_Key, int] = {}
        rows, now = list(sums.items()), time.time()
        for start in range(0, len(rows), _CHUNK):
            chunk = rows[start : start + _CHUNK]
            statement = _statement(len(chunk), locking, self._engine.dialect.name == "postgresql")
            values = tuple(
                value for s, spent in chunk for value in (s.account, s.period, s.tenant, s.owner[:64], spent, now)
            )
            answer = await connection.exec_driver_sql(statement, values)
            found |= {(account, period): spent for account, period, spent in answer}
        return found

    async def _connected(self) -> AsyncConnection:
        if self._connection is None:
            self._connection = await self._engine.connect()
            if self._engine.dialect.name == "sqlite":
                # What was spent is spent, whatever happens to the machine.
                await self._connection.exec_driver_sql("PRAGMA synchronous=FULL")
                await self._connection.commit()
        return self._connection

    async def _drop(self) -> None:
        """Start over with another connection: what became of this one's transaction is not known."""
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                await connection.invalidate()
                await connection.close()
            except (SQLAlchemyError, OSError):
                return


@lru_cache(64)
def _statement(rows: int, locking: bool, numbered: bool) -> str:
    """Writes so many rows; as text, since a statement of many rows is compiled each time it is built."""
    width = len(_COLUMNS)
    places = [", ".join(f"${row * width + n + 1}" if numbered else "?" for n in range(width)) for row in range(rows)]
    spent = "budgets.spent_nanousd" if locking else "excluded.spent_nanousd"
    return (
        f"INSERT INTO budgets ({', '.join(_COLUMNS)}) VALUES ({'), ('.join(places)}) "  # noqa: S608
        f"ON CONFLICT (scope, period) DO UPDATE SET spent_nanousd = {spent}, updated_at = excluded.updated_at "
        "RETURNING scope, period, spent_nanousd"
    )


def _granted(ask: Ask, sums: dict[_Key, int]) -> Lack | None:
    """Add what a request needs to each of its sums, unless one lacks it."""
    for line in ask.lines:
        spent = sums[line.scope.account, line.scope.period]
        if spent + ask.need > line.most:
            return Lack(line, spent)
    for line in ask.lines:
        sums[line.scope.account, line.scope.period] += ask.need
    return None

"""Queries that may take long: given so much time, and ended in the database when nobody waits for them any more."""

import asyncio
from typing import Any

from sqlalchemy import RowMapping, Select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

_CANCELED = "57014"
"""What PostgreSQL calls a statement that was ended."""


class Unfinished(Exception):
    """A query took longer than it may, and was ended."""


async def ask(engine: AsyncEngine, query: Select[Any], limit_s: float | None = None) -> list[RowMapping]:
    """The rows of a query.  Raises Unfinished."""
    async with engine.connect() as connection:
        if limit_s is not None and connection.dialect.name == "postgresql":
            # Holds also when this process does not get to it.
            await connection.exec_driver_sql(f"SET LOCAL statement_timeout = {max(1, round(limit_s * 1000))}")
        asking = asyncio.create_task(_rows(connection, query))
        ended = False
        try:
            await asyncio.wait({asking}, timeout=limit_s)
        finally:
            if not asking.done():
                ended = True
                await _end(connection, asking)
        try:
            return asking.result()
        except (asyncio.CancelledError, DBAPIError) as e:
            if ended or (isinstance(e, DBAPIError) and getattr(e.orig, "sqlstate", None) == _CANCELED):
                raise Unfinished from e
            raise


async def _rows(connection: AsyncConnection, query: Select[Any]) -> list[RowMapping]:
    return list((await connection.execute(query)).mappings())


async def _end(connection: AsyncConnection, asking: asyncio.Task[Any]) -> None:
    if connection.dialect.name == "sqlite":
        # Cancelling would leave its thread at work.
        driver: Any = (await connection.get_raw_connection()).driver_connection
        while not asking.done():  # before it has begun there is nothing to interrupt
            await driver.interrupt()
            await asyncio.wait({asking}, timeout=0.1)
    else:
        asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)

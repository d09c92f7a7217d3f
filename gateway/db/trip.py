"""SQLite's statements in one trip to the thread of their connection.

SQLAlchemy's adapter makes four of one (a cursor, the statement, its rows, the end of the cursor), each a wait for the
event loop and for the thread: together more than most statements take.
"""

import sqlite3
from collections import deque
from typing import Any, NamedTuple

from sqlalchemy.dialects.sqlite.aiosqlite import AsyncAdapt_aiosqlite_connection, AsyncAdapt_aiosqlite_cursor


class Done(NamedTuple):
    description: Any
    rows: list[Any]
    lastrowid: int
    rowcount: int


class Connection(AsyncAdapt_aiosqlite_connection):
    __slots__ = ()

    def cursor(self, server_side: bool = False) -> AsyncAdapt_aiosqlite_cursor:
        return super().cursor(server_side) if server_side else Cursor(self)


class Cursor(AsyncAdapt_aiosqlite_cursor):
    __slots__ = ()

    def execute(self, operation: Any, parameters: Any = None) -> None:
        self._do("execute", operation, parameters)

    def executemany(self, operation: Any, seq_of_parameters: Any) -> None:
        self._do("executemany", operation, seq_of_parameters)

    def _do(self, way: str, operation: Any, parameters: Any) -> None:
        driver: Any = self._connection
        try:
            done: Done = self.await_(driver._execute(_done, driver._conn, way, operation, parameters))
        except Exception as error:
            self._adapt_connection._handle_exception(error)
        self.description, self._rows = done.description, deque(done.rows)
        self.lastrowid, self.rowcount = (-1, -1) if done.description else (done.lastrowid, done.rowcount)


def connect(dialect: Any, record: Any, arguments: Any, named: Any) -> Connection:  # noqa: ARG001
    """For the event `do_connect` of an engine."""
    made = dialect.connect(*arguments, **named)
    return Connection(made.dbapi, made._connection)


def _done(connection: sqlite3.Connection, way: str, operation: str, parameters: Any) -> Done:
    """In the thread of the connection."""
    cursor = connection.cursor()
    try:
        getattr(cursor, way)(operation, *(() if parameters is None else (parameters,)))
        rows = cursor.fetchall() if cursor.description else []
        return Done(cursor.description, rows, cursor.lastrowid or 0, cursor.rowcount)
    finally:
        cursor.close()

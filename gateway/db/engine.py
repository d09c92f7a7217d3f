"""Connecting, and bringing the schema up to date.

SQLite runs in WAL mode with one file lock around migrations; PostgreSQL takes an advisory lock.
Alembic is imported only when there is something to migrate: it is a tenth of the start-up time.
"""

import asyncio
import errno
import fcntl
import sqlite3
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from sqlalchemy import Connection, event, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from gateway.settings import ConfigError

MIGRATIONS = Path(__file__).parent / "migrations"
_ADVISORY_LOCK = 0x706C7567
CONNECT_S, COMMAND_S = 10.0, 60.0
"""How long PostgreSQL may take to be there, and for one statement."""
Engine = AsyncEngine
_durable: WeakKeyDictionary[AsyncEngine, AsyncEngine] = WeakKeyDictionary()
"""Of an engine on SQLite, the one whose transactions survive a power cut."""
FAILURES = (DBAPIError, PoolTimeout, ConnectionError)
"""What a database that cannot be asked now is met as."""
_UNFIT = ("22", "23")
"""PostgreSQL's classes of errors that are the values' fault."""
_DISK_FULL = "53100"
_SQLITE_FULL = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_SHMSIZE)
"""A file that may not grow is a failed write to SQLite; so is a disk that is broken, which fails in other ways too."""


def connect(url: str) -> AsyncEngine:
    """An engine for `sqlite+aiosqlite:///FILE` or `postgresql+asyncpg://…`; the folder is made."""
    if file := _sqlite_file(url):
        file.parent.mkdir(parents=True, exist_ok=True)
    # A server that hangs, instead of refusing, must not hold whoever asks for good.
    waits = {} if file else {"timeout": CONNECT_S, "command_timeout": COMMAND_S}
    engine = create_async_engine(url, pool_pre_ping=file is None, connect_args=waits)
    if file:
        from gateway.db import trip  # which brings the dialect along

        event.listen(engine.sync_engine, "connect", _set_pragmas)
        event.listen(engine.sync_engine, "do_connect", trip.connect)
        # Telling each transaction anew would cost more than most of them.
        durable = _durable[engine] = create_async_engine(url, pool_size=2)
        event.listen(durable.sync_engine, "connect", _set_durable_pragmas)
        event.listen(durable.sync_engine, "do_connect", trip.connect)
        event.listen(engine.sync_engine, "engine_disposed", lambda _: durable.sync_engine.dispose())
    return engine


@contextmanager
def usable() -> Iterator[None]:
    """Raises ConfigError where the database cannot be used."""
    try:
        yield
    except OSError as e:
        at = f"{e.filename}: " if e.filename else ""
        raise ConfigError(
            f"database.url: the database cannot be reached: {at}{e.strerror or e or type(e).__name__}. Is it running, "
            "and may this user use it?"
        ) from e
    except Exception as e:
        # asyncpg's own come as they are while it connects, and so do options it does not know (`?sslmode=`).
        known = isinstance(e, (SQLAlchemyError, sqlite3.Error)) or type(e).__module__.startswith("asyncpg")
        if not known and not (isinstance(e, TypeError) and str(e).startswith("connect()")):
            raise
        reason = e.orig if isinstance(e, DBAPIError) else e
        raise ConfigError(
            f"database.url: the database cannot be used: {reason}. Put right what it says, or name another."
        ) from e


async def upgrade(engine: AsyncEngine) -> None:
    """Migrate to the newest revision; safe when several processes start at once."""
    if await _revision(engine) == head():
        return
    file = _sqlite_file(engine.url.render_as_string(hide_password=False))
    with await asyncio.to_thread(_locked, file) if file else _nothing():
        found = await _revision(engine)
        if found == head():
            return
        if file and found is not None:
            # A revision that fails half-way cannot be rolled back in SQLite.
            await asyncio.to_thread(_copy, file, file.with_name(f"{file.name}.before-{head()}"))
        async with engine.begin() as connection:
            if not file:
                await connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _ADVISORY_LOCK})
            await connection.run_sync(_migrate)


@asynccontextmanager
async def durably(engine: AsyncEngine) -> AsyncGenerator[AsyncConnection, None]:
    """A transaction that survives a power cut once it is over, which others on SQLite may not."""
    async with _durable.get(engine, engine).begin() as connection:
        yield connection


async def answers(engine: AsyncEngine, within_s: float = 1.0) -> bool:
    """Whether the database can be asked right now."""
    try:
        async with asyncio.timeout(within_s), engine.connect() as connection:
            await connection.execute(text("SELECT 1"))
    except (DBAPIError, OSError, TimeoutError):
        return False
    return True


def unfit(error: Exception) -> bool:
    """Whether the values are at fault, so that writing them again fails again."""
    if isinstance(error, DBAPIError):
        state = getattr(error.orig, "sqlstate", None) or ""
        return isinstance(error, (DataError, IntegrityError)) or state[:2] in _UNFIT
    # What a driver cannot even send.  A certificate that is not believed is a ValueError as well.
    return isinstance(error, (ValueError, TypeError, OverflowError)) and not isinstance(error, OSError)


def is_full(error: BaseException) -> bool:
    """Whether it was refused because the disk is full, the user's quota is, or the file may not grow."""
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    cause = getattr(error, "orig", None) or error
    if isinstance(cause, sqlite3.Error):
        return getattr(cause, "sqlite_errorcode", None) in _SQLITE_FULL
    return getattr(cause, "sqlstate", None) == _DISK_FULL


def head() -> str:
    """The newest revision: revisions are numbered files."""
    return max(path.name[:4] for path in (MIGRATIONS / "versions").glob("[0-9]*.py"))


async def _revision(engine: AsyncEngine) -> str | None:
    async with engine.connect() as connection:
        try:
            return (await connection.execute(text("SELECT version_num FROM alembic_version"))).scalar()
        except DBAPIError:
            return None


def _migrate(connection: Connection) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _set_durable_pragmas(connection: Any, record: Any) -> None:
    _set_pragmas(connection, record)
    cursor = connection.cursor()
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.close()


def _set_pragmas(connection: Any, record: Any) -> None:  # noqa: ARG001
    cursor = connection.cursor()
    # SQLite's own cache only repeats the system's, and grows to 2 MiB a connection when not told otherwise.
    cache = "cache_size=-256"
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "busy_timeout=10000", "foreign_keys=ON", cache):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _sqlite_file(url: str) -> Path | None:
    parsed = make_url(url)
    return Path(parsed.database) if parsed.get_backend_name() == "sqlite" and parsed.database else None


def _copy(file: Path, target: Path) -> None:
    # By SQLite itself: after a crash the newest rows are in the log beside the file.
    with closing(sqlite3.connect(file)) as live, closing(sqlite3.connect(target)) as copy:
        live.backup(copy)


def _locked(file: Path) -> Any:
    return _FileLock(file.with_name(f"{file.name}.lock"))


class _FileLock:
    """Taken when made, in a thread, since another process may hold it for a while."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("w")
        fcntl.flock(self._file, fcntl.LOCK_EX)

    def __enter__(self) -> None:
        return

    def __exit__(self, *_: object) -> None:
        self._file.close()


@contextmanager
def _nothing() -> Iterator[None]:
    yield

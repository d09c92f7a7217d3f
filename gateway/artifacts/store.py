"""Where the bytes of artifacts are: a folder, or a bucket that speaks S3 (obstore).

Everything is under keys of our own making, so no name of a client ever becomes a path.  obstore's errors hold paths
and addresses: they are logged, and a client is told in words of ours.
"""

import asyncio
import os
import re
import shutil
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Iterator
from contextlib import aclosing, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from compat.canonical.error import Corrupted, GatewayError, InsufficientStorage, NotFound, Unreachable
from gateway.artifacts.bucket import Bucket, bucket_of
from gateway.db.engine import is_full
from gateway.keeping import Artifacts as Settings
from gateway.telemetry.logging import logger

if TYPE_CHECKING:
    from obstore.store import LocalStore, S3Store

PATIENCE_S = 20.0
"""How long the store may bring and take nothing."""
SLOWEST_BYTES_S = 262_144
"""What it must take a second, on average."""
PART_BYTES = 8 * 1024 * 1024
"""Of an upload in parts, which a larger object is to a bucket."""
PIECE_BYTES = 256 * 1024
PAGE = 500
"""Objects that are listed at a time."""
STANDING_S = 5.0
"""How long what was found of the store's state is taken for current."""
PROBE_S = 2.0
"""How long finding it out may take."""
FREE_MIN_BYTES = 1024 * 1024
_os_error = re.compile(r"\(os error (\d+)\)").search
_staged = re.compile(r".+#\d+").fullmatch
"""What obstore calls a file before it is whole."""
_T = TypeVar("_T")


class Stored(NamedTuple):
    """An object that is there."""

    key: str
    size_bytes: int
    modified_at: datetime


class Store:
    """Raises Unreachable or InsufficientStorage (a full disk); never says where it is to a client."""

    def __init__(self, settings: Settings, data_dir: Path, *, patience_s: float = PATIENCE_S) -> None:
        """data_dir: what `{data_dir}` in its URL stands for."""
        self._patience_s = patience_s
        self.folder: Path | None = None
        """Where its files are; None: they are in a bucket."""
        self._bucket: Bucket | None = None
        if settings.url.startswith("s3://"):
            self._bucket = bucket_of(settings.url, settings.s3, os.environ)
        else:
            self.folder = Path(settings.url.removeprefix("file://").replace("{data_dir}", str(data_dir))).absolute()
        self._store: LocalStore | S3Store | None = None
        self._opening = asyncio.Lock()
        self._known: set[Path] = set()
        """Folders whose own names are durable."""
        self._standing: tuple[float, str | None] | None = None
        self._probing = asyncio.Lock()

    async def put(self, key: str, data: bytes | AsyncIterator[bytes]) -> None:
        """Whole or not at all, and durable when it returns.

        What an iterator raises comes through.
        """
        import obstore

        with self._told():
            store = await self._opened()
            if isinstance(data, bytes):
                parts = self.folder is None and len(data) > PART_BYTES
                put = obstore.put_async(store, key, data, use_multipart=parts, chunk_size=PART_BYTES, max_concurrency=4)
                await self._within(self._patience_s + len(data) / SLOWEST_BYTES_S, put)
            else:
                await self._put_pieces(store, key, data)
            if self.folder is not None:
                # obstore renames what it has written, and leaves the rest to the system.
                await asyncio.to_thread(self._sync, self.folder / key)

    async def get(self, key: str, start: int, end: int) -> AsyncGenerator[bytes, None]:
        """The bytes from `start` up to, not including, `end`, in pieces.  Raises NotFound before the first, and
        Corrupted where there are fewer.
        """
        import obstore

        with self._told():
            store = await self._opened()
            if end <= start:
                await self._within(self._patience_s, obstore.head_async(store, key))
                return
            found = await self._within(self._patience_s, obstore.get_async(store, key, options={"range": (start, end)}))
            pieces, left = found.stream(min_chunk_size=PIECE_BYTES), end - start
        while True:
            with self._told():
                piece = await self._within(self._patience_s, anext(pieces, b""))
            if not piece:
                break
            left -= len(piece)
            yield bytes(piece)
        if left:
            raise Corrupted("What is kept of this artifact is shorter than it was. Make it anew.")

    async def size(self, key: str) -> int | None:
        """In bytes; None: there is no such object."""
        import obstore

        try:
            with self._told():
                store = await self._opened()
                return int((await self._within(self._patience_s, obstore.head_async(store, key)))["size"])
        except NotFound:
            return None

    async def delete(self, key: str) -> None:
        """One that is not there is as good as deleted."""
        import obstore

        with suppress(NotFound), self._told(quiet=True):
            store = await self._opened()
            await self._within(self._patience_s, obstore.delete_async(store, key))

    async def list(self, prefix: str = "") -> AsyncGenerator[Stored, None]:
        """All objects, in any order; prefix: only those in this folder."""
        import obstore

        with self._told():
            pages = obstore.list(await self._opened(), prefix or None, chunk_size=PAGE)
        while True:
            with self._told():
                page = await self._within(self._patience_s, anext(aiter(pages), None))
            if page is None:
                return
            for one in page:
                yield Stored(one["path"], one["size"], one["last_modified"])

    def presigned(self, key: str, *, expires_s: float, mime: str, disposition: str) -> str | None:
        """A URL at which the store itself gives it to anybody for so long; None where the store cannot: a folder, and
        a bucket whose keys only the machine's role knows.
        """
        if self._bucket is None:
            return None
        headers = {"response-content-type": mime, "response-content-disposition": disposition}
        return self._bucket.presigned(key, headers, expires_s=expires_s, now=datetime.now(UTC))

    async def ready(self) -> str | None:
        """What keeps it from being used now, in a few words; None: nothing that is known of."""
        async with self._probing:
            now = time.monotonic()
            if self._standing is None or now - self._standing[0] >= STANDING_S:
                self._standing = now, await self._trouble()
            return self._standing[1]

    async def clear(self, before: float) -> int:
        """Remove what writes that were cut off before then (seconds since 1970) have left in a folder; how many."""
        return 0 if self.folder is None else await asyncio.to_thread(_clear, self.folder, before)

    async def _put_pieces(self, store: "LocalStore | S3Store", key: str, pieces: AsyncIterator[bytes]) -> None:
        """How long it takes is up to who brings them; each part has the patience of the store's own client."""
        import obstore

        failures: list[Exception] = []

        async def brought() -> AsyncGenerator[bytes, None]:
            try:
                async for piece in pieces:
                    yield piece
            except Exception as e:
                failures.append(e)
                raise

        try:
            await obstore.put_async(store, key, brought(), chunk_size=PART_BYTES, max_concurrency=4)
        except Exception as e:
            if failures:
                raise _Brought(failures[0]) from e
            raise

    async def _opened(self) -> "LocalStore | S3Store":
        if self._store is None:
            async with self._opening:
                if self._store is None:
                    self._store = await asyncio.to_thread(self._open)  # reads certificates
        return self._store

    def _open(self) -> "LocalStore | S3Store":
        from obstore.store import LocalStore, S3Store

        if self._bucket is None:
            assert self.folder is not None
            self.folder.mkdir(parents=True, exist_ok=True)
            return LocalStore(self.folder)
        limit = timedelta(seconds=self._patience_s)
        return S3Store(
            prefix=self._bucket.prefix or None,
            config=self._bucket.config(),  # type: ignore[arg-type]  # a TypedDict, of which these are keys
            client_options={
                "allow_http": self._bucket.allow_http,
                "connect_timeout": min(limit, timedelta(seconds=5)),
                "read_timeout": limit,
                # Of one whole transfer: a client may take long to fetch a large one.
                "timeout": timedelta(hours=1),
            },
            retry_config={"max_retries": 3, "retry_timeout": limit / 2},
        )

    async def _within(self, seconds: float, work: Awaitable[_T]) -> _T:
        async with asyncio.timeout(seconds):
            return await work

    async def _trouble(self) -> str | None:
        try:
            async with asyncio.timeout(PROBE_S):
                if self.folder is not None:
                    return await asyncio.to_thread(_folder_trouble, self.folder)
                async with aclosing(self.list(".ready")) as found:
                    await anext(found, None)
        except (GatewayError, OSError) as e:
            return "no such bucket" if getattr(e, "code", "") == _NO_BUCKET else "unavailable"
        return None

    @contextmanager
    def _told(self, *, quiet: bool = False) -> Iterator[None]:
        """Raises what a client may be told instead of what obstore raises.

        quiet: that it is not there is no news.
        """
        try:
            yield
        except GatewayError:
            raise
        except _Brought as e:
            raise e.failure from None
        except FileNotFoundError as e:
            if "NoSuchBucket" in str(e):
                raise _no_bucket(e) from e
            if self.folder is None or quiet or self.folder.is_dir():
                raise NotFound("The artifact's contents are gone.") from e
            raise _unreachable(e) from e
        except Exception as e:
            if not isinstance(e, (OSError, ValueError)) and not type(e).__module__.startswith("obstore"):
                raise
            raise _failure(e) from e

    def _sync(self, path: Path) -> None:
        """Make a file durable, and that it is there."""
        _fsync(path)
        _fsync(path.parent)
        for folder in path.parent.parents if path.parent not in self._known else ():
            _fsync(folder)
            if folder == self.folder:
                _fsync(folder.parent)
                break
        self._known.add(path.parent)


_NO_BUCKET = "artifact_bucket_missing"


class _Brought(Exception):
    """Whoever brings the bytes has failed, not the store."""

    def __init__(self, failure: Exception) -> None:
        super().__init__()
        self.failure = failure


def _no_bucket(e: Exception) -> Unreachable:
    logger().error("artifact_store_failed", reason="there is no such bucket", error=type(e).__name__)
    return Unreachable(
        "Artifacts cannot be kept: the bucket that artifacts.url names does not exist. Create it, or name another.",
        code=_NO_BUCKET,
    )


def _failure(e: Exception) -> GatewayError:
    text = str(e)
    if "NoSuchBucket" in text:
        return _no_bucket(e)
    found = _os_error(text)
    if is_full(OSError(int(found[1]), "") if found is not None else e):
        logger().error("disk_full", error=type(e).__name__)
        return InsufficientStorage(
            "The disk that artifacts are kept on is full. Make room on it, or delete artifacts that nobody needs."
        )
    return _unreachable(e)


def _unreachable(e: Exception) -> Unreachable:
    reason = str(e).partition("\n")[0][:300] or "it took too long"
    logger().error("artifact_store_failed", error=type(e).__name__, reason=reason)
    return Unreachable(
        "The store of artifacts cannot be used now. Try again; if it lasts, its administrator finds the cause in the "
        "log, and GET /ready tells when it is back.",
        code="artifact_store_unavailable",
    )


def _fsync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _folder_trouble(folder: Path) -> str | None:
    there = next(one for one in (folder, *folder.parents) if one.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        return "not writable"
    return "full" if shutil.disk_usage(there).free < FREE_MIN_BYTES else None


def _clear(root: Path, before: float) -> int:
    gone = 0
    with suppress(FileNotFoundError):
        for folder in (root, *(one for one in root.iterdir() if one.is_dir() and not one.is_symlink())):
            for path in folder.iterdir():
                with suppress(OSError):
                    if _staged(path.name) and path.lstat().st_mtime < before:
                        path.unlink()
                        gone += 1
    return gone

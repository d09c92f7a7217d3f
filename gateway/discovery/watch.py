"""Looks for local models again when anything changes where they lie.

A change is acted on when all has been quiet for a moment and no file that changed is still being written, but not later
than a few seconds after the first: a copy that takes long is no reason to keep what else is there waiting, and what is
not whole yet is not served.  Where the system cannot tell of changes, the folders are looked at from time to time.
"""

import asyncio
import os
import stat
import time
from collections.abc import AsyncGenerator, Collection, Iterable, Mapping
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from gateway.discovery.problem import is_young
from gateway.registry import places
from gateway.settings import Config, ConfigError
from gateway.telemetry.logging import logger

if TYPE_CHECKING:
    from gateway.house import House

QUIET_S = 1.0
"""How long nothing must have changed."""
LATE_S = 6.0
"""How long after a change it is acted on at the latest."""
POLL_S = 10.0
"""Between two looks at folders that cannot be watched."""
_TICK_S = 0.5
_PASSING = (
    ".part",
    ".part.json",
    ".incomplete",
    ".lock",
    ".tmp",
    ".crdownload",
    ".aria2",
    ".db",
    ".db-wal",
    ".db-shm",
    ".log",
    "-journal",
    "headers.json",
)
"""What files end with that are no model's, or not yet."""
_REMOTE = ("nfs", "cifs", "smb", "9p", "fuse", "ceph", "gluster", "lustre", "afs", "vboxsf", "prl_fs", "virtiofs")
"""File systems that others write to without this machine being told."""

_Stamps = Mapping[str, tuple[int, int, int]]
"""Files, with what changes when they do."""


def folders(config: Config) -> frozenset[Path]:
    """Where models of this configuration lie that are to be watched."""
    found: set[Path] = set()
    for name, entry in config.backends.items():
        if entry.kind == "local" and entry.settings.watch:
            found |= {*places.folders(config, name), *places.adopted(config, name)}
    return frozenset(found)


async def watch(house: "House", *, poll_s: float = POLL_S) -> None:
    """Have the house renew itself whenever models come, go or change, until cancelled."""
    while True:
        wanted = _wanted(house)
        there = await asyncio.to_thread(_there, wanted)
        if there:
            # What changed before anybody watched.
            await _renew(house)
        pending = await asyncio.to_thread(_growing, await asyncio.to_thread(_stamps, there))
        first = last = time.monotonic()
        async with aclosing(_changes(there, poll_s)) as changes:
            async for paths in changes:
                now = time.monotonic()
                if paths:
                    first, last = (first if pending else now), now
                    pending |= paths
                if pending and now - last >= QUIET_S:
                    growing = await asyncio.to_thread(_growing, pending)
                    if not growing or now - first >= LATE_S:
                        await _renew(house)
                        pending, first, last = growing, now, now
                if _wanted(house) != wanted or await asyncio.to_thread(_there, wanted) != there:
                    break


async def _renew(house: "House") -> None:
    try:
        await house.renew(look=True)
    except Exception as e:  # a watch that ended here would never be missed
        logger().error("models_not_renewed", reason=str(e) if isinstance(e, ConfigError) else type(e).__name__)


def _wanted(house: "House") -> frozenset[Path]:
    return folders(house.estate.config)


def _there(wanted: Iterable[Path]) -> frozenset[Path]:
    return frozenset(path.resolve() for path in wanted if path.is_dir())


def _growing(paths: Iterable[str]) -> set[str]:
    """Those that may still be written to."""
    found = set()
    for path in paths:
        try:
            status = os.stat(path)
            if is_young(status) and not stat.S_ISDIR(status.st_mode):
                found.add(path)
        except OSError:
            continue
    return found


async def _changes(there: frozenset[Path], poll_s: float) -> AsyncGenerator[set[str], None]:
    """The paths that changed, every half a second; mostly none."""
    local = [path for path in there if not await asyncio.to_thread(_is_remote, path)]
    polled = [path for path in there if path not in local]
    if local:
        try:
            async with aclosing(_told(local, polled, poll_s)) as told:
                async for paths in told:
                    yield paths
        except Exception as e:  # the library raises errors of its own, and of many kinds
            cure = "raise fs.inotify.max_user_watches for changes to be seen at once"
            logger().warning("models_polled", every_s=poll_s, error=type(e).__name__, reason=str(e), cure=cure)
    async with aclosing(_looked(list(there), poll_s)) as looked:
        async for paths in looked:
            yield paths


async def _told(local: Collection[Path], polled: Collection[Path], poll_s: float) -> AsyncGenerator[set[str], None]:
    """As the system tells of them, and of those folders where it does not, as they are found.  Ends if it cannot."""
    watchfiles = await asyncio.to_thread(__import__, "watchfiles")  # which takes its time to import
    before = await asyncio.to_thread(_stamps, polled)
    due = time.monotonic() + poll_s
    told = watchfiles.awatch(
        *local,
        watch_filter=lambda _, path: _matters(path),
        debounce=200,
        step=100,
        rust_timeout=int(_TICK_S * 1000),
        yield_on_timeout=True,
        ignore_permission_denied=True,
    )
    async with aclosing(told):
        async for changes in told:
            paths = {path for _, path in changes}
            if polled and time.monotonic() >= due:
                after = await asyncio.to_thread(_stamps, polled)
                paths |= _differing(before, after)
                before, due = after, time.monotonic() + poll_s
            yield paths


async def _looked(there: Collection[Path], poll_s: float) -> AsyncGenerator[set[str], None]:
    """As they are found."""
    before = await asyncio.to_thread(_stamps, there)
    due = time.monotonic() + poll_s
    while True:
        await asyncio.sleep(_TICK_S)
        if not there or time.monotonic() < due:
            yield set()
            continue
        after = await asyncio.to_thread(_stamps, there)
        yield _differing(before, after)
        before, due = after, time.monotonic() + poll_s


def _differing(before: _Stamps, after: _Stamps) -> set[str]:
    return {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}


def _stamps(roots: Iterable[Path]) -> _Stamps:
    found = {}
    for root in roots:
        for folder, _, names in os.walk(root):
            for path in (os.path.join(folder, name) for name in names):
                if not _matters(path):
                    continue
                try:
                    status = os.stat(path)
                except OSError:
                    continue
                found[path] = (status.st_size, status.st_mtime_ns, status.st_ino)
    return found


def _matters(path: str) -> bool:
    return not path.lower().endswith(_PASSING)


def _is_remote(path: Path) -> bool:
    mounts = [one for one in psutil.disk_partitions(all=True) if path.is_relative_to(one.mountpoint)]
    kind = max(mounts, key=lambda one: len(one.mountpoint)).fstype if mounts else ""
    return kind.lower().startswith(_REMOTE)

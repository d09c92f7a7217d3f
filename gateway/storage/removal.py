"""Removes files so that nothing serves what is not there, and nothing is left behind, whenever the process dies.

What goes is written down, taken out of the registry and out of service, and only then deleted; what was written down
and not deleted is at the next start.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec.structs import replace

from gateway.db.engine import is_full
from gateway.registry.entries import Entries
from gateway.registry.entry import Entry
from gateway.storage import disk
from gateway.storage.occupancy import occupied
from gateway.storage.retention import Kind, Removal
from gateway.telemetry.logging import logger

if TYPE_CHECKING:
    from gateway.house import House


class Remover:
    def __init__(self, house: "House", entries: Entries) -> None:
        self._house = house
        self._entries = entries
        self.counts: Counter[Kind] = Counter()
        """What was removed since the start."""

    async def remove(self, root: Path, removals: Sequence[Removal]) -> list[Removal]:
        """Those that were removed: a model that has come into use meanwhile stays, with all its versions."""
        estate = self._house.estate
        going = [one for one in removals if one.thing.model is None or not occupied(estate, one.thing.model)]
        if not going:
            return []
        journal = await asyncio.to_thread(disk.write_down, root, _files(going))
        try:
            before = await self._withdraw(going)
        except Exception as e:
            if not is_full(e):
                raise
            # On a disk that is full to the last byte nothing can be written before something has gone.
            await asyncio.to_thread(disk.unlink, root, _files(going))
            before = await self._withdraw(going)
        # Who asked for one before it was out of service may have it by now.
        wanted = {entry.id for entry in before if occupied(estate, entry.id) or occupied(self._house.estate, entry.id)}
        if wanted:
            for entry in before:
                if entry.id in wanted:
                    await self._entries.change(entry.id, partial(_restored, was=entry))
            await self._house.renew()
            going = [one for one in going if one.thing.model not in wanted]
        failed = set(await asyncio.to_thread(disk.unlink, root, _files(going)))
        if journal is not None and not failed:
            await asyncio.to_thread(disk.strike, journal)
        done = [one for one in going if not failed.intersection(path for path, _ in one.thing.files)]
        for n, one in enumerate(done):
            if n % 20 == 19:
                await asyncio.sleep(0)
            self.counts[one.thing.kind] += 1
            logger().info(
                "storage_removed",
                kind=one.thing.kind,
                path=one.thing.path,
                model=one.thing.model,
                size_bytes=one.size_bytes,
                reason=one.reason,
            )
        if failed:
            logger().error("storage_not_removed", files=sorted(failed)[:20])
        return done

    async def finish(self, root: Path, kept: Collection[str]) -> None:
        """End what was begun and not ended.

        kept: the files that are somebody's, or are being fetched: the removal was not begun, or is not wanted any more.
        """
        for journal in await asyncio.to_thread(disk.unfinished, root):
            files = [path for path in journal.files if path not in kept]
            if not await asyncio.to_thread(disk.unlink, root, files):
                await asyncio.to_thread(disk.strike, journal)
            logger().info("storage_removal_finished", files=len(files))

    async def _withdraw(self, going: Iterable[Removal]) -> list[Entry]:
        """Have the registry know that these are not here any more; the entries as they were."""
        commits: dict[str, dict[str | None, str]] = {}
        for one in going:
            if one.thing.model is not None and one.thing.kind != "partial":
                commits.setdefault(one.thing.model, {})[one.thing.commit] = one.reason
        before = []
        for id_, gone in commits.items():
            entry = self._entries.get(id_)
            if entry is not None:
                await self._entries.change(id_, partial(_without, gone=gone))
                before.append(entry)
        if before:
            await self._house.renew()
        return before


def _files(removals: Iterable[Removal]) -> list[str]:
    return list(dict.fromkeys(path for one in removals for path, _ in one.thing.files))


def _without(entry: Entry, gone: dict[str | None, str]) -> Entry:
    """The entry when these of its versions, by commit, are gone for these reasons."""
    left = tuple(version for version in entry.versions if version.commit not in gone)
    served = next((version for version in entry.versions if version.path == entry.path), None)
    if served is None or served.commit not in gone:
        return replace(entry, versions=left, updated_at=time.time())
    return replace(
        entry,
        versions=left,
        path=None,
        projector=None,
        status="registered",
        reason=f"Its files were removed: {gone[served.commit]}.",
        updated_at=time.time(),
    )


def _restored(now: Entry, was: Entry) -> Entry:
    """The entry with the files that it had."""
    fields = ("versions", "path", "projector", "status", "reason")
    return replace(now, **{name: getattr(was, name) for name in fields})

"""What is registered, in memory and written through: laid over what is found, it is what backends serve."""

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from msgspec.structs import replace

from gateway.discovery.problem import Problem
from gateway.registry.entry import Entry
from gateway.registry.laying import Found, Own, laid
from gateway.registry.learning import learned
from gateway.telemetry.logging import logger

if TYPE_CHECKING:
    from gateway.db.audit import Act

__all__ = ["Entries", "Found", "Rows"]

WRITE_S = 30.0
"""How often it is written down when models were used."""


class Rows(Protocol):
    async def all(self) -> list[Entry]: ...
    async def put(self, entries: Iterable[Entry], act: "Act | None" = None) -> None: ...
    async def remove(self, ids: Iterable[str], act: "Act | None" = None) -> None: ...
    async def used(self, times: Mapping[str, float]) -> None: ...


class Entries:
    """Lives as long as the process.  Before `open` nothing is registered; every change is durable when it returns."""

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}
        self._rows: Rows | None = None
        self._changing = asyncio.Lock()
        self._changed: dict[str, int] = {}
        """The edition in which an entry became what it is."""
        self._looked: int | None = None
        """The edition that was last laid over what is found; None: none yet."""
        self._unwritten: dict[str, float] = {}
        self._done: dict[str, float] = {}
        self._laid: frozenset[str] = frozenset()
        """The ids of those that were there to be served at the last look."""
        self.edition = 0
        """Counts the changes."""
        self.discovered: frozenset[str] = frozenset()
        """The ids of those that discovery itself found at the last look, hidden ones included."""

    async def open(self, rows: Rows) -> None:
        """Read what is registered, and write there from now on."""
        self._rows = rows
        self._entries = {entry.id: entry for entry in await rows.all()}
        self.edition += 1

    def all(self) -> list[Entry]:
        return list(self._entries.values())

    @property
    def by_id(self) -> Mapping[str, Entry]:
        """The same by id, as it changes."""
        return self._entries

    def coming(self) -> frozenset[str]:
        """The ids of those that were there when files were last looked for, or became what they are since then."""
        looked = self._looked
        late = () if looked is None else (id_ for id_, n in self._changed.items() if n > looked)
        return self._laid.union(late)

    def get(self, id_: str) -> Entry | None:
        return self._entries.get(id_)

    async def written(self) -> list[Entry]:
        """What the database has: other processes on it may have registered more than is known here."""
        return [] if self._rows is None else list(await self._rows.all())

    async def put(self, *entries: Entry, act: "Act | None" = None) -> None:
        """Register these, in place of what there was of them: all or none.

        act: written down with it, in one transaction.
        """
        async with self._changing:
            await self._put(entries, act)

    async def change(self, id_: str, edit: Callable[[Entry], Entry], act: "Act | None" = None) -> Entry:
        """Change an entry, whatever others change of it meanwhile; the new one.  Raises KeyError."""
        async with self._changing:
            entry = edit(self._entries[id_])
            if entry != self._entries[id_]:
                await self._put([entry], act)
            return self._entries[id_]

    async def remove(self, *ids: str, act: "Act | None" = None) -> None:
        async with self._changing:
            await self._remove(ids, act)

    async def learn(self, found: Found) -> None:
        """Register what was found and is not yet, bring up to date what nobody has said otherwise of, and mark as
        missing what was there and is not any more.

        found: as `laid_over` answered it.  What was changed since then is left as it is: whoever changes something
        has it looked for again.
        """
        async with self._changing:
            looked = self.edition if self._looked is None else self._looked
            settled = {id_: one for id_, one in self._entries.items() if self._changed.get(id_, 0) <= looked}
            late = self._entries.keys() - settled.keys()
            discovered = None if self._looked is None else self.discovered
            news, gone = await asyncio.to_thread(learned, settled, found, time.time(), discovered)
            news = [entry for entry in news if entry.id not in late]
            if news:
                await self._put(news)
            if gone:
                await self._remove(gone)

    def laid_over(
        self,
        found: Found,
        settings: Mapping[str, Mapping[str, Own]] | None = None,
        problems: list[Problem] | None = None,
        inside: Mapping[str, Sequence[Path]] | None = None,
    ) -> Found:
        """What is to be served: the found ones as they are registered, the registered ones found elsewhere, and none
        that is hidden.  Reads files; runs in a thread.

        settings: what the configuration says of models, by backend and name; that goes before what is registered.
        inside: per backend the folders that models named by their path may lie in; None: anywhere.
        """
        edition, entries = self.edition, dict(self._entries)
        out = laid(found, entries, settings or {}, problems, inside)
        self._looked = edition
        self._laid = frozenset(one.model.id for models in out.values() for one in models.values())
        self.discovered = frozenset(one.model.id for models in found.values() for one in models.values())
        return out

    def used(self, id_: str, at: float) -> None:
        """A model has answered, at this time of the clock."""
        entry = self._entries.get(id_)
        # To the second is enough: every answer passes here.
        if entry is not None and at - (entry.last_used_at or 0.0) >= 1.0:
            self._entries[id_] = replace(entry, last_used_at=at)
            self._unwritten[id_] = at

    def progressed(self, id_: str, share: float | None) -> None:
        """How far a model's download is, 0 to 1, for those who ask for it meanwhile; None: it is over."""
        if share is None:
            self._done.pop(id_, None)
        else:
            self._done[id_] = share

    def progress(self, id_: str) -> float | None:
        return self._done.get(id_)

    async def write_to(self, rows: Rows) -> None:
        """Keep when models were used, every few seconds, until cancelled; the last of it before it returns."""
        try:
            while True:
                await asyncio.sleep(WRITE_S)
                await self._write(rows)
        finally:
            await self._write(rows)

    async def _write(self, rows: Rows) -> None:
        times, self._unwritten = self._unwritten, {}
        try:
            await rows.used(times)
        except Exception as e:
            self._unwritten = times | self._unwritten
            logger().error("model_uses_write_failed", error=type(e).__name__, rows=len(times))

    async def _put(self, entries: Iterable[Entry], act: "Act | None" = None) -> None:
        assert self._rows is not None, "the database is not open"
        entries = list(entries)
        await self._rows.put(entries, act)
        self.edition += 1
        for entry in entries:
            known = self._entries.get(entry.id)
            # An answer may have come while it was written.
            if known is not None and (known.last_used_at or 0.0) > (entry.last_used_at or 0.0):
                entry = replace(entry, last_used_at=known.last_used_at)
                self._unwritten.setdefault(entry.id, known.last_used_at or 0.0)
            self._entries[entry.id] = entry
            self._changed[entry.id] = self.edition

    async def _remove(self, ids: Iterable[str], act: "Act | None" = None) -> None:
        assert self._rows is not None, "the database is not open"
        ids = list(ids)
        await self._rows.remove(ids, act)
        self.edition += 1
        for id_ in ids:
            for known in (self._entries, self._changed, self._unwritten, self._done):
                known.pop(id_, None)

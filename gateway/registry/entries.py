"""What is registered, in memory and written through: laid over what is found, it is what backends serve."""

from collections.abc import Iterable, Mapping
from typing import Protocol

from backends.ports import Local
from gateway.registry.entry import Entry

Found = Mapping[str, Mapping[str, Local]]
"""Per local backend, its models by name."""


class Rows(Protocol):
    async def all(self) -> list[Entry]: ...
    async def put(self, entries: Iterable[Entry]) -> None: ...
    async def remove(self, ids: Iterable[str]) -> None: ...
    async def used(self, times: Mapping[str, float]) -> None: ...


class Entries:
    """Lives as long as the process.  Before `open` nothing is registered; every change is durable when it returns."""

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}
        self._rows: Rows | None = None

    async def open(self, rows: Rows) -> None:
        """Read what is registered, and write there from now on."""
        self._rows = rows
        self._entries = {entry.id: entry for entry in await rows.all()}

    def all(self) -> list[Entry]:
        return list(self._entries.values())

    def get(self, id_: str) -> Entry | None:
        return self._entries.get(id_)

    async def put(self, *entries: Entry) -> None:
        """Register these, in place of what there was of them."""
        assert self._rows is not None, "the database is not open"
        await self._rows.put(entries)
        self._entries |= {entry.id: entry for entry in entries}

    async def remove(self, *ids: str) -> None:
        assert self._rows is not None, "the database is not open"
        await self._rows.remove(ids)
        for id_ in ids:
            self._entries.pop(id_, None)

    async def learn(self, found: Found) -> None:
        """Register what was found and is not yet, bring up to date what nobody has said otherwise of, and mark as
        missing what was there and is not any more."""

    def laid_over(self, found: Found) -> Found:
        """What is to be served: the found ones as they are registered, the registered ones found elsewhere, and none
        that is hidden.  Reads files; runs in a thread."""
        return found

    def used(self, id_: str, at: float) -> None:
        """A model has answered, at this time of the clock."""

    async def write_to(self, rows: Rows) -> None:
        """Keep when models were used, every few seconds, until cancelled; the last of it before it returns."""

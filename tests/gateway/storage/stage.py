"""Storage over a real folder and real entries, in a house of which only what it asks is there."""

import asyncio
import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from gateway.config import load
from gateway.db.audit import Act
from gateway.house import House
from gateway.jobs.job import Job, JobStatus, Progress
from gateway.keeping import Storage as Settings
from gateway.registry.entries import Entries
from gateway.registry.entry import Entry, Source, Version
from gateway.storage import Storage

DAY_S = 86_400.0
MIB = 1 << 20


class Rows:
    """The database's rows, in memory: outlives the stages on it."""

    def __init__(self) -> None:
        self.kept: dict[str, Entry] = {}
        self.failure: Exception | None = None

    async def all(self) -> list[Entry]:
        return list(self.kept.values())

    async def put(self, entries: Iterable[Entry], act: Act | None = None) -> None:
        if self.failure is not None:
            raise self.failure
        self.kept |= {entry.id: entry for entry in entries}

    async def remove(self, ids: Iterable[str], act: Act | None = None) -> None:
        for id_ in ids:
            self.kept.pop(id_, None)

    async def used(self, times: Mapping[str, float]) -> None: ...


class Pool:
    """A backend whose models stand as they are told to: a `Loads`."""

    def __init__(self) -> None:
        self.status: dict[str, str] = {}

    def standing(self, model: str) -> dict[str, Any]:
        return {"status": self.status.get(model, "unloaded"), "running": 0, "waiting": 0}

    async def load(self, *_: Any) -> None: ...
    async def unload(self, *_: Any, **__: Any) -> None: ...
    def lacks(self, _: str) -> None: ...
    def counts(self) -> dict[str, float]:
        return {}

    def warm(self) -> None: ...


class Stage:
    """One process's storage; several on one folder are several gateways."""

    def __init__(self, folder: Path, rows: Rows | None = None, **settings: Any) -> None:
        settings = {"min_free_bytes": 0} | settings
        config = load(None, {"PLUGGABLY__DATA_DIR": str(folder)})
        self.rows = Rows() if rows is None else rows
        self.pool = Pool()
        self.jobs: list[Job] = []
        self.renewed = 0
        self.entries = Entries()
        self._config = config
        estate = SimpleNamespace(config=self._with(settings), backends={"local": self.pool})
        self.house = SimpleNamespace(estate=estate, renew=self._renew)
        self.storage = Storage(cast(House, self.house), self.entries)
        self.storage.unfinished = self._unfinished
        self.root = self.storage.root

    async def open(self) -> "Stage":
        await self.entries.open(self.rows)
        return self

    def _with(self, settings: Mapping[str, Any]) -> Any:
        from msgspec.structs import replace

        return replace(self._config, storage=Settings(**settings))

    async def _renew(self) -> None:
        self.renewed += 1
        await asyncio.sleep(0)

    async def _unfinished(self) -> list[Job]:
        return self.jobs

    def file(self, path: str, size: int, age_s: float = 0.0) -> Path:
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(b"x" * size)
        # When a file came to be where it is cannot be set: what is aged is aged by its readers' clocks.
        os.utime(target, (time.time() - age_s,) * 2)
        return target

    async def model(
        self,
        name: str,
        size: int,
        *,
        used_days: float | None = None,
        added_days: float = 30.0,
        commits: tuple[str, ...] = ("c1",),
        **fields: Any,
    ) -> Entry:
        """A downloaded model: of each commit one file of that size, the first one served."""
        now = time.time()
        versions = []
        for n, commit in enumerate(commits):
            path = str(self.file(f"org--{name}/{commit}/{name}.gguf", size))
            added = now - (added_days + n) * DAY_S
            versions.append(Version(commit=commit, path=path, files=(path,), size_bytes=size, added_at=added))
        entry = Entry(
            backend="local",
            name=name,
            **{
                "status": "ready",
                "source": Source(kind="huggingface", repo=f"org/{name}", commit=commits[0], files=(f"{name}.gguf",)),
                "path": versions[0].path,
                "versions": tuple(versions),
                "size_bytes": size,
                "created_at": now - added_days * DAY_S,
                "updated_at": now,
                "last_used_at": None if used_days is None else now - used_days * DAY_S,
                **fields,
            },
        )
        await self.entries.put(entry)
        return entry

    def left(self) -> set[str]:
        """The files that are there, but for our own."""
        found = (path for path in self.root.rglob("*") if not path.is_dir())
        return {str(path.relative_to(self.root)) for path in found if path.relative_to(self.root).parts[0][0] != "."}


def job(id_: str, repo: str, target: str | None = None, status: JobStatus = "running", **progress: Any) -> Job:
    now = time.time()
    return Job(
        id=id_,
        kind="download",
        tenant="default",
        owner="local",
        status=status,
        target=target,
        spec={"repo": repo, "commit": "c1"},
        progress=Progress(**progress),
        created_at=now,
        updated_at=now,
    )

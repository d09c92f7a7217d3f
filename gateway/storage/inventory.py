"""What the files in the folder of models are: of which model, of which download, or nobody's."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from os.path import commonpath, normpath
from pathlib import Path
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from gateway.jobs.job import Job
from gateway.registry.entry import UNDER_WAY, Entry, Version
from gateway.storage.disk import File
from gateway.storage.retention import Kind, Room, Thing

GROWING = (".part", ".part.json", ".part.linked")
"""How the names of unfinished files end."""


class Inventory(Struct, frozen=True, kw_only=True):
    things: tuple[Thing, ...]
    used_bytes: int
    """By all files."""


class View(Struct, frozen=True, kw_only=True):
    """The folder at one moment."""

    root: Path
    inventory: Inventory
    jobs: tuple[Job, ...]
    """Those that are not over."""
    used: frozenset[str]
    """The models that are in use."""
    rests: dict[str, int]
    """What is still to come, by who was promised it."""
    free_bytes: int
    disk_bytes: int

    def room(self, but: str = "") -> Room:
        """but: whose promise does not count."""
        reserved = sum(size for holder, size in self.rests.items() if holder != but)
        return Room(used_bytes=self.inventory.used_bytes, reserved_bytes=reserved, free_bytes=self.free_bytes)


def take(
    root: Path,
    files: Mapping[str, File],
    entries: Iterable[Entry],
    jobs: Collection[Job],
    pins: Collection[str],
    in_use: Callable[[str], bool],
    foreign: Iterable[Entry] = (),
) -> Inventory:
    """Everything that lies there, each file in one thing or in those of several models that share it.

    pins: as `storage.pin` has them.  foreign: what other processes have registered: theirs to remove.
    """
    targets = {job.target for job in jobs if job.target is not None}
    bases = {str(root.absolute()), str(root.resolve())}
    things: list[Thing] = []
    for entry in entries:
        kept = _protection(entry, targets, pins, in_use)
        things += _of_model(bases, files, entry, kept)
    for entry in foreign:
        things += _of_model(bases, files, entry, "registered by another gateway")
    registered = {path for thing in things for path, _ in thing.files}
    left = {path: file for path, file in files.items() if path not in registered}
    things += _unregistered(left, {folder: job for job in jobs for folder in folders(job)})
    shadows = _shadows(files, things)
    things = [
        replace(thing, files=tuple((path, 0 if path in shadows else size) for path, size in thing.files))
        for thing in things
    ]
    used = sum(file.size_bytes for path, file in files.items() if path not in shadows)
    return Inventory(things=tuple(things), used_bytes=used)


def pinned(entry: Entry, pins: Iterable[str]) -> bool:
    return entry.pinned or any(fnmatchcase(name, pin) for pin in pins for name in (entry.id, entry.name))


def folders(job: Job) -> set[str]:
    """The folders of the repositories that a job is about, whatever its spec calls them."""
    return {text.replace("/", "--") for text in _texts(job.spec) if text.count("/") <= 1}


def versions(entry: Entry) -> Iterator[tuple[Version, bool]]:
    """What an entry has on the disk, the newest first, and whether it is what is served."""
    yield from ((version, version.path == entry.path) for version in entry.versions)


def _within(bases: Collection[str], path: str) -> str | None:
    """A path relative to the folder, by the names it has; None: it lies elsewhere."""
    for base in bases:
        if (plain := normpath(path)).startswith(f"{base}/"):
            return plain[len(base) + 1 :]
    return None


def _protection(
    entry: Entry, targets: Collection[str], pins: Collection[str], in_use: Callable[[str], bool]
) -> str | None:
    if pinned(entry, pins):
        return "pinned"
    if entry.status in UNDER_WAY or entry.id in targets:
        return "being downloaded"
    if in_use(entry.id):
        return "in use"
    if entry.source is None or entry.source.kind != "huggingface" or entry.source.repo is None:
        return "could not be downloaded again"
    return None


def _of_model(bases: Collection[str], files: Mapping[str, File], entry: Entry, kept: str | None) -> Iterator[Thing]:
    succeeded_at = 0.0
    for version, served in versions(entry):
        paths = _paths(version)
        named = {inside for path in paths if (inside := _within(bases, path)) is not None}
        whole = _there(files, named)
        since, succeeded_at = succeeded_at, version.added_at
        if not whole:
            continue
        kind: Kind = "model" if served else "version"
        sizes = tuple((path, files[path].size_bytes) for path in sorted(whole))
        # Only what is shorter is broken beyond doubt: more may be files that were not counted.
        if len(named) == len(paths) and sum(size for _, size in sizes) < version.size_bytes:
            kind = "truncated"
        used_at = max(version.added_at, (entry.last_used_at or 0.0) if served else since)
        yield Thing(
            kind=kind,
            path=_shown(whole),
            files=sizes,
            used_at=used_at,
            last_used_at=entry.last_used_at,
            model=entry.id,
            commit=version.commit,
            kept=kept,
        )
    if entry.path is not None and all(version.path != entry.path for version in entry.versions):
        yield from _of_found(bases, files, entry, entry.path, kept)


def _of_found(
    bases: Collection[str], files: Mapping[str, File], entry: Entry, path: str, kept: str | None
) -> Iterator[Thing]:
    """What was found in the folder and is served, without having been downloaded: its other parts lie beside it."""
    inside = _within(bases, path)
    if inside is None:
        return
    beside, _, _ = inside.rpartition("/")
    whole = _there(files, {inside} | ({beside} if beside.count("/") else set()))
    if whole:
        yield Thing(
            kind="model",
            path=inside,
            files=tuple((one, files[one].size_bytes) for one in sorted(whole)),
            used_at=max(entry.created_at, entry.last_used_at or 0.0),
            last_used_at=entry.last_used_at,
            model=entry.id,
            kept=kept or "was not downloaded",
        )


def _there(files: Mapping[str, File], named: set[str]) -> set[str]:
    """Of these files and folders, the files that are there."""
    found = {path for path in named if path in files}
    for folder in named - found:
        found |= {path for path in files if path.startswith(f"{folder}/")}
    return found


def _shadows(files: Mapping[str, File], things: Iterable[Thing]) -> set[str]:
    """Further names of files that have been counted: of versions that share one, the one that is served has it."""
    if not any(file.inode for file in files.values()):
        return set()
    served = {path for thing in things if thing.kind == "model" for path, _ in thing.files}
    first: dict[int, str] = {}
    for path in sorted(files, key=lambda one: (one not in served, one)):
        if inode := files[path].inode:
            first.setdefault(inode, path)
    return {path for path, file in files.items() if file.inode and first[file.inode] != path}


def _paths(version: Version) -> set[str]:
    return {version.path, *version.files, *(() if version.projector is None else (version.projector,))}


def _unregistered(left: Mapping[str, File], working: Mapping[str, Job]) -> Iterator[Thing]:
    beside: dict[str, dict[str, File]] = {}
    for path, file in left.items():
        beside.setdefault("/".join(path.split("/")[:2]) if path.count("/") > 1 else path, {})[path] = file
    for files in beside.values():
        job = working.get(next(iter(files)).partition("/")[0])
        growing = job is not None or any(path.endswith(GROWING) for path in files)
        # What was fetched whole of a download that is not over goes with what was not.
        for group in [files] if growing else [{path: file} for path, file in files.items()]:
            yield Thing(
                kind="partial" if growing else "orphan",
                path=_shown(group),
                files=tuple((path, group[path].size_bytes) for path in sorted(group)),
                used_at=max(file.changed_at for file in group.values()),
                model=None if job is None else job.target,
                job=None if job is None else job.id,
                kept=None if job is None else "its download is not over",
            )


def _shown(paths: Collection[str]) -> str:
    return commonpath(paths) if len(paths) > 1 else next(iter(paths))


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for one in value.values():
            yield from _texts(one)
    elif isinstance(value, (list, tuple)):
        for one in value:
            yield from _texts(one)

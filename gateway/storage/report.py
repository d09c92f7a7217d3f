"""What is told of the folder of models, and of what was removed from it."""

from datetime import datetime
from typing import Literal

from msgspec import Struct

from gateway.storage.retention import Kind


class StoredVersion(Struct, frozen=True, kw_only=True):
    commit: str
    size_bytes: int
    files: int
    added_at: datetime
    served: bool
    """The others are there to go back to."""
    truncated: bool
    """Its files are shorter than they were, or some are gone."""


class StoredModel(Struct, frozen=True, kw_only=True):
    """A model that has files in the folder of downloaded ones."""

    id: str
    size_bytes: int
    """Of all its versions here."""
    files: int
    last_used_at: datetime | None = None
    """null: never since it is registered."""
    pinned: bool
    in_use: bool
    """In memory, on its way there, or waited for."""
    status: str
    """`here` when it is whole on the disk; else registered, downloading, verifying, failed or missing."""
    protected: str | None = None
    """Why it is never removed by itself as things stand; null: it may be."""
    versions: list[StoredVersion]


class StoredPartial(Struct, frozen=True, kw_only=True):
    """What is here of a download that is not finished."""

    path: str
    size_bytes: int
    model: str | None = None
    job: str | None = None
    """The one that goes on with it, where the caller may see it; null: nobody does, unless it is begun again."""
    written_at: datetime


class StoredOrphan(Struct, frozen=True, kw_only=True):
    """A file that no model and no download has."""

    path: str
    size_bytes: int
    written_at: datetime


class StoredProblem(Struct, frozen=True, kw_only=True):
    """A file in a folder of models that cannot be served."""

    backend: str
    path: str
    """Relative to its folder."""
    kind: str
    reason: str
    size_bytes: int


class StorageReport(Struct, frozen=True, kw_only=True):
    """What downloaded models take of the disk, and what they may.  Paths are relative to `root`."""

    object: Literal["storage"] = "storage"
    root: str | None = None
    """Where they lie, for whoever has the scope `admin`; null for others."""
    models_bytes: int
    """Of what is registered."""
    partials_bytes: int
    orphans_bytes: int
    limit_bytes: int | None = None
    """What all of it together may take; null is as much as there is."""
    reserved_bytes: int
    """Still to come of downloads that have been promised room."""
    free_bytes: int
    """On the disk."""
    min_free_bytes: int
    """Of these, what no download may take."""
    disk_bytes: int
    """How large the disk is."""
    keep: str
    """all or lru: whether a download makes models go that were not used for longest."""
    models: list[StoredModel]
    partials: list[StoredPartial]
    orphans: list[StoredOrphan]
    problems: list[StoredProblem] = []


class Removed(Struct, frozen=True, kw_only=True):
    """What went, or would go, and why."""

    path: str
    model: str | None = None
    kind: Kind
    size_bytes: int
    """What comes free by it."""
    reason: str
    last_used_at: datetime | None = None


class CleanupReport(Struct, frozen=True, kw_only=True):
    object: Literal["storage.cleanup"] = "storage.cleanup"
    dry_run: bool
    """Nothing was removed: this is what would be."""
    removed: list[Removed]
    total_bytes: int
    missing_bytes: int
    """What is over the limit still, because all that is left is protected or the policy keeps it."""


def told(size_bytes: int) -> str:
    """An amount for people."""
    size = float(size_bytes)
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"

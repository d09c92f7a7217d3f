"""What is registered of a model: as it is kept in the database, and as an operator may change it."""

from typing import Any, Literal

from msgspec import Struct

from backends.ports import Format
from compat.canonical.model import Modality

Status = Literal["registered", "downloading", "verifying", "ready", "failed", "missing"]
"""registered: its source is known, its files are not here; missing: they were here and are not any more."""
UNDER_WAY: frozenset[Status] = frozenset({"downloading", "verifying"})
"""While it is being brought here."""
SourceKind = Literal["huggingface", "file", "ollama", "lmstudio", "shipped", "provider"]


class Source(Struct, frozen=True, kw_only=True):
    """Whence a model is."""

    kind: SourceKind
    repo: str | None = None
    """ORG/NAME on the hub."""
    revision: str | None = None
    """The branch or tag that was asked for, whose newer commits are updates."""
    commit: str | None = None
    files: tuple[str, ...] = ()
    """Paths inside the repository, of all that the model needs."""


class Version(Struct, frozen=True, kw_only=True):
    """One state of a model's files that is on the disk."""

    commit: str
    path: str
    """What the engine opens: absolute."""
    files: tuple[str, ...] = ()
    """All of its files, absolute."""
    size_bytes: int
    added_at: float
    """Seconds since 1970, UTC."""
    projector: str | None = None


class Entry(Struct, frozen=True, kw_only=True):
    """A registered model; None is not known.  Times are in seconds since 1970, UTC."""

    backend: str
    name: str
    """The backend's own name for it; for a local model, what clients ask for."""
    tenant: str = "default"
    owner: str = "system"
    """Who registered it."""
    status: Status
    reason: str | None = None
    """Why it failed, or is missing."""
    explicit: bool = False
    """Somebody registered or changed it: what discovery finds does not change what they said."""
    said: tuple[str, ...] = ()
    """Which of the fields that files tell of somebody has said otherwise: `capabilities`, `context_length`, …"""
    found: bool = False
    """Discovery found it: it is served while discovery does.  Others are served from `path`, wherever that is."""
    hidden: bool = False
    """Somebody removed it and left the files: it is found again and not served."""
    modality: Modality = "text"
    format: Format = "gguf"
    version: str | None = None
    source: Source | None = None
    path: str | None = None
    """Of what the engine opens; None while nothing is here."""
    projector: str | None = None
    size_bytes: int | None = None
    quantization: str | None = None
    parameters: int | None = None
    context_length: int | None = None
    capabilities: tuple[str, ...] = ()
    memory_bytes: int | None = None
    license: str | None = None
    gated: bool | None = None
    defaults: dict[str, Any] = {}
    """Fields of a request for where the client says nothing."""
    aliases: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    summary: str | None = None
    pinned: bool = False
    """Never removed to make room."""
    versions: tuple[Version, ...] = ()
    """What was downloaded and is still on the disk, the newest first; the one in use is the one of `path`."""
    upstream: str | None = None
    """A newer commit of its revision that was noticed and is not here."""
    created_at: float
    updated_at: float
    last_used_at: float | None = None

    @property
    def id(self) -> str:
        return f"{self.backend}/{self.name}"

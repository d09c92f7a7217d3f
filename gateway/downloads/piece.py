"""One file to be fetched: where it is, what it must be, where it goes."""

from pathlib import Path

from msgspec import Struct


class Piece(Struct, frozen=True, kw_only=True):
    url: str
    """On the hub itself, which may send on to another host."""
    path: Path
    """Where it appears once it is whole and what its hash says."""
    size_bytes: int
    sha256: str | None = None
    blob: str | None = None
    """Its git hash, where it has no sha256."""
    etag: str | None = None
    """What it must be on every attempt: the hub's `X-Linked-Etag`, else its `ETag`."""
    commit: str | None = None
    repo: str | None = None
    """As the hub calls it."""

    @property
    def hashed(self) -> bool:
        """Whether it is known what it must be."""
        return (self.sha256 or self.blob) is not None

    @property
    def part(self) -> Path:
        return part_at(self.path)


def part_at(path: Path) -> Path:
    """Where a file grows meanwhile; beside it, `.part.json` says of what file."""
    return path.with_name(f"{path.name}.part")

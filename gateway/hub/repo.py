"""What the hub says of a repository, in our words."""

from msgspec import Struct


class RepoFile(Struct, frozen=True, kw_only=True):
    path: str
    """Inside the repository, with slashes."""
    size_bytes: int
    sha256: str | None = None
    """Of files in LFS or Xet; None for small ones, which have only a git hash."""
    blob: str | None = None
    """The git hash (sha1 over `blob SIZE\\0` and the contents) of a small file."""


class Repo(Struct, frozen=True, kw_only=True):
    """A model repository at one commit.  None is not known."""

    id: str
    """ORG/NAME"""
    commit: str
    revision: str
    """As it was asked for: `main`, a tag, a commit."""
    gated: bool = False
    private: bool = False
    license: str | None = None
    license_url: str | None = None
    pipeline: str | None = None
    """The hub's word for what it does: `text-generation`, …"""
    library: str | None = None
    tags: tuple[str, ...] = ()
    summary: str | None = None
    """From its card: a sentence or two."""
    parameters: int | None = None
    context_length: int | None = None
    architecture: str | None = None
    files: tuple[RepoFile, ...] = ()

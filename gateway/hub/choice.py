"""Which files of a repository a model is made of: one that was named, one of the quantization wanted, or the best that
fits this machine.  What could run code is refused here, before a byte is fetched."""

from msgspec import Struct

from backends.ports import Format
from compat.canonical.model import Modality
from gateway.hub.repo import Repo, RepoFile


class Wanted(Struct, frozen=True, kw_only=True):
    """What a client asks to have downloaded."""

    repo: str
    file: str | None = None
    """A path inside the repository; of a split file any part."""
    quantization: str | None = None
    """`Q4_K_M`; `best fit` or None: the best that fits this machine."""
    revision: str | None = None


class Choice(Struct, frozen=True, kw_only=True):
    """A model to be made of a repository's files."""

    name: str
    """What it is to be called here, unless somebody says otherwise."""
    format: Format
    modality: Modality
    files: tuple[RepoFile, ...]
    """All that is needed, what the engine opens first."""
    opens: str
    """Path inside the repository of what the engine opens: a file, or `` for the whole folder."""
    projector: str | None = None
    quantization: str | None = None
    size_bytes: int
    memory_bytes: int | None = None
    """An estimate."""
    reason: str
    """Why these, in words."""


def choose(repo: Repo, wanted: Wanted, *, memory_bytes: int) -> Choice:
    """memory_bytes: what models may take here.  Raises InvalidRequest that says what there is, or what is unsafe."""
    raise NotImplementedError

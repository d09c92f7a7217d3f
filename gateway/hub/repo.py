"""What the hub says of a repository, in our words."""

import re
from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from compat.canonical.error import InvalidRequest

TEXT_MAX = 200
"""Characters of a word of the hub's: a licence, a tag."""
TAGS_MAX = 100
_part = r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,94}[A-Za-z0-9_-])?"
_id = re.compile(f"(?:{_part}/)?{_part}").fullmatch
_revision = re.compile(r"[A-Za-z0-9][A-Za-z0-9_./+-]{0,199}").fullmatch


class RepoFile(Struct, frozen=True, kw_only=True):
    path: str
    """Inside the repository, with slashes."""
    size_bytes: int
    """0 where it is not known."""
    sha256: str | None = None
    """Of files in LFS or Xet; None for small ones, which have only a git hash."""
    blob: str | None = None
    """The git hash (sha1 over `blob SIZE\\0` and the contents) of a small file."""
    sized: bool = True
    """Whether its size is known; some mirrors have lists without, and `Hub.measured` asks them file by file."""


class Repo(Struct, frozen=True, kw_only=True):
    """A model repository at one commit.  None is not known."""

    id: str
    """ORG/NAME; the oldest have a NAME only."""
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
    documents: dict[str, Any] = {}
    """The small JSON files that say what a folder of safetensors is made of and whether it names code, by path, as
    objects; where there are GGUF files they are not read."""


def is_id(id_: object) -> bool:
    """Whether this can be a repository's name."""
    return isinstance(id_, str) and _id(id_) is not None and not (".." in id_ or "--" in id_ or id_.endswith(".git"))


def check_id(id_: str) -> None:
    """Raises InvalidRequest for what cannot be a repository's name."""
    if not is_id(id_):
        raise InvalidRequest(
            f"'{words(id_, 100)}' is no repository: expected ORG/NAME (or NAME), as in its page's address.",
            param="repo",
            code="invalid_value",
        )


def check_revision(revision: str) -> None:
    """Raises InvalidRequest for what cannot be a branch, a tag or a commit."""
    if not _revision(revision) or ".." in revision or "//" in revision:
        raise InvalidRequest(
            f"'{words(revision, 100)}' is no revision: expected a branch, a tag or a commit.",
            param="revision",
            code="invalid_value",
        )


def words(text: object, most: int = TEXT_MAX) -> str:
    """What a stranger wrote, on one line, without what a terminal or a log could take for a command."""
    if not isinstance(text, str):
        return ""
    plain = "".join(one if one.isprintable() else " " for one in text[: most * 4])
    plain = " ".join(plain.split())
    return plain if len(plain) <= most else plain[: most - 1].rstrip() + "…"


def word(text: object) -> str | None:
    """The same, where nothing is None."""
    return words(text) or None


def count(given: object) -> int | None:
    """A number of the hub's that can be one."""
    return given if isinstance(given, int) and not isinstance(given, bool) and 0 < given < 10**15 else None


def license_of(card: Mapping[str, Any], tags: tuple[str, ...]) -> str | None:
    """The licence's name: of an own one what its makers call it."""
    said = card.get("license")
    if isinstance(said, list):
        said = said[0] if said else None
    if said == "other" and card.get("license_name"):
        said = card["license_name"]
    return word(said) or next((tag.removeprefix("license:") for tag in tags if tag.startswith("license:")), None)


def tags_of(given: object) -> tuple[str, ...]:
    if not isinstance(given, list):
        return ()
    return tuple(filter(None, (words(tag, 80) for tag in given[:TAGS_MAX])))

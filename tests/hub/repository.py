"""A repository of a hub: files at commits, and who may read them."""

import hashlib
from collections.abc import Collection, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from msgspec import Struct

from tests.hub.content import Content, HubFile

_LARGE = (".gguf", ".safetensors", ".bin", ".onnx", ".pt", ".ckpt", ".msgpack")
"""What the real hub keeps in LFS whatever its size."""
_LFS_FROM = 10 << 20
_EPOCH = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


class Commit(Struct, frozen=True):
    id: str
    files: dict[str, HubFile]
    title: str
    at: datetime


class HubRepo:
    def __init__(
        self,
        id: str,  # noqa: A002  the hub's name for it
        files: Mapping[str, bytes | Content] | None = None,
        *,
        gated: Literal["auto", "manual", False] = False,
        private: bool = False,
        license: str | None = None,  # noqa: A002  the hub's name for it
        card: Mapping[str, Any] | None = None,
        tags: Collection[str] = (),
        pipeline_tag: str | None = None,
        library: str | None = None,
        downloads: int = 0,
        likes: int = 0,
        gguf: Mapping[str, Any] | None = None,
        safetensors: Mapping[str, Any] | None = None,
        readers: Collection[str] = (),
    ) -> None:
        """card: the front matter of its README, as the hub tells it.  gguf: `{total, architecture, context_length}`.

        readers: the users that may read it, where it is gated or private.
        """
        self.id = id
        self.gated = gated
        self.private = private
        self.card: dict[str, Any] = ({"license": license} if license else {}) | dict(card or {})
        self.tags = [*tags, *([f"license:{license}"] if license else [])]
        self.pipeline_tag = pipeline_tag
        self.library = library
        self.downloads = downloads
        self.likes = likes
        self.gguf = dict(gguf) if gguf else None
        self.safetensors = dict(safetensors) if safetensors else None
        self.readers = set(readers)
        self.disabled = False
        self.commits: list[Commit] = []
        """The oldest first."""
        self.branches: dict[str, str] = {}
        self.git_tags: dict[str, str] = {}
        self.push(files or {}, title="initial commit")

    @property
    def files(self) -> dict[str, HubFile]:
        """Of the main branch."""
        return self.commits[-1].files

    def push(
        self, files: Mapping[str, bytes | Content], *, remove: Collection[str] = (), title: str = "Upload files"
    ) -> str:
        """A new commit on the main branch; its id."""
        kept = {} if not self.commits else {p: f for p, f in self.files.items() if p not in remove}
        made = {
            path: HubFile(path, content, lfs=path.endswith(_LARGE) or _size(content) >= _LFS_FROM)
            for path, content in files.items()
        }
        count = len(self.commits)
        commit_id = hashlib.sha1(f"{self.id} {count}".encode(), usedforsecurity=False).hexdigest()
        self.commits.append(Commit(commit_id, kept | made, title, _EPOCH + timedelta(days=count)))
        self.branches["main"] = commit_id
        return commit_id

    def at(self, revision: str) -> Commit | None:
        """revision: a branch, a tag, a commit or, as the hub takes it, the beginning of one."""
        wanted = self.branches.get(revision) or self.git_tags.get(revision) or revision
        if len(wanted) < 7:
            return None
        return next((one for one in reversed(self.commits) if one.id.startswith(wanted)), None)

    def may_see(self, user: str | None) -> bool:
        """Whether this user may know of it."""
        return not self.private or user in self.readers

    def may_read(self, user: str | None) -> bool:
        """Whether this user may have its files."""
        return self.may_see(user) and (not self.gated or user in self.readers)


def _size(content: bytes | Content) -> int:
    return len(content) if isinstance(content, bytes) else content.size

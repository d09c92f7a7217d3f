"""What a download is to bring, decided while the client waits: all that its job needs, also after a restart."""

import hashlib
import re
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from backends.ports import Format
from compat.canonical.error import BadResponse
from compat.canonical.model import Modality
from gateway.hub.choice import Choice
from gateway.hub.repo import Repo, RepoFile
from gateway.registry.entry import Entry, Source

_commit = re.compile(r"[0-9A-Za-z_-][0-9A-Za-z._-]{0,63}").fullmatch
_hexadecimal = re.compile(r"[0-9a-f]{7,64}").fullmatch
_repo = re.compile(r"[A-Za-z0-9][\w.-]{0,127}(/[A-Za-z0-9][\w.-]{0,127})?", re.ASCII).fullmatch
_SHOWN = 12
"""Digits of a commit in the name of a folder; what a mirror calls otherwise is there in full."""


class Plan(Struct, frozen=True, kw_only=True):
    """A job's spec: no secret, no path of this machine."""

    repo: str
    revision: str | None = None
    """As it was asked for; None is the main branch."""
    commit: str
    files: tuple[RepoFile, ...]
    opens: str
    """Path inside the repository of what the engine opens; `` is the whole folder."""
    projector: str | None = None
    name: str
    backend: str
    format: Format
    modality: Modality
    quantization: str | None = None
    parameters: int | None = None
    context_length: int | None = None
    license: str | None = None
    gated: bool = False
    summary: str | None = None
    was_known: bool = False
    """It was registered before anybody asked for its files, and is so again when they are not wanted any more."""
    replaces: str | None = None
    """The commit that is served meanwhile: this is an update of it."""
    unchanged: tuple[str, ...] = ()
    """Files that are the same in the commit it replaces."""

    @property
    def target(self) -> str:
        """The id of the model."""
        return f"{self.backend}/{self.name}"

    @property
    def size_bytes(self) -> int:
        return sum(file.size_bytes for file in self.files)

    @property
    def flight(self) -> str:
        """The same for all who want the same of the same, under the same name."""
        said = [self.target, *sorted(f"{file.path} {file.sha256 or file.blob}" for file in self.files)]
        return f"{self.repo[:120]}@{self.commit[:_SHOWN]}/{hashlib.sha256(chr(0).join(said).encode()).hexdigest()[:16]}"

    def folder(self, root: Path, commit: str | None = None) -> Path:
        """Where its files lie; or those of another commit of it."""
        return folder_of(self.repo, commit or self.commit, root)

    def paths(self, root: Path) -> dict[str, Path]:
        """Where each of its files lies."""
        return {file.path: self.folder(root) / file.path for file in self.files}

    def is_of(self, entry: Entry) -> bool:
        """Whether a registered model is what this brings, or another revision of it."""
        source = entry.source
        if source is None or source.kind != "huggingface" or source.repo != self.repo:
            return False
        if not source.files:
            return True
        wanted = [self.opens] if self.opens else [file.path for file in self.files]
        return any(path in source.files for path in wanted)

    @property
    def source(self) -> Source:
        paths = tuple(file.path for file in self.files)
        return Source(kind="huggingface", repo=self.repo, revision=self.revision, commit=self.commit, files=paths)

    @property
    def spec(self) -> dict[str, Any]:
        plain: dict[str, Any] = msgspec.to_builtins(self)
        return plain

    def entry(self, now: float, *, tenant: str, owner: str) -> Entry:
        """The model, while its files are still to come."""
        return Entry(
            backend=self.backend,
            name=self.name,
            tenant=tenant,
            owner=owner,
            status="downloading",
            explicit=True,
            modality=self.modality,
            format=self.format,
            version=self.commit,
            source=self.source,
            size_bytes=self.size_bytes,
            quantization=self.quantization,
            parameters=self.parameters,
            context_length=self.context_length,
            license=self.license,
            gated=self.gated,
            summary=self.summary,
            created_at=now,
            updated_at=now,
        )

    def awaited(self, entry: Entry, now: float) -> Entry:
        """A model that is registered, and whose files are to come."""
        return replace(
            entry,
            status="downloading",
            reason=None,
            hidden=False,
            explicit=True,
            version=self.commit,
            source=self.source,
            path=None,
            projector=None,
            size_bytes=self.size_bytes,
            quantization=self.quantization or entry.quantization,
            format=self.format,
            modality=self.modality,
            gated=self.gated,
            license=entry.license or self.license,
            updated_at=now,
        )

    @property
    def result(self) -> dict[str, Any]:
        """What a job for it has to tell in the end."""
        return {
            "model": self.target,
            "repo": self.repo,
            "commit": self.commit,
            "files": [file.path for file in self.files],
            "size_bytes": self.size_bytes,
            "format": self.format,
            "modality": self.modality,
            "quantization": self.quantization,
        }


def drawn(repo: Repo, choice: Choice, *, name: str | None, backend: str, revision: str | None) -> Plan:
    """The plan for what was chosen.  Raises BadResponse for a hub that would have us write elsewhere."""
    if not _repo(repo.id) or not is_commit(repo.commit):
        raise BadResponse("The hub describes the repository in a way that cannot be used.")
    if wrong := [file.path for file in choice.files if not _is_inside(file.path)]:
        raise BadResponse(f"The hub names a file that would lie outside its folder: '{wrong[0][:100]}'.")
    return Plan(
        repo=repo.id,
        revision=revision,
        commit=repo.commit,
        files=choice.files,
        opens=choice.opens,
        projector=choice.projector,
        name=choice.name if name is None else name,
        backend=backend,
        format=choice.format,
        modality=choice.modality,
        quantization=choice.quantization,
        parameters=repo.parameters,
        context_length=repo.context_length,
        license=repo.license,
        gated=repo.gated,
        summary=repo.summary,
    )


def is_commit(text: str) -> bool:
    """Whether this can be what a hub calls a commit, and the name of a folder."""
    return _commit(text) is not None and not text.endswith(".part")


def folder_of(repo: str, commit: str, root: Path) -> Path:
    """Where the files of a repository lie at a commit."""
    return root / repo.replace("/", "--") / (commit[:_SHOWN] if _hexadecimal(commit) else commit)


def read(spec: dict[str, Any]) -> Plan:
    """The plan in a job's spec."""
    return msgspec.convert(spec, Plan)


def same(one: Repo, other: Repo, paths: tuple[str, ...]) -> tuple[str, ...]:
    """Those of the files that are the same in both."""
    before, after = ({file.path: file for file in repo.files} for repo in (one, other))
    return tuple(
        path
        for path in paths
        if path in before and path in after and before[path] == after[path] and (after[path].sha256 or after[path].blob)
    )


def _is_inside(path: str) -> bool:
    parts = PurePosixPath(path).parts
    plain = path.isprintable() and "\\" not in path and path == "/".join(parts)
    return (
        plain
        and bool(parts)
        and not any(part in ("/", "..", ".") or part.endswith((".part", ".part.json")) for part in parts)
    )

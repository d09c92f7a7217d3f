"""What `huggingface_hub` makes of the hub's answers, read without trust in them."""

import re
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from msgspec.structs import replace

from compat.canonical.error import BadResponse
from gateway.hub.repo import Repo, RepoFile, count, is_id, license_of, tags_of, word

if TYPE_CHECKING:
    from huggingface_hub.hf_api import ModelInfo, RepoSibling

FILES_MAX = 100_000
LARGE = (".gguf", ".safetensors", ".bin", ".onnx", ".pt", ".ckpt", ".onnx_data")
"""What hubs keep outside of git, whatever its size."""
_IN_GIT_MAX = 10 << 20
"""Bytes of a file that git itself keeps on the hub."""
_commit = re.compile(r"[0-9A-Za-z][0-9A-Za-z._-]{0,63}").fullmatch
"""Forty hexadecimal digits on the hub itself; mirrors have others."""
_sha256 = re.compile(r"[0-9a-f]{64}").fullmatch
_sha1 = re.compile(r"[0-9a-f]{40}").fullmatch


def repo_of(info: "ModelInfo", revision: str | None, endpoint: str, *, sized: bool = True) -> Repo:
    """What the hub said, in our words.

    sized: its files are wanted with their sizes, and its commit, which a list does not have; without, these are not
    known.
    Raises BadResponse where what is needed is missing.
    """
    commit = info.sha if isinstance(info.sha, str) and _commit(info.sha) and ".." not in info.sha else ""
    if not is_id(info.id) or (sized and not commit):
        raise BadResponse("The model hub describes the repository in a way that cannot be used.")
    said, tags = card_of(info), tags_of(info.tags)
    gguf = info.gguf if isinstance(info.gguf, dict) else {}
    return Repo(
        id=info.id,
        commit=commit,
        revision=revision or "main",
        gated=bool(info.gated),
        private=bool(info.private),
        license=license_of(said, tags),
        license_url=_license_url(said.get("license_link"), info.id, endpoint, gated=bool(info.gated)),
        pipeline=word(info.pipeline_tag),
        library=word(info.library_name),
        tags=tags,
        parameters=count(gguf.get("total")) or count(info.safetensors.total if info.safetensors else None),
        context_length=count(gguf.get("context_length")),
        architecture=word(gguf.get("architecture")),
        files=tuple(_file(one, sized=sized) for one in (info.siblings or [])[:FILES_MAX]),
    )


def card_of(info: "ModelInfo") -> dict[str, Any]:
    """The front matter of its card."""
    return dict(getattr(info.card_data, "__dict__", {}))


def info_of(said: dict[str, Any]) -> "ModelInfo":
    """The library's reading of it, which wants fields that mirrors leave out.  Raises whatever it raises."""
    from huggingface_hub.hf_api import ModelInfo

    rows = said.get("siblings")
    if isinstance(rows, list):
        rows = [
            row | {"lfs": {"size": None, "sha256": None, "pointerSize": None} | row["lfs"]}
            if isinstance(row, dict) and isinstance(row.get("lfs"), dict)
            else row
            for row in rows
        ]
        said = said | {"siblings": rows}
    return ModelInfo(**said)  # type: ignore[no-untyped-call]


def is_large(file: RepoFile) -> bool:
    """Whether git keeps only a pointer to it."""
    return file.size_bytes > _IN_GIT_MAX or file.path.lower().endswith(LARGE)


def row_of(row: dict[str, Any]) -> RepoFile:
    """A file in a list of them.  Raises BadResponse."""
    lfs = row.get("lfs")
    inner = lfs if isinstance(lfs, dict) else {}
    size = row.get("size") if row.get("size") is not None else inner.get("size")
    return _made(row.get("path"), size, inner.get("oid") or inner.get("sha256"), row.get("oid"), outside=bool(lfs))


def _file(one: "RepoSibling", *, sized: bool) -> RepoFile:
    """Raises BadResponse."""
    size = one.size if one.size is not None or not one.lfs else one.lfs.size
    sha256 = one.lfs.sha256 if one.lfs else None
    return _made(one.rfilename, size if sized else None, sha256, one.blob_id, outside=bool(one.lfs))


def _made(path: object, size: object, sha256: object, blob: object, *, outside: bool) -> RepoFile:
    if size is not None and (not isinstance(size, int) or isinstance(size, bool) or size < 0):
        size = -1
    if not isinstance(path, str) or size == -1:
        raise BadResponse("The model hub does not say which files the repository has, and how large they are.")
    file = RepoFile(
        path=path,
        size_bytes=size if isinstance(size, int) else 0,
        sized=size is not None,
        sha256=sha256.lower() if isinstance(sha256, str) and _sha256(sha256.lower()) else None,
    )
    if file.sha256 or outside or is_large(file) or not isinstance(blob, str) or not _sha1(blob):
        return file
    return replace(file, blob=blob)


def _license_url(link: object, id_: str, endpoint: str, *, gated: bool) -> str | None:
    """Where its licence can be read, and accepted where it has to be."""
    page = f"{endpoint}/{id_}"
    if gated or not isinstance(link, str) or not link:
        return page if gated else None
    if link.startswith(("https://", "http://")) and link.isprintable() and len(link) < 500:
        return link
    return f"{page}/blob/main/{quote(link)}" if len(link) < 200 else None

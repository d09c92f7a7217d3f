"""What `huggingface_hub` makes of the hub's answers, read without trust in them."""

import re
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from compat.canonical.error import BadResponse
from gateway.hub.repo import Repo, RepoFile, count, is_id, license_of, tags_of, word

if TYPE_CHECKING:
    from huggingface_hub.hf_api import ModelInfo, RepoSibling

FILES_MAX = 100_000
_commit = re.compile(r"[0-9a-f]{7,64}").fullmatch
_sha256 = re.compile(r"[0-9a-f]{64}").fullmatch
_sha1 = re.compile(r"[0-9a-f]{40}").fullmatch


def repo_of(info: "ModelInfo", revision: str | None, endpoint: str, *, sized: bool = True) -> Repo:
    """What the hub said, in our words.

    sized: its files are wanted with their sizes, and its commit, which a list does not have; without, they are 0 and
    may be empty.
    Raises BadResponse where what is needed is missing.
    """
    commit = info.sha if isinstance(info.sha, str) and _commit(info.sha) else ""
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


def _file(one: "RepoSibling", *, sized: bool) -> RepoFile:
    """Raises BadResponse."""
    size = one.size if sized else 0
    if not isinstance(one.rfilename, str) or not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise BadResponse("The model hub does not say which files the repository has, and how large they are.")
    sha256 = one.lfs.sha256 if one.lfs else None
    blob = one.blob_id if isinstance(one.blob_id, str) and not one.lfs else None
    return RepoFile(
        path=one.rfilename,
        size_bytes=size,
        sha256=sha256 if isinstance(sha256, str) and _sha256(sha256) else None,
        blob=blob if blob is not None and _sha1(blob) else None,
    )


def _license_url(link: object, id_: str, endpoint: str, *, gated: bool) -> str | None:
    """Where its licence can be read, and accepted where it has to be."""
    page = f"{endpoint}/{id_}"
    if gated or not isinstance(link, str) or not link:
        return page if gated else None
    if link.startswith(("https://", "http://")) and link.isprintable() and len(link) < 500:
        return link
    return f"{page}/blob/main/{quote(link)}" if len(link) < 200 else None

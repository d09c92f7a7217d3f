"""What may be asked for when a model is registered or changed, with refusals that name the field and the cure."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from compat.canonical.error import InvalidRequest
from compat.canonical.model import Modality
from gateway.checks import unknown_word

LISTED_MAX = 100
"""Of aliases, tags, capabilities, defaults."""
MODELS_MAX = 10_000
"""In one import."""
DEFAULTS_MAX_BYTES = 16_384
TAG_MAX, WORD_MAX, SUMMARY_MAX, PATH_MAX = 64, 200, 2_000, 4_096
"""Characters."""
_repo = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}").fullmatch
_revision = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,199}").fullmatch
CONTEXT_MAX = 2**31 - 1
"""In tokens."""
MODALITIES: tuple[Modality, ...] = get_args(Modality)
CAPABILITIES = (
    *("chat", "completions", "streaming", "json_schema", "tools", "vision", "thinking"),
    *("embeddings", "rerank", "images", "image_edits", "3d", "image_to_3d", "constructed"),
    *("text", "embedding", "image"),
    *("batch", "citations", "code_execution", "context_management", "effort", "pdf_input"),
)
"""What models are said to be able to: by their files, by the gateway (a modality: another's main work as well), and by
the providers that tell."""

# Both are held against what they may be by `check`, whose refusals say what that is.
Made = Annotated[str, Meta(extra_json_schema={"enum": list(MODALITIES)})]
Tokens = Annotated[int, Meta(extra_json_schema={"minimum": 1, "maximum": CONTEXT_MAX})]


class SourceForm(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Whence a model is: a repository on the hub."""

    repo: str
    """ORG/NAME"""
    revision: str | None = None
    """A branch or tag, whose newer commits are updates; `main` unless said."""
    file: str | None = None
    """The one file that it is, by its path inside the repository."""
    files: tuple[str, ...] = ()
    """All of them, where it is several."""
    commit: str | None = None


class NewModel(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A model to be registered: by its id, or by name and backend."""

    id: str | None = None
    """BACKEND/NAME"""
    name: str | None = None
    backend: str | None = None
    """None is the one local backend."""
    source: SourceForm | None = None
    path: str | None = None
    """Of a file or folder on the server: absolute, and in a model folder or the gateway's data."""
    modality: Made | None = None
    version: str | None = None
    aliases: tuple[str, ...] = ()
    """Other names that clients may ask for it by, as they are and behind the backend's."""
    tags: tuple[str, ...] = ()
    defaults: dict[str, Any] = {}
    """Fields of a request for where the client says nothing; local models only."""
    context_length: Tokens | None = None
    """In tokens."""
    capabilities: tuple[str, ...] | None = None
    license: str | None = None
    summary: str | None = None
    pinned: bool = False
    """Never removed to make room."""


class KeptModel(NewModel, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A model as it is exported, and imported again."""

    explicit: bool = True
    """Somebody registered or changed it; false for what was only found."""
    hidden: bool = False
    """Removed, while its files stay."""


class Kept(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is registered."""

    object: Literal["registry"] = "registry"
    version: Literal[1] = 1
    models: Annotated[tuple[KeptModel, ...], Meta(max_length=MODELS_MAX)]


class ModelChanges(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is left out stays; null takes back what was said."""

    aliases: tuple[str, ...] | UnsetType | None = UNSET
    tags: tuple[str, ...] | UnsetType | None = UNSET
    defaults: dict[str, Any] | UnsetType | None = UNSET
    summary: str | UnsetType | None = UNSET
    pinned: bool | UnsetType | None = UNSET
    context_length: Tokens | UnsetType | None = UNSET
    capabilities: tuple[str, ...] | UnsetType | None = UNSET
    modality: Made | UnsetType | None = UNSET
    license: str | UnsetType | None = UNSET
    hidden: bool | UnsetType | None = UNSET
    """false serves a model again that was removed and whose files were left."""


def check(form: NewModel | ModelChanges, at: str = "") -> None:
    """Hold a form's values against what they may be.  Raises InvalidRequest.

    at: what stands before a field's name, like `models[3].`.
    """
    for name in ("aliases", "tags", "capabilities", "defaults"):
        if (given := getattr(form, name)) and given is not UNSET and len(given) > LISTED_MAX:
            raise wrong(f"{at}{name}", f"at most {LISTED_MAX}")
    for n, tag in enumerate(_of(form.tags)):
        _text(f"{at}tags[{n}]", tag, TAG_MAX)
    for n, word in enumerate(_of(form.capabilities)):
        if word not in CAPABILITIES:
            raise wrong(f"{at}capabilities[{n}]", unknown_word(word[:64], CAPABILITIES))
    if isinstance(form.modality, str) and form.modality not in MODALITIES:
        raise wrong(f"{at}modality", unknown_word(form.modality[:64], MODALITIES))
    if isinstance(form.context_length, int) and not 1 <= form.context_length <= CONTEXT_MAX:
        raise wrong(f"{at}context_length", f"use 1 to {CONTEXT_MAX} tokens")
    for name, most in (("license", WORD_MAX), ("summary", SUMMARY_MAX), ("version", WORD_MAX)):
        if isinstance(text := getattr(form, name, None), str):
            _text(f"{at}{name}", text.replace("\n", " ") if name == "summary" else text, most)
    if isinstance(form.defaults, dict) and len(msgspec.json.encode(form.defaults)) > DEFAULTS_MAX_BYTES:
        raise wrong(f"{at}defaults", f"at most {DEFAULTS_MAX_BYTES} bytes of JSON")
    if isinstance(form, NewModel) and form.source is not None:
        _check_source(form.source, f"{at}source")


def wrong(field: str, cure: str) -> InvalidRequest:
    end = "" if cure.endswith("?") else "."
    return InvalidRequest(f"Invalid value for '{field}': {cure}{end}", param=field, code="invalid_value")


def said(form: NewModel | ModelChanges) -> Mapping[str, Any]:
    """What a form sets of an entry."""
    values = {name: getattr(form, name) for name in form.__struct_fields__}
    return {name: value for name, value in values.items() if value is not UNSET}


def _check_source(source: SourceForm, at: str) -> None:
    if not _repo(source.repo) or ".." in source.repo:
        raise wrong(f"{at}.repo", "a repository is named ORG/NAME")
    for name in ("revision", "commit"):
        if (text := getattr(source, name)) is not None and (not _revision(text) or ".." in text):
            raise wrong(f"{at}.{name}", "name a branch, tag or commit")
    if source.file is not None and source.files:
        raise wrong(f"{at}.file", "files says it already; give one of the two")
    if len(source.files) > 1_000:
        raise wrong(f"{at}.files", "at most 1000")
    for n, path in enumerate(source.files if source.file is None else (source.file,)):
        parts = path.split("/")
        if not path.isprintable() or len(path) > 500 or "\\" in path or any(part in ("", ".", "..") for part in parts):
            field = f"{at}.files[{n}]" if source.file is None else f"{at}.file"
            raise wrong(field, "give its path inside the repository")


def _of(given: tuple[str, ...] | UnsetType | None) -> tuple[str, ...]:
    return given if isinstance(given, tuple) else ()


def _text(field: str, text: str, most: int) -> None:
    if not text.strip():
        raise wrong(field, "it must not be empty; null takes it away")
    if len(text) > most:
        raise wrong(field, f"at most {most} characters")
    if not text.isprintable():
        raise wrong(field, "it holds a control character; leave that out")

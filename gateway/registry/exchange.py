"""Between what is registered and what clients give and get of it: pure."""

from collections.abc import Mapping
from typing import Any

from msgspec.structs import replace

from compat.canonical.model import Model
from gateway.registry.entry import Entry, Source
from gateway.registry.form import KeptModel, NewModel, SourceForm, wrong
from gateway.registry.laying import OF_THE_FILES

NOTHING: Mapping[str, Any] = {
    "aliases": (),
    "tags": (),
    "defaults": {},
    "summary": None,
    "pinned": False,
    "context_length": None,
    "capabilities": (),
    "modality": "text",
    "license": None,
    "hidden": False,
}
"""What a field is while nobody says anything."""


def kept(entry: Entry) -> KeptModel:
    """An entry as it is exported."""
    own: dict[str, Any] = {name: getattr(entry, name) for name in OF_THE_FILES if name in entry.said}
    source = entry.source
    if source is not None and source.kind == "huggingface" and source.repo is not None and not entry.found:
        form = SourceForm(repo=source.repo, revision=source.revision, commit=source.commit, files=source.files)
        own["source"] = form
    return KeptModel(
        id=entry.id,
        path=None if entry.found else entry.path,
        version=None if entry.found else entry.version,
        aliases=entry.aliases,
        tags=entry.tags,
        defaults=entry.defaults,
        summary=entry.summary,
        pinned=entry.pinned,
        explicit=entry.explicit,
        hidden=entry.hidden,
        **own,
    )


def is_kept(form: KeptModel, entry: Entry | None) -> bool:
    """Whether an entry is what this form says, so that there is nothing to be taken in."""
    return entry is not None and replace(form, id=entry.id, name=None, backend=None) == kept(entry)


def provided(form: NewModel, entry: Entry, at: str) -> Entry:
    """The entry of a provider's model.  Raises InvalidRequest for what only local ones have."""
    for name in ("source", "path", "defaults", "pinned"):
        if getattr(form, name):
            raise wrong(f"{at}{name}", f"only local models have that, and '{entry.backend}' is a provider")
    return replace(entry, status="ready", reason=None, source=Source(kind="provider"))


def of_provider(model: Model, now: float) -> Entry:
    """What would be registered of a model that a provider lists."""
    return Entry(
        backend=model.backend,
        name=model.name,
        status="ready",
        modality=model.modality,
        source=Source(kind="provider"),
        created_at=float(model.created) or now,
        updated_at=now,
    )


def source_of(form: SourceForm) -> Source:
    files = form.files if form.file is None else (form.file,)
    return Source(kind="huggingface", repo=form.repo, revision=form.revision, commit=form.commit, files=files)


def is_as_it_was(entry: Entry, known: Entry | None) -> bool:
    return known is not None and replace(entry, updated_at=known.updated_at) == known

"""What discovery finds, as the registry takes it down: pure.

What somebody said of a model stays; its files say the rest.
"""

from collections.abc import Collection, Mapping
from typing import Any

from msgspec.structs import replace

from backends.ports import Local
from gateway.registry.entry import UNDER_WAY, Entry, Source, SourceKind
from gateway.registry.laying import OF_THE_FILES, Found

MISSING = "Its files are missing, or cannot be served any more."
FORGET_S = 7 * 86_400
"""How long a model that was only ever found is listed as missing."""
_KINDS: dict[str, SourceKind] = {
    "pypi": "shipped",
    "pluggably": "shipped",
    "huggingface": "huggingface",
    "hf": "huggingface",
    "ollama": "ollama",
    "lmstudio": "lmstudio",
}
"""By what the `source` of a model that is here begins with; others are files."""
_ONCE = ("license", "version", "parameters", "memory_bytes", "source", "projector")
"""What is kept of an explicit entry wherever it is known: whoever registered it may know better."""


def learned(
    entries: Mapping[str, Entry], found: Found, now: float, discovered: Collection[str] | None = None
) -> tuple[list[Entry], list[str]]:
    """The entries that are new or differ from what they were, and the ids of those to be forgotten.

    discovered: the ids of all that lie where discovery looks, hidden ones included; None is what was found.
    """
    here = {one.model.id: one for models in found.values() for one in models.values()}
    news = []
    for id_, local in here.items():
        known = entries.get(id_)
        entry = entry_of(local, now) if known is None else brought_up(known, local)
        if known is None:
            news.append(entry)
        elif entry != known:
            news.append(replace(entry, updated_at=now))
    gone = []
    for id_, known in entries.items():
        if id_ in here or known.backend not in found:
            continue
        if known.hidden:
            # Files of the same name that come later are another model's.
            if known.found and discovered is not None and id_ not in discovered:
                gone.append(id_)
        elif known.status == "missing":
            if not known.explicit and now - known.updated_at > FORGET_S:
                gone.append(id_)
        elif known.status not in UNDER_WAY and (known.path is not None or known.status == "ready"):
            news.append(replace(known, status="missing", reason=MISSING, updated_at=now))
    return news, gone


def entry_of(local: Local, now: float) -> Entry:
    """What is registered of a model that was found."""
    return Entry(
        backend=local.model.backend,
        name=local.name,
        found=True,
        created_at=float(local.model.created) or now,
        updated_at=now,
        **_facts(local),
    )


def brought_up(entry: Entry, local: Local) -> Entry:
    """The same entry, with what the files say now."""
    facts = _facts(local)
    if not entry.explicit:
        return replace(entry, found=True, **facts)
    for name in _ONCE:
        if getattr(entry, name) is not None:
            del facts[name]
    for name in OF_THE_FILES:
        if name in entry.said:
            facts.pop(name, None)
    found = entry.found or entry.path is None
    return replace(entry, found=found, **facts)


def _facts(local: Local) -> dict[str, Any]:
    model = local.model
    return {
        "status": "ready",
        "reason": None,
        "modality": model.modality,
        "format": local.format,
        "version": model.version,
        "source": _source(local),
        "path": local.path,
        "projector": local.projector,
        "size_bytes": model.size_bytes,
        "quantization": model.quantization,
        "parameters": model.parameters,
        "context_length": model.context_length,
        "capabilities": model.capabilities,
        "memory_bytes": model.memory_bytes,
        "license": model.license,
    }


def _source(local: Local) -> Source:
    kind, _, rest = (local.model.source or "").partition(":")
    named = _KINDS.get(kind, "file")
    repo, _, commit = rest.partition("@")
    if named == "huggingface":
        return Source(kind=named, repo=repo or None, commit=commit or None)
    return Source(kind=named, files=(rest,) if named == "file" and rest else ())

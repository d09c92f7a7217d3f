"""What is known of all models at one moment, by every name they can be asked for."""

from collections.abc import Container, Mapping, Sequence
from typing import Any

from msgspec.structs import replace

from backends.ports import Local
from compat.canonical.model import Model
from gateway.registry.entry import Entry, Source
from gateway.registry.laying import OF_THE_FILES
from gateway.registry.learning import MISSING

_Seen = tuple[Model, Entry | None, Model]
"""A model, what is registered of it, and both together."""


class Book:
    """Made anew whenever something has changed; never changed itself."""

    def __init__(
        self,
        backends: Container[str],
        local: Mapping[str, Mapping[str, Local]],
        lists: Mapping[str, Sequence[Model]],
        entries: Mapping[str, Entry],
        before: "Book | None" = None,
        coming: Container[str] = (),
    ) -> None:
        """entries: what is registered, by id.

        coming: the ids of those that are about to be served, or looked for.
        before: the one in whose place this comes; what is the same in both is taken over, which is much quicker.
        """
        seen = {} if before is None else before.seen
        self.seen: dict[str, _Seen] = {}
        by_id = {id_: entry for id_, entry in entries.items() if not entry.hidden}
        self.hidden = frozenset(entries.keys() - by_id.keys())
        """The ids of those that somebody removed, and that are found or listed all the same."""
        vouched = {id_: entry for id_, entry in by_id.items() if entry.explicit and entry.backend not in local}

        def described_anew(model: Model) -> Model:
            entry = by_id.pop(id_ := model.id, None)
            known = seen.get(id_)
            if known is None or known[1] is not entry or not (known[0] is model or known[0] == model):
                known = model, entry, described(model, entry)
            self.seen[id_] = known
            return known[2]

        self.local = [described_anew(found.model) for models in local.values() for found in models.values()]
        """Every local model that is here."""
        self.listed: dict[str, list[Model]] = {
            backend: [described_anew(model) for model in models if model.id not in self.hidden]
            for backend, models in lists.items()
        }
        """What each provider offers; those that somebody has registered besides behind them."""
        self.absent: dict[str, Entry] = {}
        """The local models that are registered and not here, by id."""
        for entry in by_id.values():
            if entry.backend in local:
                if entry.status == "ready":
                    # What has just been put there is looked at before it is served; of others, the folder is not
                    # among the configured ones any more.
                    new = entry.id in coming
                    status, why = ("verifying", None) if new else ("missing", MISSING)
                    entry = replace(entry, status=status, reason=why)
                self.absent[entry.id] = entry
            elif entry.backend in backends:
                self.listed.setdefault(entry.backend, []).append(as_listed(entry))
        self.vouched = vouched
        """What was said of providers' models, by id: their lists do not say what models make, and not all they can."""
        self.named: dict[str, list[Model]] = {}
        """The local models of a bare name."""
        for model in self.local:
            self.named.setdefault(model.name, []).append(model)
        offered = [*self.local, *(model for models in self.listed.values() for model in models)]
        self.aliases: dict[str, Model] = {}
        self.known = {model.id: model for model in offered}
        for model in reversed(offered):
            for alias in model.aliases:
                self.aliases[alias] = model
        self.absent_names: dict[str, Entry] = {}
        """The same by bare names and aliases."""
        for entry in self.absent.values():
            for name in (entry.name, *entry.aliases):
                self.absent_names.setdefault(name, entry)


def described(model: Model, entry: Entry | None) -> Model:
    """A model with what is registered of it besides what its files or its provider say."""
    if entry is None:
        return model
    told: dict[str, Any] = {
        name: value
        for name in ("version", "parameters", "license")
        if getattr(model, name) is None and (value := getattr(entry, name)) is not None
    }
    told |= {name: value for name in ("gated", "aliases", "tags", "summary") if (value := getattr(entry, name))}
    if entry.explicit:
        told |= {name: getattr(entry, name) for name in OF_THE_FILES if name in entry.said}
        if entry.source is not None and entry.source.repo is not None:
            told["source"] = shown(entry.source)
    return replace(model, **told) if told else model


def as_listed(entry: Entry) -> Model:
    """A registered model that is not here, or that its provider does not list."""
    return Model(
        name=entry.name,
        backend=entry.backend,
        modality=entry.modality,
        capabilities=entry.capabilities,
        context_length=entry.context_length,
        status=entry.status,
        size_bytes=entry.size_bytes,
        quantization=entry.quantization,
        source=None if entry.source is None else shown(entry.source),
        license=entry.license,
        created=int(entry.created_at),
        parameters=entry.parameters,
        version=entry.version,
        memory_bytes=entry.memory_bytes,
        gated=entry.gated,
        aliases=entry.aliases,
        tags=entry.tags,
        summary=entry.summary,
    )


def shown(source: Source) -> str:
    """A source in a word: `huggingface:ORG/NAME`, `file:NAME.gguf`, `provider`."""
    what = source.repo or (source.files[0].rpartition("/")[2] if source.files else "")
    return f"{source.kind}:{what}" if what else source.kind

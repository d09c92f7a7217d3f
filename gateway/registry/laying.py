"""What is registered laid over what is found: pure but for reading the models that lie elsewhere.

Of each value, what the configuration says goes before what is registered, and that before what the files say.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from backends.ports import Local
from gateway.discovery import at, configured
from gateway.discovery.ggufs import seeing
from gateway.discovery.problem import Problem
from gateway.registry.entry import Entry

Found = Mapping[str, Mapping[str, Local]]
"""Per local backend, its models by name."""

OF_THE_FILES = ("modality", "context_length", "capabilities", "license")
"""Fields of an entry that files tell of, and somebody may have said otherwise."""


Own = Any
"""What the configuration says of one model: a local backend's `ModelSettings`."""


def laid(
    found: Found,
    entries: Mapping[str, Entry],
    settings: Mapping[str, Mapping[str, Own]],
    problems: list[Problem] | None = None,
    inside: Mapping[str, Sequence[Path]] | None = None,
) -> dict[str, dict[str, Local]]:
    """inside: per backend the folders that models named by their path may lie in, held against the disk at every look:
    what was a file when it was registered may be a link elsewhere by now.  None: they may lie anywhere.
    """
    out: dict[str, dict[str, Local]] = {backend: {} for backend in found}
    for backend, models in found.items():
        for name, local in models.items():
            entry = entries.get(local.model.id)
            if entry is None or not entry.explicit:
                if entry is None or not entry.hidden:
                    out[backend][name] = local
            elif not entry.hidden:
                roots = _roots(inside, backend)
                here = _elsewhere(entry, problems, roots) if _is_placed(entry) and entry.path != local.path else None
                out[backend][name] = as_registered(here or local, entry, settings.get(backend, {}).get(name), roots)
    for entry in entries.values():
        models = out.get(entry.backend, {})
        if entry.backend not in out or entry.name in models or not _is_placed(entry):
            continue
        roots = _roots(inside, entry.backend)
        if (lying := _elsewhere(entry, problems, roots)) is not None:
            own = settings.get(entry.backend, {}).get(entry.name)
            out[entry.backend][entry.name] = as_registered(lying, entry, own, roots)
    return out


def as_registered(local: Local, entry: Entry, own: Own | None = None, inside: Sequence[Path] | None = None) -> Local:
    """A model with what was said of it."""
    said = {name: getattr(entry, name) for name in OF_THE_FILES if name in entry.said}
    local = replace(local, defaults=local.defaults | entry.defaults)
    projector = entry.projector if local.format == "gguf" else None
    if projector is not None and projector != local.projector and _is_file(Path(projector), inside):
        local = seeing(local, projector, Path(projector).stat().st_size)
    return configured(replace(local, model=replace(local.model, **said)), own)


def _is_placed(entry: Entry) -> bool:
    """Whether it is served from its path, whatever discovery finds."""
    return entry.explicit and not entry.found and not entry.hidden and entry.path is not None


def _roots(inside: Mapping[str, Sequence[Path]] | None, backend: str) -> Sequence[Path] | None:
    return None if inside is None else inside.get(backend, ())


def _elsewhere(entry: Entry, problems: list[Problem] | None, inside: Sequence[Path] | None) -> Local | None:
    assert entry.path is not None
    try:
        if not Path(entry.path).exists():
            return None
    except OSError:  # a folder that may not be looked into any more
        return None
    return at(entry.backend, entry.path, name=entry.name, problems=problems, inside=inside)


def _is_file(path: Path, inside: Sequence[Path] | None) -> bool:
    try:
        real = path.resolve()
        return path.is_file() and (inside is None or any(real.is_relative_to(root.resolve()) for root in inside))
    except (OSError, RuntimeError):
        return False

"""Finds models in GGUF files: each with its other parts and its projector beside it."""

import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from msgspec.structs import replace

from backends.local import gguf
from backends.ports import Local, Traits
from compat.canonical.model import Modality, Model
from gateway.discovery import headers
from gateway.discovery.problem import Problem, Report, shown
from gateway.discovery.tree import Found, Tree

_shard = re.compile(r"-(\d{5})-of-(\d{5})$")
_CAPABILITIES: dict[Modality, tuple[str, ...]] = {
    "text": ("chat", "completions", "streaming", "json_schema", "tools"),
    "embedding": ("embeddings", "rerank"),
    "rerank": ("rerank",),
}
_IN_A_NAME = {"mmproj", "model", "f16", "bf16", "f32", "fp16", "fp32", "q8", "0", "gguf"}
"""Words of a projector's file name that say nothing of the model it belongs to."""
PARTS_MAX = 1000
_NAMED_MAX = 3


class _Whole(NamedTuple):
    """One GGUF, of all its parts."""

    files: tuple[Found, ...]
    header: gguf.Header
    """Of the first part, with the parameters of all."""

    @property
    def path(self) -> Path:
        return self.files[0].path


def find(report: Report, tree: Tree) -> Iterator[Local]:
    """The models in GGUF files of a tree."""
    files = {found.path: found for found in tree.files if found.path.name.lower().endswith(".gguf")}
    headers.expect(files.values())
    models: list[_Whole] = []
    projectors: list[_Whole] = []
    for path in files:
        if (whole := _whole(path, files, report)) is None:
            continue
        if whole.header.role == "mmproj" or "mmproj" in path.name.lower():
            projectors.append(whole)
        elif whole.header.role == "model":
            models.append(whole)
    companions = Counter(whole.path.parent for whole in models)
    eyes: dict[Path, list[_Whole]] = {}
    for projector in projectors:
        eyes.setdefault(projector.path.parent, []).append(projector)
    for whole in models:
        folder = whole.path.parent
        yield _seeing(model(report.backend, whole), whole, eyes.get(folder, ()), alone=companions[folder] == 1)


def one(report: Report, path: Path, *, inside: Path) -> Local | None:
    """The model of this file alone; others in its folder are not opened.

    inside: where links may lead.
    """
    beside: list[Problem] = []
    folder = Tree(path.parent, Report(report.backend, beside), inside=inside, deep=False)
    stem = _shard.sub("", path.stem)
    own = {shown(part) for part in folder.refused if _shard.sub("", part.stem) == stem or "mmproj" in part.name.lower()}
    report.also(problem for problem in beside if problem.path in own)
    files = {found.path: found for found in folder.files if found.path.name.lower().endswith(".gguf")}
    if path not in files and path in {found.path for found in folder.files}:
        files[path] = next(found for found in folder.files if found.path == path)
    eyes = [other for other in files if "mmproj" in other.name.lower() and other != path]
    whole = _whole(path, files, report) if path in files else None
    if whole is None or whole.header.role != "model":
        return None
    projectors = [eye for other in eyes if (eye := _whole(other, files, report)) is not None]
    firsts = [other for other in files if other not in eyes and not _follows(other)]
    return _seeing(model(report.backend, whole), whole, projectors, alone=len(firsts) == 1)


def blob(report: Report, found: Found) -> Local | None:
    """The model in a file that is not called what it is."""
    header = _read(found, report)
    if header is None or header.role != "model":
        return None
    return model(report.backend, _Whole((found,), header))


def seeing(local: Local, projector: str, size: int) -> Local:
    """The model with a projector."""
    capabilities = tuple(dict.fromkeys((*local.model.capabilities, "vision")))
    return replace(
        local,
        projector=projector,
        traits=replace(local.traits, projector_bytes=size),
        model=replace(local.model, capabilities=capabilities),
    )


def _seeing(local: Local, whole: _Whole, projectors: Sequence[_Whole], *, alone: bool) -> Local:
    if local.model.modality != "text":
        return local
    beside = [eye for eye in projectors if eye.path.parent == whole.path.parent and _fits(whole, eye, alone=alone)]
    if not beside:
        return local
    best = max(beside, key=lambda eye: (len(_words(eye.path)), eye.path))
    return seeing(local, str(best.path), best.header.size_bytes)


def _fits(whole: _Whole, projector: _Whole, *, alone: bool) -> bool:
    """Whether a projector belongs to the model beside it: by its name, else because there is no other model it
    could belong to, else because it makes what only this one takes.  A wrong one would make the engine crash."""
    words = _words(projector.path)
    if words:
        return words <= _words(whole.path)
    return alone or (whole.header.width != 0 and whole.header.width == projector.header.width)


def _words(path: Path) -> set[str]:
    return set(re.split(r"[^a-z0-9]+", _shard.sub("", path.stem).lower())) - _IN_A_NAME - {""}


def _follows(path: Path) -> bool:
    """Whether it is a part that is not the first: the engine opens those by the first."""
    shard = _shard.search(path.stem)
    return shard is not None and shard[1] != "00001"


def _whole(path: Path, files: Mapping[Path, Found], report: Report) -> _Whole | None:
    """What begins with this file; None where nothing does, or what does is no good."""
    shard = _shard.search(path.stem)
    if shard is None:
        header = _read(files[path], report)
        return None if header is None else _Whole((files[path],), header)
    stem, count = path.stem[: shard.start()], int(shard[2])
    if count > PARTS_MAX:
        report.add(
            path, "unreadable", f"its name speaks of {count} parts; at most {PARTS_MAX} are looked for; rename it"
        )
        return None
    parts = [path.with_name(f"{stem}-{n:05}-of-{shard[2]}{path.suffix}") for n in range(1, count + 1)]
    there = [files[part] for part in parts if part in files]
    if path not in parts:
        report.add(path, "unreadable", "its name gives it a number that none of its parts has; rename it")
    if path not in parts or path != there[0].path:
        return None  # the others are looked at with the first of them
    if len(there) < count:
        lacking = [part.name for part in parts if part not in files]
        more = f" and {len(lacking) - _NAMED_MAX} more" if len(lacking) > _NAMED_MAX else ""
        reason = f"{len(lacking)} of its {count} parts are not here: {', '.join(lacking[:_NAMED_MAX])}{more}"
        report.add(path, "incomplete", f"{reason}; fetch them too", max((f.status for f in there), key=_modified))
        return None
    read = [_read(part, report) for part in there]
    whole = [header for header in read if header is not None]
    if len(whole) < count:
        return None
    header = replace(whole[0], parameters=sum(one.parameters for one in whole))
    return _Whole(tuple(there), header)


def _modified(status: os.stat_result) -> int:
    return status.st_mtime_ns


def _read(found: Found, report: Report) -> gguf.Header | None:
    path, status = found
    try:
        header = headers.read(path, status)
    except ValueError as e:
        report.add(path, "unreadable", f"{str(e).removesuffix('.')}; fetch it again", status)
        return None
    except FileNotFoundError:
        return None  # it went while we looked
    except OSError as e:
        report.add(path, "unreadable", f"it cannot be read ({e.strerror})", status)
        return None
    if header.truncated:
        report.add(path, "truncated", "it ends before its tensors do; fetch it again", status)
        return None
    return header


def model(backend: str, whole: _Whole) -> Local:
    path, header = whole.path, whole.header
    name = _shard.sub("", path.stem).lower()
    modality: Modality = "rerank" if header.ranks else "embedding" if header.embeds else "text"
    stats = [found.status for found in whole.files]
    return Local(
        name=name,
        path=str(path),
        traits=Traits(
            architecture=header.architecture,
            kv_bytes_per_token=header.kv_bytes_per_token,
            layers=header.layers,
            width=header.width,
            vocabulary=header.vocabulary,
            tools=header.tools,
            modified_ns=max(stat.st_mtime_ns for stat in stats),
        ),
        model=Model(
            name=name,
            backend=backend,
            modality=modality,
            capabilities=(*_CAPABILITIES[modality], *(("thinking",) if header.thinks and modality == "text" else ())),
            context_length=header.context_length,
            status="ready",
            size_bytes=sum(stat.st_size for stat in stats),
            quantization=header.quantization,
            source=f"file:{path.name}",
            parameters=header.parameters or None,
            license=header.license,
            owned_by="local",
            created=int(max(stat.st_mtime for stat in stats)),
        ),
    )

"""Finds local models: those that come with the house, and what lies in the model folders.

A model is a GGUF file (its other parts and its projector beside it) or a folder of `gateway.pipelines`.  Files that
cannot be one are reported and left out; nothing is loaded, of a GGUF file only the header is read.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from msgspec.structs import replace

from backends.local import gguf
from backends.local.settings import ModelSettings
from backends.ports import Local, Traits
from compat.canonical.model import Modality, Model
from gateway import embedded, pipelines
from gateway.discovery.problem import Problem
from gateway.interpolation import expanded
from gateway.telemetry.logging import logger

_shard = re.compile(r"-(\d{5})-of-(\d{5})$")
_CAPABILITIES: dict[Modality, tuple[str, ...]] = {
    "text": ("chat", "completions", "streaming", "json_schema", "tools"),
    "embedding": ("embeddings", "rerank"),
    "rerank": ("rerank",),
}
_IN_A_NAME = {"mmproj", "model", "f16", "bf16", "f32", "fp16", "fp32", "q8", "0", "gguf"}
"""Words of a projector's file name that say nothing of the model it belongs to."""


def discover(
    backend: str,
    folders: Iterable[str],
    data_dir: Path,
    settings: Mapping[str, ModelSettings],
    problems: list[Problem] | None = None,  # noqa: ARG001  filled soon
) -> dict[str, Local]:
    """The models a local backend can serve, by name.

    settings: what the configuration says of some of them; a name that is none of theirs is reported.
    """
    found = embedded.models(backend, data_dir)
    for folder in folders:
        root = expanded(folder, f"backends.{backend}.model_dirs")
        if root.is_dir():
            for local in [*_files(backend, root), *pipelines.find(backend, root)]:
                found.setdefault(local.name, local)
    for name in settings.keys() - found.keys():
        logger().warning("model_settings_unused", model=name, backend=backend)
    return {name: _as_configured(local, settings.get(name)) for name, local in found.items()}


def _as_configured(local: Local, own: ModelSettings | None) -> Local:
    if own is None:
        return local
    local = replace(local, defaults=local.defaults | own.defaults)
    if own.projector is None:
        return local
    size = Path(own.projector).stat().st_size if Path(own.projector).is_file() else 0
    return _seeing(local, own.projector, size)


def _seeing(local: Local, projector: str, size: int) -> Local:
    capabilities = tuple(dict.fromkeys((*local.model.capabilities, "vision")))
    return replace(
        local,
        projector=projector,
        traits=replace(local.traits, projector_bytes=size),
        model=replace(local.model, capabilities=capabilities),
    )


def _files(backend: str, root: Path) -> Iterable[Local]:
    """The models in GGUF files under a folder, each with its projector."""
    models: dict[Path, tuple[Local, gguf.Header]] = {}
    projectors: list[tuple[Path, gguf.Header]] = []
    inside = root.resolve()
    for path in sorted(root.rglob("*.gguf")):
        shard = _shard.search(path.stem)
        if shard and shard[1] != "00001":
            continue  # the engine opens the others by the first
        if not path.is_file() or not path.resolve().is_relative_to(inside):
            continue
        if (header := _read(path)) is None:
            continue
        if header.role == "mmproj" or "mmproj" in path.name.lower():
            projectors.append((path, header))
        elif header.role == "model" and (local := _local(backend, path, header)) is not None:
            models[path] = local, header
    for path, (local, header) in models.items():
        beside = [one for one in projectors if one[0].parent == path.parent]
        alone = sum(other.parent == path.parent for other in models) == 1
        fitting = [(len(_words(p)), p, h) for p, h in beside if _fits(path, header, p, h, alone=alone)]
        if fitting and local.model.modality == "text":
            _, best, h = max(fitting, key=lambda one: (one[0], one[1]))
            yield _seeing(local, str(best), h.size_bytes)
        else:
            yield local


def _fits(model: Path, header: gguf.Header, projector: Path, its: gguf.Header, *, alone: bool) -> bool:
    """Whether a projector belongs to the model beside it: by its name, else because there is no other model it
    could belong to, else because it makes what only this one takes.  A wrong one would make the engine crash."""
    words = _words(projector)
    if words:
        return words <= _words(model)
    return alone or (header.width != 0 and header.width == its.width)


def _words(path: Path) -> set[str]:
    return set(re.split(r"[^a-z0-9]+", _shard.sub("", path.stem).lower())) - _IN_A_NAME - {""}


def _read(path: Path) -> gguf.Header | None:
    try:
        header = gguf.read(path)
    except (ValueError, OSError) as e:
        logger().warning("model_unreadable", file=path.name, reason=str(e))
        return None
    if header.truncated:
        logger().warning("model_truncated", file=path.name, size_bytes=header.size_bytes)
        return None
    return header


def _local(backend: str, path: Path, header: gguf.Header) -> Local | None:
    name = _shard.sub("", path.stem).lower()
    parts = _parts(path)
    missing = [part.name for part in parts if not part.is_file()]
    if missing:
        logger().warning("model_incomplete", file=path.name, missing=missing)
        return None
    modality: Modality = "rerank" if header.ranks else "embedding" if header.embeds else "text"
    stats = [part.stat() for part in parts]
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
            capabilities=_CAPABILITIES[modality],
            context_length=header.context_length,
            status="ready",
            size_bytes=sum(stat.st_size for stat in stats),
            quantization=header.quantization,
            source=f"file:{path.name}",
            license=header.license,
            owned_by="local",
            created=int(max(stat.st_mtime for stat in stats)),
        ),
    )


def _parts(path: Path) -> list[Path]:
    """The files a model is cut into, of which this is the first."""
    shard = _shard.search(path.stem)
    if shard is None:
        return [path]
    stem = path.stem[: shard.start()]
    return [path.with_name(f"{stem}-{n:05}-of-{shard[2]}.gguf") for n in range(1, int(shard[2]) + 1)]

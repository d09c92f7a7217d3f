"""Finds models that are folders: pipelines as diffusers and optimum lay them out.

    model_index.json    what the parts are, each in a folder of its name
    unet/config.json    unet/diffusion_pytorch_model.safetensors    (diffusers)
    unet/model.onnx     text_encoder/model.onnx  vae_decoder/…      (ONNX, which needs no torch)

Only numbers and descriptions are taken: a folder with code or pickles in it, or that names code, is refused, because
loading it could run anything.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from backends.ports import Format, Local, Traits
from compat.canonical.model import Modality, Model
from gateway.telemetry.logging import logger

_INDEX = "model_index.json"
_INDEX_MAX_BYTES = 1 << 20
_GRAPHS = ("unet/model.onnx", "text_encoder/model.onnx", "vae_decoder/model.onnx")
"""What must be there for a pipeline to run from ONNX graphs alone."""
_RUNS = frozenset({".py", ".pyc", ".so", ".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".msgpack", ".h5"})
"""Code, and formats that loading can run code from."""
_LIBRARIES = frozenset({"diffusers", "transformers", "stable_diffusion", "shap_e"})
"""Whence the parts of a pipeline come; the last two are diffusers' own modules."""
_SHAPES = frozenset({"ShapEPipeline", "ShapEImg2ImgPipeline"})
_CAPABILITIES: dict[Modality, tuple[str, ...]] = {"image": ("images", "image_edits", "streaming"), "3d": ("3d",)}


def find(backend: str, root: Path) -> Iterable[Local]:
    """The pipelines under a folder, or that it is; those that are refused are reported."""
    inside = root.resolve()
    for index in sorted(root.rglob(_INDEX)):
        folder = index.parent
        if not folder.resolve().is_relative_to(inside):
            continue
        try:
            yield _local(backend, folder)
        except (ValueError, OSError) as e:
            logger().warning("model_refused", folder=folder.name, reason=str(e))


def _local(backend: str, folder: Path) -> Local:
    """Raises ValueError saying what is wrong with it, OSError."""
    index = _described(folder / _INDEX)
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    format_: Format = "onnx" if all((folder / graph).is_file() for graph in _GRAPHS) else "diffusers"
    _check_files(folder, files)
    if format_ == "diffusers":
        _check_parts(index)
    endings = (".onnx", ".onnx_data") if format_ == "onnx" else (".safetensors",)
    weights = [path.stat() for path in files if path.name.endswith(endings)]
    if not weights:
        raise ValueError("it has no weights in safetensors; convert them, or take a repository that has them")
    name = _name(folder)
    modality: Modality = "3d" if index.get("_class_name") in _SHAPES else "image"
    return Local(
        name=name,
        path=str(folder),
        format=format_,
        traits=Traits(modified_ns=max(stat.st_mtime_ns for stat in weights)),
        model=Model(
            name=name,
            backend=backend,
            modality=modality,
            capabilities=_CAPABILITIES[modality],
            status="ready",
            size_bytes=sum(stat.st_size for stat in weights),
            source=f"file:{folder.name}",
            owned_by="local",
            created=int(max(stat.st_mtime for stat in weights)),
        ),
    )


def _name(folder: Path) -> str:
    """Of the folder; in Hugging Face's cache that is a hash, and the name is further up."""
    if folder.parent.name == "snapshots":
        return folder.parent.parent.name.rpartition("--")[2].lower()
    return folder.resolve().name.lower()


def _check_parts(index: dict[str, Any]) -> None:
    for name, part in index.items():
        if isinstance(part, list) and part and part[0] is not None and part[0] not in _LIBRARIES:
            raise ValueError(f"its part '{name}' comes from '{part[0]}', not from diffusers or transformers")


def _check_files(folder: Path, files: Iterable[Path]) -> None:
    for path in files:
        if path.suffix.lower() in _RUNS:
            raise ValueError(
                f"{path.relative_to(folder)} could run code when it is loaded; keep .safetensors and .json only"
            )
        if path.name == "config.json" and "auto_map" in _described(path):
            raise ValueError(f"{path.relative_to(folder)} names code of its own (auto_map), which is never run")


def _described(path: Path) -> dict[str, Any]:
    if path.stat().st_size > _INDEX_MAX_BYTES:
        raise ValueError(f"{path.name} is too large to be what its name says")
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except msgspec.MsgspecError:
        raise ValueError(f"{path.name} is not a JSON object") from None

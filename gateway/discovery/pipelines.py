"""Finds models that are folders: pipelines as diffusers and optimum lay them out.

    model_index.json    what the parts are, each in a folder of its name
    unet/config.json    unet/diffusion_pytorch_model.safetensors    (diffusers)
    unet/model.onnx     text_encoder/model.onnx  vae_decoder/…      (ONNX, which needs no torch)

Only numbers and descriptions are taken: a folder with code or pickles in it, or that names code, is refused, because
loading it could run anything.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from backends.ports import Format, Local, Traits
from compat.canonical.model import Modality, Model
from gateway.discovery import safetensors
from gateway.discovery.problem import ProblemKind, Report
from gateway.discovery.tree import INDEX, Found, Tree

_INDEX_MAX_BYTES = 1 << 20
_GRAPHS = ("unet/model.onnx", "text_encoder/model.onnx", "vae_decoder/model.onnx")
"""What must be there for a pipeline to run from ONNX graphs alone."""
RUNS = frozenset({".py", ".pyc", ".so", ".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".msgpack", ".h5"})
"""Code, and formats that loading can run code from."""
_LIBRARIES = frozenset({"diffusers", "transformers", "stable_diffusion", "shap_e"})
"""Whence the parts of a pipeline come; the last two are diffusers' own modules."""
_SHAPES = frozenset({"ShapEPipeline", "ShapEImg2ImgPipeline"})
_CAPABILITIES: dict[Modality, tuple[str, ...]] = {"image": ("images", "image_edits", "streaming"), "3d": ("3d",)}


class _Unfit(Exception):
    """It is not served; the message says why, and what helps."""

    def __init__(self, kind: ProblemKind, reason: str, found: Found | None = None) -> None:
        super().__init__(reason)
        self.kind = kind
        self.found = found
        """The file it is for, where it is one."""


def find(report: Report, tree: Tree) -> Iterator[Local]:
    """The pipelines of a tree, which may itself be one."""
    for index in tree.named(INDEX):
        folder = index.parent
        if any(refused.is_relative_to(folder) for refused in tree.refused):
            continue  # a part of it is told of
        try:
            yield _local(report.backend, folder, tree.under(folder))
        except _Unfit as e:
            path, status = e.found or (folder, None)
            report.add(path, e.kind, str(e), status)
        except OSError as e:
            report.add(folder, "unreadable", f"it cannot be read ({e.strerror})")


def _local(backend: str, folder: Path, files: Sequence[Found]) -> Local:
    """Raises _Unfit, OSError."""
    index = _described(folder / INDEX)
    paths = {found.path for found in files}
    format_: Format = "onnx" if all(folder / graph in paths for graph in _GRAPHS) else "diffusers"
    _check_files(folder, files)
    if format_ == "diffusers":
        _check_parts(index)
    endings = (".onnx", ".onnx_data") if format_ == "onnx" else (".safetensors",)
    weights = [found for found in files if found.path.name.endswith(endings)]
    if not weights:
        raise _Unfit("unreadable", "it has no weights in safetensors; convert them, or take a repository that has them")
    parameters = _numbers([found for found in files if found.path.suffix == ".safetensors"])
    stats = [found.status for found in weights]
    name = name_of(folder)
    modality: Modality = "3d" if str(index.get("_class_name")) in _SHAPES else "image"
    return Local(
        name=name,
        path=str(folder),
        format=format_,
        traits=Traits(modified_ns=max(stat.st_mtime_ns for stat in stats)),
        model=Model(
            name=name,
            backend=backend,
            modality=modality,
            capabilities=_CAPABILITIES[modality],
            status="ready",
            size_bytes=sum(stat.st_size for stat in stats),
            source=f"file:{folder.name}",
            parameters=parameters if format_ == "diffusers" else None,
            owned_by="local",
            created=int(max(stat.st_mtime for stat in stats)),
        ),
    )


def _numbers(files: Iterable[Found]) -> int:
    """How many numbers there are in files of safetensors, all of which are whole."""
    total = 0
    for found in files:
        try:
            weights = safetensors.read(found.path)
        except ValueError as e:
            raise _Unfit("unreadable", f"{e}; fetch it again", found) from None
        if weights.truncated:
            raise _Unfit("truncated", "it ends before its tensors do; fetch it again", found)
        total += weights.parameters
    return total


def name_of(folder: Path) -> str:
    """Of the folder; in Hugging Face's cache that is a hash, and the name is further up."""
    if folder.parent.name == "snapshots":
        return folder.parent.parent.name.rpartition("--")[2].lower()
    return folder.resolve().name.lower()


def _check_parts(index: dict[str, Any]) -> None:
    for name, part in index.items():
        if isinstance(part, list) and part and part[0] is not None and str(part[0]) not in _LIBRARIES:
            raise _Unfit("unsafe", f"its part '{name}' comes from '{part[0]}', not from diffusers or transformers")


def _check_files(folder: Path, files: Iterable[Found]) -> None:
    for path, _ in files:
        at = path.relative_to(folder)
        if path.suffix.lower() in RUNS:
            raise _Unfit("unsafe", f"{at} could run code when it is loaded; keep .safetensors and .json only")
        if path.name == "config.json" and "auto_map" in _described(path):
            raise _Unfit("unsafe", f"{at} names code of its own (auto_map), which is never run")


def described(path: Path) -> dict[str, Any]:
    """The JSON object in a file.  Raises ValueError, OSError."""
    if path.stat().st_size > _INDEX_MAX_BYTES:
        raise ValueError(f"{path.name} is too large to be what its name says")
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except (msgspec.MsgspecError, RecursionError):
        raise ValueError(f"{path.name} is not a JSON object") from None


def _described(path: Path) -> dict[str, Any]:
    try:
        return described(path)
    except ValueError as e:
        raise _Unfit("unreadable", str(e)) from None

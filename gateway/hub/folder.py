"""Which files of a repository make a model that is a folder: a diffusers pipeline, or a BERT of sentence-transformers.

Only weights in safetensors (or ONNX graphs), descriptions and vocabularies are taken; what lies beside them for other
programs is left where it is.
"""

import re
from pathlib import PurePosixPath
from typing import Any

from msgspec import Struct

from backends.ports import Format
from compat.canonical.error import InvalidRequest
from compat.canonical.model import Modality
from gateway.hub.repo import Repo, RepoFile, words
from gateway.hub.safety import INDEX, check_documents, unsafe

DOCUMENTS_MAX = 24
_BERT = ("model.safetensors", "config.json", "vocab.txt", "1_Pooling/config.json")
_BERT_ALSO = ("modules.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
"""Not needed to make a GGUF of it, but to know what it is."""
_GRAPHS = ("unet/model.onnx", "text_encoder/model.onnx", "vae_decoder/model.onnx")
"""What must be there for a pipeline to run from ONNX graphs alone."""
_SHAPES = frozenset({"ShapEPipeline", "ShapEImg2ImgPipeline"})
_TEXTS = frozenset({".json", ".txt", ".model"})
_PART_MAX_BYTES = 64 << 20
"""Of a vocabulary or a description."""
_weightless = re.compile(r"(Tokenizer(Fast)?|Scheduler|Processor(Fast)?|FeatureExtractor)$").search
_weights = re.compile(r"([^.]+?)(?:-(\d{5})-of-(\d{5}))?\.safetensors").fullmatch
"""The main ones: `model.fp16.safetensors` is a variant, which nothing here asks for."""


class Folder(Struct, frozen=True, kw_only=True):
    format: Format
    modality: Modality
    files: tuple[RepoFile, ...]


def documents_of(repo: Repo) -> tuple[str, ...]:
    """The small JSON files that must be read before a folder of this repository is taken; none where it has GGUF."""
    paths = {file.path for file in repo.files}
    if any(path.lower().endswith(".gguf") for path in paths):
        return ()
    if INDEX in paths:
        inner = sorted(path for path in paths if path.count("/") == 1 and path.endswith("/config.json"))
        return (INDEX, *inner[:DOCUMENTS_MAX])
    if "config.json" in paths and any(path.endswith(".safetensors") for path in paths):
        return tuple(path for path in ("config.json", "1_Pooling/config.json") if path in paths)
    return ()


def folder_of(repo: Repo) -> Folder | None:
    """None: it is no model in a folder that could be run here.  Raises InvalidRequest for one that is unsafe."""
    by_path = {file.path: file for file in repo.files}
    if INDEX in by_path:
        check_documents(repo.documents)
        return _pipeline(repo, by_path, _document(repo, INDEX))
    if set(_BERT) <= set(by_path):
        check_documents(repo.documents)
        config = _document(repo, "config.json")
        if config.get("model_type") != "bert" or config.get("hidden_act") != "gelu":
            return None
        files = tuple(by_path[path] for path in (*_BERT, *_BERT_ALSO) if path in by_path)
        return Folder(format="gguf", modality="embedding", files=files)
    return None


def _document(repo: Repo, path: str) -> dict[str, Any]:
    found = repo.documents.get(path)
    if not isinstance(found, dict):
        raise _unread(path)
    return found


def _unread(path: str) -> InvalidRequest:
    return unsafe(f"'{words(path, 100)}' could not be read, so what it would load cannot be known.")


def _pipeline(repo: Repo, by_path: dict[str, RepoFile], index: dict[str, Any]) -> Folder:
    parts = {
        name: str(part[1])
        for name, part in index.items()
        if not name.startswith("_") and isinstance(part, list) and len(part) == 2 and part[0] is not None
    }
    modality: Modality = "3d" if index.get("_class_name") in _SHAPES else "image"
    inside = {name: [file for file in repo.files if _folder(file.path) == name] for name in parts}
    texts = [by_path[INDEX], *(file for name in parts for file in inside[name] if _is_text(file))]
    weights: list[RepoFile] = []
    missing: list[str] = []
    for name, made in parts.items():
        if _weightless(made):
            continue
        found = _weights_of(inside[name])
        weights += found
        if not found:
            missing.append(name)
    if not missing and weights:
        unread = [one.path for one in texts if one.path.endswith("/config.json") and one.path not in repo.documents]
        if unread:
            raise _unread(unread[0])
        return Folder(format="diffusers", modality=modality, files=(*texts, *weights))
    if all(graph in by_path for graph in _GRAPHS):
        graphs = [
            file
            for file in repo.files
            if _folder(file.path) is not None and file.path.endswith((".onnx", ".onnx_data", ".onnx.data"))
        ]
        return Folder(format="onnx", modality=modality, files=(*texts, *graphs))
    if not parts:
        raise InvalidRequest("'model_index.json' names no parts of a pipeline.", param="repo")
    named = words(missing[0] if missing else next(iter(parts)), 60)
    variants = any(file.path.endswith(".safetensors") for file in inside.get(named, ()))
    kept = "only variants such as fp16" if variants else "no weights in safetensors, which run no code when loaded"
    raise unsafe(f"The part '{named}' of the pipeline '{repo.id}' has {kept}; take a repository that has them.")


def _folder(path: str) -> str | None:
    """The folder a file lies in directly, where that is one of the repository's first level."""
    parent = PurePosixPath(path).parent
    return parent.name if len(parent.parts) == 1 else None


def _is_text(file: RepoFile) -> bool:
    path = PurePosixPath(file.path)
    # Lists of the parts of weights are taken with them.
    return path.suffix in _TEXTS and ".index." not in path.name and file.size_bytes <= _PART_MAX_BYTES


def _weights_of(files: list[RepoFile]) -> list[RepoFile]:
    """A part's weights: whole in one file, or else all the files they are cut into and the list of these."""
    cut: dict[tuple[str, str], list[RepoFile]] = {}
    for file in sorted(files, key=lambda one: one.path):
        found = _weights(PurePosixPath(file.path).name)
        if found is None:
            continue
        if found[2] is None:
            return [file]
        cut.setdefault((found[1], found[3]), []).append(file)
    for (stem, of), pieces in cut.items():
        lists = [file for file in files if PurePosixPath(file.path).name == f"{stem}.safetensors.index.json"]
        if len(pieces) == int(of) and lists:
            return [*pieces, *lists]
    return []

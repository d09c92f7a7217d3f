"""What is refused before a byte is fetched: what could run code, and names that could lead elsewhere."""

import unicodedata
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from typing import Any

from compat.canonical.error import InvalidRequest
from gateway.hub.repo import RepoFile, words

CODE = frozenset({".py", ".pyc", ".pyd", ".so", ".dll", ".dylib", ".sh", ".ipynb"})
PICKLES = frozenset(
    {".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".h5", ".hdf5", ".keras", ".msgpack", ".joblib", ".npy"}
    | {".npz", ".dill", ".mar", ".t7", ".nemo", ".pb", ".tar", ".zip"}
)
"""Formats that loading can run code from, or that hide what is in them."""
INDEX = "model_index.json"
LIBRARIES = frozenset({"diffusers", "transformers", "stable_diffusion", "shap_e"})
"""Whence the parts of a pipeline come; the last two are diffusers' own modules."""
_PART_BYTES = 255
_PATH_BYTES = 1024
_OURS = (".part", ".part.json")
"""What our own unfinished files are called."""


def unsafe(message: str) -> InvalidRequest:
    return InvalidRequest(message, param="repo", code="unsafe_repo")


def check_path(path: str) -> None:
    """Raises InvalidRequest for a name that cannot be a file's in a folder of ours."""
    parts = path.split("/")
    why = None
    if not path or len(path.encode("utf-8", "replace")) > _PATH_BYTES:
        why = "is empty or too long"
    elif path.startswith("/") or "\\" in path or any(part in ("", ".", "..") for part in parts) or path[1:2] == ":":
        why = "leads out of its folder"
    elif not path.isprintable():
        why = "has control characters"
    elif any(len(part.encode("utf-8", "replace")) > _PART_BYTES - len(_OURS[1]) for part in parts):
        why = "is too long for a file system"
    elif any(part.lower().endswith(_OURS) for part in parts):
        why = "is one of those that unfinished downloads have"
    if why is not None:
        raise unsafe(f"The name of the file '{words(path, 100)}' {why}; nothing of this repository is downloaded.")


def check_files(files: Iterable[RepoFile]) -> None:
    """Raises InvalidRequest where one of the files that are needed is unsafe."""
    seen: dict[str, str] = {}
    for file in files:
        check_path(file.path)
        check_harmless(file.path)
        folded = unicodedata.normalize("NFC", file.path).casefold()
        if folded in seen:
            raise unsafe(f"The files '{seen[folded]}' and '{file.path}' would be one where capitals do not count.")
        seen[folded] = file.path


def check_harmless(path: str) -> None:
    """Raises InvalidRequest for a file that could run code."""
    ending = PurePosixPath(path).suffix.lower()
    shown = words(path, 100)
    if ending in CODE:
        raise unsafe(f"'{shown}' is code, which is never downloaded.")
    if ending in PICKLES:
        raise unsafe(f"'{shown}' is in a format that can run code when it is loaded; take GGUF or safetensors instead.")


def check_described(shown: str, said: object) -> None:
    """Raises InvalidRequest where a JSON file of this name is an object that names code."""
    if isinstance(said, dict) and "auto_map" in said:
        raise unsafe(f"'{shown}' names code of its own (auto_map), which is never run.")


def check_documents(documents: Mapping[str, Any]) -> None:
    """Raises InvalidRequest where a model's own description names code."""
    for path, said in documents.items():
        if not isinstance(said, dict):
            raise unsafe(f"'{words(path, 100)}' is no JSON object, so what it would load cannot be known.")
        check_described(words(path, 100), said)
        if path == INDEX:
            _check_index(said)


def _check_index(index: Mapping[str, Any]) -> None:
    if not isinstance(index.get("_class_name"), str):
        raise unsafe("'model_index.json' names a pipeline in code of its own (_class_name), which is never run.")
    for name, part in index.items():
        if name.startswith("_") or not isinstance(part, list) or not part or part[0] is None:
            continue
        if part[0] not in LIBRARIES:
            raise unsafe(
                f"'model_index.json' takes its part '{words(name, 60)}' from '{words(str(part[0]), 60)}', not from "
                "diffusers or transformers: that would run code of its own."
            )

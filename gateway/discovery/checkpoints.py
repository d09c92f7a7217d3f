"""Finds folders of weights as transformers lays them out, which no engine here opens: a BERT of sentence-transformers
is made into a GGUF when it is first wanted; of others it is told what helps.

    config.json    model.safetensors    vocab.txt    1_Pooling/config.json
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from backends.ports import Local, Traits
from compat.canonical.model import Model
from gateway.discovery import safetensors
from gateway.discovery.pipelines import RUNS, described, name_of
from gateway.discovery.problem import Report
from gateway.discovery.tree import INDEX, Found, Tree

_CONFIG = "config.json"
_POOLING = Path("1_Pooling", _CONFIG)
_WEIGHTS = "model.safetensors"
_Count = Annotated[int, Meta(ge=1, lt=1 << 31)]
_BYTES_PER_NUMBER = 34 / 32
"""Of what is made, in Q8_0."""


class _Bert(Struct, frozen=True):
    """Of a config.json: what says that it is the kind that can be made."""

    model_type: Literal["bert"]
    hidden_act: Literal["gelu"]
    num_hidden_layers: _Count
    hidden_size: _Count
    max_position_embeddings: _Count
    vocab_size: _Count


def find(report: Report, tree: Tree, made: Path | None, *, tells: bool = True) -> Iterator[Local]:
    """Those of a tree that can be served.

    made: where files are made of them; None: they are not.
    tells: report the others.
    """
    pipelines = [index.parent for index in tree.named(INDEX)]
    for config in tree.named(_CONFIG):
        folder = config.parent
        files = {found.path: found for found in tree.under(folder)}
        beside = [path for path in files if path.parent == folder]
        endings = {path.suffix.lower() for path in beside}
        if ".gguf" in endings or any(folder.is_relative_to(pipeline) for pipeline in pipelines):
            continue
        if made is not None and (local := _bert(report.backend, folder, files, made)) is not None:
            yield local
        elif not tells:
            continue
        elif ".safetensors" in endings:
            reason = "safetensors are served as pictures only; convert it to GGUF, or fetch a repository that has GGUF"
            report.add(folder, "unreadable", reason)
        elif endings & (RUNS - {".py", ".pyc", ".so"}):
            reason = "its weights are pickles, which could run code when they are loaded; fetch a repository with GGUF"
            report.add(folder, "unsafe", reason)


def _bert(backend: str, folder: Path, files: dict[Path, Found], made: Path) -> Local | None:
    """What `backends.local.bert` makes a GGUF of; None: it is something else."""
    needed = [folder / name for name in (_CONFIG, _WEIGHTS, "vocab.txt", _POOLING)]
    if any(path not in files for path in needed):
        return None
    try:
        config, pooling = msgspec.convert(described(folder / _CONFIG), _Bert), described(folder / _POOLING)
        weights = safetensors.read(folder / _WEIGHTS)
    except (ValueError, OSError):
        return None
    pooled = pooling.get("pooling_mode_mean_tokens") or pooling.get("pooling_mode_cls_token")
    if not pooled or weights.truncated:
        return None
    status = files[folder / _WEIGHTS].status
    name = name_of(folder)
    return Local(
        name=name,
        # Other weights under the same name are made anew.
        path=str(made / f"{name}-{status.st_size:x}-{status.st_mtime_ns:x}.gguf"),
        made_from=str(folder),
        traits=Traits(
            architecture="bert",
            layers=config.num_hidden_layers,
            width=config.hidden_size,
            vocabulary=config.vocab_size,
            modified_ns=status.st_mtime_ns,
        ),
        model=Model(
            name=name,
            backend=backend,
            modality="embedding",
            capabilities=("embeddings", "rerank"),
            context_length=config.max_position_embeddings,
            status="ready",
            size_bytes=int(weights.parameters * _BYTES_PER_NUMBER),
            quantization="Q8_0",
            source=f"file:{folder.name}",
            parameters=weights.parameters,
            owned_by="local",
            created=int(status.st_mtime),
        ),
    )

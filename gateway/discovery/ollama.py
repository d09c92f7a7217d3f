"""Finds models in Ollama's store: a manifest of each names the files, which are called by what they hash to.

    manifests/HOST/NAMESPACE/MODEL/TAG    (or under manifests-v2, as a link to a blob)
    blobs/sha256-HEX

Its templates and system prompts are not taken over: the template in the GGUF is used.
Sources: https://github.com/ollama/ollama/blob/main/manifest/manifest.go and paths.go, server/images.go
"""

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from backends.ports import Local
from gateway.discovery import ggufs
from gateway.discovery.problem import Report, shown
from gateway.discovery.tree import Found, speakable

TEXT_MAX_BYTES = 1 << 20
"""Of a manifest, and of a layer that is JSON."""
MANIFESTS_MAX = 10_000
_LIST = "application/vnd.ollama.manifest.list.v2+json"
_LAYER = "application/vnd.ollama.image."
_RUNNERS = ("ollama", "llamacpp", "")
_HOST, _NAMESPACE, _TAG = "registry.ollama.ai", "library", "latest"
"""What goes without saying in a name."""
_is_digest = re.compile(r"sha256[:-][0-9a-fA-F]{64}").fullmatch
_NUMBERS = {
    **{name: name for name in ("temperature", "top_p", "top_k", "min_p", "typical_p", "repeat_penalty")},
    **{name: name for name in ("repeat_last_n", "presence_penalty", "frequency_penalty", "seed")},
    **{name: name for name in ("mirostat", "mirostat_tau", "mirostat_eta")},
}
"""Parameters that are numbers, and the fields of a request they become."""


T = TypeVar("T")


class _Layer(Struct, frozen=True, rename="camel"):
    media_type: str = ""
    digest: str = ""


class _Manifest(Struct, frozen=True, rename="camel"):
    media_type: str = ""
    layers: tuple[_Layer, ...] = ()
    runner: str = ""
    digest: str = ""
    """In a list: of the manifest that is meant, where it is not there itself."""
    manifests: tuple["_Manifest", ...] = ()


class _Unfit(Exception):
    """What is wrong with a model, and what helps."""


def find(root: Path, report: Report) -> Iterator[tuple[Local, str]]:
    """The models of a store, each with the name it has where another has its own."""
    known: set[tuple[str, ...]] = set()
    for folder in (root / "manifests-v2", root / "manifests"):
        for path in _manifests(folder):
            host, namespace, name, tag = words = path.relative_to(folder).parts
            if tuple(word.lower() for word in words) in known or any(word.startswith(".") for word in words):
                continue
            known.add(tuple(word.lower() for word in words))
            try:
                local = _local(root, path, report)
            except _Unfit as e:
                report.add(path, "unreadable", str(e))
                continue
            if local is None:
                continue
            own = (name if tag == _TAG else f"{name}-{tag}").lower()
            if not speakable(own):
                report.add(path, "unreadable", "its name is not printable text in UTF-8; rename it")
                continue
            source = f"{name}:{tag}" if namespace == _NAMESPACE else f"{namespace}/{name}:{tag}"
            source = source if host == _HOST else f"{host}/{source}"
            model = replace(local.model, name=own, source=f"ollama:{source}")
            yield replace(local, name=own, model=model), f"{namespace}-{own}".lower()


def _manifests(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.glob("*/*/*/*") if not path.is_dir())[:MANIFESTS_MAX]
    except OSError:
        return []


def _local(root: Path, path: Path, report: Report) -> Local | None:
    """Raises _Unfit.  None: a file of it is no good, and told of."""
    manifest = _chosen(root, _decoded(_text(path, root), _Manifest))
    if manifest is None:
        return None  # made for other engines alone
    layers = [(layer.media_type.removeprefix(_LAYER), layer) for layer in manifest.layers]

    def of(kind: str) -> list[_Layer]:
        return [layer for named, layer in layers if named == kind]

    if not (weights := of("model")):
        return None  # one that runs elsewhere, or is no GGUF
    if len(weights) > 1:
        raise _Unfit("its weights are in several files, which only Ollama can put together; fetch it as one GGUF")
    if of("adapter"):
        raise _Unfit("it has adapters (LoRA), which are not taken over; name model and adapter in the configuration")
    if (local := ggufs.blob(report, _blob(root, weights[0]))) is None:
        return None
    for layer in of("projector")[:1]:
        found = _blob(root, layer)
        local = ggufs.seeing(local, str(found.path), found.status.st_size)
    for layer in of("params")[:1]:
        local = _as_set(local, _decoded(_text(_blob(root, layer).path, root), dict[str, Any]))
    return local


def _as_set(local: Local, parameters: dict[str, Any]) -> Local:
    """The model with its maker's parameters, as far as requests have fields for them."""
    defaults: dict[str, Any] = {
        _NUMBERS[name]: value
        for name, value in parameters.items()
        if name in _NUMBERS and isinstance(value, int | float) and not isinstance(value, bool)
    }
    stop = parameters.get("stop")
    stops = [stop] if isinstance(stop, str) else stop
    if isinstance(stops, list) and stops and all(isinstance(one, str) and one for one in stops):
        defaults["stop"] = stops
    longest, context = parameters.get("num_predict"), parameters.get("num_ctx")
    if isinstance(longest, int) and longest > 0:
        defaults["max_tokens"] = longest
    if isinstance(context, int) and context > 0:
        model = replace(local.model, context_length=min(context, local.model.context_length or context))
        local = replace(local, model=model)
    return replace(local, defaults=defaults)


def _chosen(root: Path, manifest: _Manifest) -> _Manifest | None:
    """Of a list, the one for llama.cpp's kin."""
    if manifest.media_type != _LIST:
        return manifest if manifest.runner.lower() in _RUNNERS else None
    for runner in _RUNNERS:
        for one in manifest.manifests:
            if one.runner.lower() == runner and one.media_type != _LIST:
                return one if one.layers else _decoded(_text(_blob(root, one).path, root), _Manifest)
    return None


def _blob(root: Path, layer: _Layer | _Manifest) -> Found:
    digest = layer.digest if layer.digest.startswith("sha256") else f"sha256:{layer.digest}"
    if not _is_digest(digest):
        raise _Unfit("its manifest names no file by its hash; pull it again")
    path = root / "blobs" / digest.replace(":", "-")
    return Found(path, _inside(path, root))


def _inside(path: Path, root: Path) -> os.stat_result:
    """Raises _Unfit for what is no regular file of the store's own."""
    try:
        status, target = os.stat(path), path.resolve()
    except OSError as e:
        raise _Unfit(f"a file of it is not here ({shown(Path(path.name))}: {e.strerror}); pull it again") from None
    if not target.is_relative_to(root.resolve()):
        raise _Unfit("a link in it leads out of Ollama's store; pull it again")
    if not stat.S_ISREG(status.st_mode):
        raise _Unfit("a file of it is not a regular file; pull it again")
    return status


def _text(path: Path, root: Path) -> bytes:
    if _inside(path, root).st_size > TEXT_MAX_BYTES:
        raise _Unfit("its manifest is too large to be one; pull it again")
    try:
        return path.read_bytes()
    except OSError as e:
        raise _Unfit(f"its manifest cannot be read ({e.strerror})") from None


def _decoded(text: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(text, type=kind)
    except (msgspec.MsgspecError, RecursionError):
        raise _Unfit("its manifest is not what it should be; pull it again") from None

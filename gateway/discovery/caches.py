"""Finds models in the caches of other programs, which are served from where they lie and never written to.

    HUB/models--ORG--NAME/refs/main             the commit that a branch stands at
    HUB/models--ORG--NAME/snapshots/COMMIT/…    links into ../../blobs
    LM STUDIO/models/PUBLISHER/REPO/*.gguf

Sources: https://huggingface.co/docs/huggingface_hub/guides/manage-cache
https://lmstudio.ai/docs/basics/import-model
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from msgspec.structs import replace

from backends.local.settings import Cache
from backends.ports import Local
from gateway.discovery import checkpoints, ggufs, ollama, pipelines
from gateway.discovery.problem import Report
from gateway.discovery.tree import Tree

LINE_MAX_BYTES = 4096
_REPO = "models--"


def roots(adopt: Iterable[Cache], environ: Mapping[str, str] | None = None) -> dict[Cache, Path]:
    """The folders of these caches, as their own programs find them.  They may not be there."""
    environ = os.environ if environ is None else environ
    wanted: dict[Cache, Callable[[Mapping[str, str]], Path]] = {
        "huggingface": _hub,
        "ollama": _ollama,
        "lmstudio": _lmstudio,
    }
    return {cache: wanted[cache](environ) for cache in adopt}


def find(cache: Cache, root: Path, report: Report, made: Path) -> Iterator[tuple[Local, str]]:
    """The models of a cache, each with the name it has where another has its own."""
    if cache == "ollama":
        yield from ollama.find(root, report)
    elif cache == "huggingface":
        yield from _repos(root, report, made)
    else:
        tree = Tree(root, report)
        for local in ggufs.find(report, tree):
            publisher, _, rest = str(Path(local.path).relative_to(root)).partition(os.sep)
            source = f"lmstudio:{publisher}/{Path(rest).parts[0]}" if len(Path(rest).parts) > 1 else "lmstudio"
            yield _from(local, source), f"{publisher}-{local.name}".lower()


def _repos(root: Path, report: Report, made: Path) -> Iterator[tuple[Local, str]]:
    for repo in sorted(root.glob(f"{_REPO}*")):
        id_ = repo.name.removeprefix(_REPO).replace("--", "/")
        if not repo.resolve().is_relative_to(root.resolve()):
            report.add(repo, "outside", "this link leads out of the cache; it is not followed")
            continue
        known: set[str] = set()
        for snapshot in _snapshots(repo):
            # Only what a snapshot links to is whole; unfinished files lie among the blobs.
            tree = Tree(snapshot, report, inside=root)
            found = [*ggufs.find(report, tree), *pipelines.find(report, tree)]
            for local in [*found, *checkpoints.find(report, tree, made, tells=False)]:
                if local.name not in known:
                    known.add(local.name)
                    full_name = f"{id_.replace('/', '-')}-{local.name}".lower()
                    yield _from(local, f"huggingface:{id_}", snapshot.name), full_name


def _snapshots(repo: Path) -> list[Path]:
    """What is there of a repository, the state its main branch was last seen in first."""
    try:
        folders = [path for path in (repo / "snapshots").iterdir() if path.is_dir() and not path.is_symlink()]
        newest = sorted(folders, key=lambda path: path.stat().st_mtime, reverse=True)
    except OSError:
        return []
    main = _line(repo / "refs" / "main")
    return sorted(newest, key=lambda path: path.name != main)


def _from(local: Local, source: str, version: str | None = None) -> Local:
    return replace(local, model=replace(local.model, source=source, version=version))


def _line(path: Path) -> str:
    """What a small file says; nothing where there is none."""
    try:
        small = path.is_file() and path.stat().st_size < LINE_MAX_BYTES
        return path.read_text().strip() if small else ""
    except (OSError, ValueError):
        return ""


def _home(environ: Mapping[str, str]) -> Path:
    return Path(environ.get("HOME") or os.path.expanduser("~"))


def _path(text: str, environ: Mapping[str, str]) -> Path:
    return _home(environ) / text[2:] if text.startswith("~/") else Path(os.path.expandvars(text))


def _hub(environ: Mapping[str, str]) -> Path:
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if given := environ.get(name):
            return _path(given, environ)
    if given := environ.get("HF_HOME"):
        return _path(given, environ) / "hub"
    return _path(environ.get("XDG_CACHE_HOME") or "~/.cache", environ) / "huggingface" / "hub"


def _ollama(environ: Mapping[str, str]) -> Path:
    # It strips quotes too.
    given = environ.get("OLLAMA_MODELS", "").strip().strip("\"'")
    return _path(given or "~/.ollama/models", environ)


def _lmstudio(environ: Mapping[str, str]) -> Path:
    """As its own programs look for it: where it says that it is, else where older ones were, else where it is now."""
    home = _home(environ)
    if said := _line(home / ".lmstudio-home-pointer"):
        return Path(said) / "models"
    old, new = home / ".cache" / "lm-studio" / "models", home / ".lmstudio" / "models"
    return old if old.is_dir() and not new.is_dir() else new

"""Finds local models: those that come with the house, what lies in the model folders, and what other programs have in
their caches, where that is asked for.

A model is a GGUF file (its other parts and its projector beside it), a folder of `pipelines`, or one of `checkpoints`.
What cannot be served is reported and left out; nothing is loaded, and of files of weights only the header is read.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from msgspec.structs import replace

from backends.local.settings import Cache, ModelSettings
from backends.ports import Local
from gateway import embedded
from gateway.discovery import caches, checkpoints, ggufs, pipelines
from gateway.discovery.problem import Problem, Report
from gateway.discovery.tree import Tree
from gateway.interpolation import expanded


def discover(
    backend: str,
    folders: Iterable[str],
    data_dir: Path,
    settings: Mapping[str, ModelSettings],
    problems: list[Problem] | None = None,
    *,
    adopt: Iterable[Cache] = (),
    patient: bool = False,
) -> dict[str, Local]:
    """The models a local backend can serve, by name.

    settings: what the configuration says of some of them.
    problems: filled with what cannot be served.
    adopt: the caches whose models are served too, after all others of their names.
    patient: somebody will look again soon, so nothing is said of what may still be growing.
    """
    report = Report(backend, problems, patient=patient)
    found = embedded.models(backend, data_dir)
    for folder in folders:
        root = expanded(folder, f"backends.{backend}.model_dirs")
        if root.is_dir():
            for local in _models(report, root, data_dir):
                if _is_same(local, found.setdefault(local.name, local)):
                    continue
                reason = f"another model is called '{local.name}' already, in {_place(found[local.name])}; rename one"
                report.add(Path(local.path), "duplicate", reason)
    own = dict(found)
    for cache, root in caches.roots(adopt).items():
        for local, full_name in caches.find(cache, root, report, data_dir / MADE):
            names = (local.name, full_name)
            if local.name in own and _is_same(local, own[local.name]):
                continue
            free = next((name for name in names if name not in found), None)
            if free is not None:
                found[free] = _renamed(local, free)
            else:
                reason = f"other models are called '{local.name}' and '{full_name}' already; rename one of them"
                report.add(Path(local.path), "duplicate", reason)
    return {name: configured(local, settings.get(name)) for name, local in found.items()}


MADE = Path("models", "made")
"""In the data's folder, where files are made of models in other formats."""


def at(
    backend: str,
    path: str | Path,
    *,
    name: str | None = None,
    problems: list[Problem] | None = None,
    inside: Sequence[Path] | None = None,
) -> Local | None:
    """The model in one file (of several parts: the first) or folder; None: nothing there can be served.

    name: what it is to be called; None: after its file or folder.
    problems: filled with why not.
    inside: folders of which one must hold the path and all that is opened for it, links followed; None: it may be
        anywhere.
    """
    path, report = Path(path).absolute(), Report(backend, problems)
    roots = [Path(path.anchor)] if inside is None else sorted(root.resolve() for root in inside)
    root = next((root for root in roots if _leads_into(path, root)), None)
    if root is None:
        report.add(path, "outside", "it is not in a folder of models, or a link leads out of it; put the files there")
        return None
    if path.is_dir():
        tree = Tree(path, report, inside=root)
        local = next((one for part in (pipelines, ggufs) for one in part.find(report, tree)), None)
        if local is None:
            next(checkpoints.find(report, tree, None), None)
    else:
        local = ggufs.one(report, path, inside=root)
    return local if local is None or name is None else _renamed(local, name)


def configured(local: Local, own: ModelSettings | None) -> Local:
    """The model as the configuration has it."""
    if own is None:
        return local
    local = replace(local, defaults=local.defaults | own.defaults)
    if own.projector is None:
        return local
    size = Path(own.projector).stat().st_size if Path(own.projector).is_file() else 0
    return ggufs.seeing(local, own.projector, size)


def _models(report: Report, root: Path, data_dir: Path) -> Iterator[Local]:
    tree = Tree(root, report)
    yield from ggufs.find(report, tree)
    yield from pipelines.find(report, tree)
    yield from checkpoints.find(report, tree, data_dir / MADE)


def _leads_into(path: Path, root: Path) -> bool:
    try:
        return path.resolve().is_relative_to(root)
    except (OSError, ValueError, RuntimeError):  # a link to itself, or no path at all
        return False


def _is_same(one: Local, other: Local) -> bool:
    """Whether it is the same model found twice: by a link, or in a folder inside another."""
    paths = [local.made_from or local.path for local in (one, other)]
    return paths[0] == paths[1] or Path(paths[0]).resolve() == Path(paths[1]).resolve()


def _place(local: Local) -> str:
    return Path(local.path).parent.name or "/"


def _renamed(local: Local, name: str) -> Local:
    return local if local.name == name else replace(local, name=name, model=replace(local.model, name=name))

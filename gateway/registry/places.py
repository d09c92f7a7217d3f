"""Where models may lie that clients name by their path: in folders of local models, the data's, or adopted caches.

Invariant: what a path leads to, links followed, is inside the same folder as the path itself; of paths outside of them
nothing is told, not even whether they exist.
"""

import errno
from collections.abc import Iterable, Iterator
from pathlib import Path

from compat.canonical.error import InvalidRequest
from gateway.discovery import caches, ggufs, pipelines
from gateway.discovery.problem import Report
from gateway.discovery.tree import Tree
from gateway.interpolation import expanded
from gateway.registry.form import PATH_MAX, wrong
from gateway.settings import Config


def folders(config: Config, backend: str) -> list[Path]:
    """The model folders of a local backend, as they are configured."""
    given = config.backends[backend].settings.model_dirs
    return [expanded(folder, f"backends.{backend}.model_dirs") for folder in given]


def adopted(config: Config, backend: str) -> list[Path]:
    """The caches of other programs that it serves from."""
    return list(caches.roots(config.backends[backend].settings.adopt).values())


def allowed(config: Config, backend: str) -> list[Path]:
    """All that a model may lie in which a client has named by its path."""
    models = config.data_dir / "models"
    # Those two may be links to a larger disk, which the operator has made.
    return [*folders(config, backend), config.data_dir, models, models / "hub", *adopted(config, backend)]


def lying(path: str, config: Config, backend: str, field: str) -> Path:
    """The file or folder of a path that a client gave.  Raises InvalidRequest.  Asks the disk: runs in a thread."""
    given = Path(path)
    if not path.isprintable() or len(path) > PATH_MAX or not given.is_absolute() or ".." in given.parts:
        raise wrong(field, "give the absolute path of a file or folder on the server, without '..'")
    roots = list(_around(given, allowed(config, backend)))
    if not roots:
        raise _outside(field)
    try:
        target = given.resolve()
        if not any(target.is_relative_to(root) for root in roots):
            raise _outside(field)
        there = given.exists()
    except RuntimeError:  # links in a circle
        raise _outside(field) from None
    except OSError as e:  # a name that is too long for the disk, a folder that may not be looked into
        raise _outside(field) if e.errno == errno.ELOOP else wrong(field, _unseen(e)) from None
    if not there:
        raise wrong(field, "there is no such file or folder")
    if target in roots or any(root.is_relative_to(target) for root in roots):
        raise wrong(field, "it is a folder of many models; name the file or the folder of one of them")
    return given


def several(backend: str, folder: Path, inside: Iterable[Path]) -> list[str]:
    """The models in a folder by their paths in it, where there are several: which one is meant, nobody knows."""
    real = folder.resolve()
    root = next((root for root in (one.resolve() for one in inside) if real.is_relative_to(root)), real)
    report = Report(backend)
    tree = Tree(folder, report, inside=root)
    found = [Path(local.path) for part in (pipelines, ggufs) for local in part.find(report, tree)]
    return sorted(str(path.relative_to(folder)) for path in found) if len(found) > 1 else []


def _around(path: Path, roots: Iterable[Path]) -> Iterator[Path]:
    """Those of the folders that a path is in, links in the folders' own paths followed."""
    for root in roots:
        real = root.resolve()
        if path.is_relative_to(root.absolute()) or path.is_relative_to(real):
            yield real


def _unseen(e: OSError) -> str:
    if e.errno in (errno.EACCES, errno.EPERM):
        return "the gateway may not look there; let its user read the file and its folders"
    return "a name in it is too long" if e.errno == errno.ENAMETOOLONG else "it cannot be read"


def _outside(field: str) -> InvalidRequest:
    return wrong(
        field, "it must lie in a folder of the backend's model_dirs, in data_dir, or in a cache that it adopts"
    )

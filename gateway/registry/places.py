"""Where models may lie that clients name by their path: in folders of local models, the data's, or adopted caches.

Invariant: what a path leads to, links followed, is inside the same folder as the path itself; of paths outside of them
nothing is told, not even whether they exist.
"""

from collections.abc import Iterator
from pathlib import Path

from compat.canonical.error import InvalidRequest
from gateway.discovery import caches
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


def lying(path: str, config: Config, backend: str, field: str) -> Path:
    """The file or folder of a path that a client gave.  Raises InvalidRequest.  Asks the disk: runs in a thread."""
    given = Path(path)
    if not path.isprintable() or len(path) > PATH_MAX or not given.is_absolute() or ".." in given.parts:
        raise wrong(field, "give the absolute path of a file or folder on the server, without '..'")
    roots = list(_around(given, [*folders(config, backend), config.data_dir, *adopted(config, backend)]))
    if not roots:
        raise _outside(field)
    try:
        target = given.resolve()
    except (OSError, RuntimeError):
        raise _outside(field) from None
    if not any(target.is_relative_to(root) for root in roots):
        raise _outside(field)
    if not given.exists():
        raise wrong(field, "there is no such file or folder")
    return given


def _around(path: Path, roots: list[Path]) -> Iterator[Path]:
    """Those of the folders that a path is in, links in the folders' own paths followed."""
    for root in roots:
        real = root.resolve()
        if path.is_relative_to(root.absolute()) or path.is_relative_to(real):
            yield real


def _outside(field: str) -> InvalidRequest:
    return wrong(
        field, "it must lie in a folder of the backend's model_dirs, in data_dir, or in a cache that it adopts"
    )

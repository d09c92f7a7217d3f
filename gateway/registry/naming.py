"""What models may be called, and who has a name already: pure.

A name leads to one model: what is configured goes before what is registered, and that before what is merely listed, so
a name that would never be reached is refused when it is given.
"""

from collections.abc import Container, Iterable
from fnmatch import fnmatchcase

from compat.canonical.error import Conflict
from gateway.registry.form import wrong

NAME_MAX = 200
"""Characters."""
RESERVED = frozenset({"search", "download", "loaded", "export", "import"})
"""Paths under /v1/models that are no model's."""
VERBS = frozenset({"load", "unload", "status", "update", "rollback"})
"""What stands behind a model's id in a path, and so cannot end one."""


class Names:
    """Who is called what."""

    def __init__(self, configured: Iterable[str], backends: Container[str]) -> None:
        configured = tuple(configured)
        self.configured = {name for name in configured if "*" not in name}
        self.globs = tuple(name for name in configured if "*" in name)
        self.backends = backends
        self._names: dict[str, set[str]] = {}
        self._aliases: dict[str, set[str]] = {}

    def add(self, id_: str, aliases: Iterable[str] = ()) -> None:
        self._names.setdefault(id_.partition("/")[2], set()).add(id_)
        for alias in aliases:
            self._aliases.setdefault(alias, set()).add(id_)

    def alias_of(self, name: str, but: str) -> str | None:
        """Another model that has this alias."""
        return next(iter(self._aliases.get(name, set()) - {but}), None)

    def name_of(self, name: str, but: str) -> str | None:
        """Another model of this name or alias."""
        return next(iter(self._names.get(name, set()) - {but}), None) or self.alias_of(name, but)


def check_name(name: str, field: str) -> None:
    """Whether a model, or an alias, may be called that.  Raises InvalidRequest."""
    if not name or len(name) > NAME_MAX or not name.isprintable() or name != name.strip():
        raise wrong(field, f"use 1 to {NAME_MAX} printable characters, without spaces around them")
    parts = name.split("/")
    if not all(parts) or any(part in (".", "..") for part in parts):
        raise wrong(field, "each part between slashes needs a name, and none may be '.' or '..'")
    if "*" in name:
        raise wrong(field, "'*' stands for any name in the configuration; leave it out")
    if name in RESERVED or parts[-1] in VERBS:
        raise wrong(field, f"'{name}' stands for something else in paths; take another name")


def check_free(id_: str, names: Names, field: str) -> None:
    """Whether a model may be registered under this id.  Raises Conflict."""
    name = id_.partition("/")[2]
    if name in names.configured:
        raise _conflict(field, f"'{name}' is a name of the configuration file; take another")
    if (other := names.alias_of(name, id_)) is not None:
        raise _conflict(field, f"'{name}' is an alias of '{other}'; take another name, or that alias away")


def check_alias(alias: str, id_: str, names: Names, field: str) -> None:
    """Whether a model may have this alias.  Raises InvalidRequest, Conflict."""
    check_name(alias, field)
    if alias == id_.partition("/")[2]:
        raise wrong(field, "it is the model's own name")
    if "/" in alias and alias.partition("/")[0] in names.backends:
        raise wrong(field, "it begins with a backend's name, and would lead to that backend's models")
    leads = alias if alias in names.configured else next((g for g in names.globs if fnmatchcase(alias, g)), None)
    if leads is not None:
        raise _conflict(field, f"'{alias}' leads to the configuration file's '{leads}'; take another")
    if (other := names.name_of(alias, id_)) is not None:
        raise _conflict(field, f"'{alias}' is what '{other}' is called; take another")


def _conflict(field: str, cure: str) -> Conflict:
    return Conflict(f"Invalid value for '{field}': {cure}.", param=field)

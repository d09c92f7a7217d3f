"""What a caller may do: the grant that authentication gives out, and that everything later asks."""

from fnmatch import fnmatchcase

from msgspec import Struct

from compat.canonical.principal import Principal
from gateway.settings import SCOPES, Limit


class Grant(Struct, frozen=True, kw_only=True):
    principal: Principal
    key_id: str | None = None
    """The key it came with: an issued one's id, a configured one's name.  None for tokens, and without auth."""
    models: tuple[str, ...] | None = None
    """Names that may be asked for, or BACKEND/MODEL, globs allowed; None is any."""
    backends: frozenset[str] | None = None
    """Backends that may answer; None is any."""
    limit: Limit | None = None
    """The key's own limit; None is the configuration's."""

    @property
    def restricted(self) -> bool:
        return self.models is not None or self.backends is not None

    def may_ask(self, name: str) -> bool:
        """Whether a model may be asked for by this name."""
        return self.models is None or any(fnmatchcase(name, allowed) for allowed in self.models)

    def may_use(self, backend: str) -> bool:
        return self.backends is None or backend in self.backends

    def covers(self, id_: str) -> bool:
        """Whether a model may be asked for by its whole id, BACKEND/NAME."""
        return self.may_ask(id_) and self.may_use(id_.partition("/")[0])


def expanded(scopes: tuple[str, ...]) -> frozenset[str]:
    """The scopes that these amount to."""
    return SCOPES if "admin" in scopes else frozenset(scopes)


LOCAL = Grant(principal=Principal(id="local", scopes=SCOPES))
"""Everybody, where no key is needed."""

"""Who asks."""

from compat.canonical.message import Value

Scope = str


class Principal(Value, frozen=True):
    """The caller as authentication established it."""

    id: str
    """The key's or user's name, for logs and usage; never a secret."""
    tenant: str = "default"
    scopes: frozenset[Scope] = frozenset()

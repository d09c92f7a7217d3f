"""Whether somebody has a local model, or waits for it, so that its files must stay."""

from typing import TYPE_CHECKING

from backends.base import IN_MEMORY, Loads
from compat.canonical.error import GatewayError

if TYPE_CHECKING:
    from gateway.house import Estate


def occupied(estate: "Estate", id_: str) -> bool:
    """By what its backend says of it now."""
    name, _, model = id_.partition("/")
    backend: object = estate.backends.get(name)
    if not isinstance(backend, Loads):
        return False
    try:
        standing = backend.standing(model)
    except GatewayError:  # it has no such model
        return False
    return standing["status"] in IN_MEMORY | {"queued"} or bool(standing["running"] or standing["waiting"])

"""An artifact: a picture, a mesh, a poster or a long text that a request left behind, or that a client gave."""

from typing import Any, Literal

from msgspec import Struct

Kind = Literal["image", "mesh", "poster", "text", "file"]
"""poster: a picture of the mesh that is its parent; file: anything else, like sound."""


class Artifact(Struct, frozen=True, kw_only=True):
    """What is known of it; its bytes are in the store, once for all artifacts of a tenant with the same hash."""

    id: str
    """`art_…`, sortable by time."""
    tenant: str
    owner: str
    """The principal who had it made."""
    key_id: str | None
    """The key that it came with, and whose quota it counts for; None for tokens, and without auth."""
    kind: Kind
    mime: str
    name: str | None
    """A file name for whoever saves it: never a path."""
    size_bytes: int
    sha256: str
    """Of its bytes, in hex."""
    meta: dict[str, Any] = {}
    """What is known of its contents: `width` and `height` of a picture, a mesh's `vertices`, `faces`, `bounds` and
    `watertight`, `prompt`."""
    parent_id: str | None = None
    """What it was made from: the mesh of a poster, the original of a conversion.  It goes when that goes."""
    request_id: str | None = None
    """The request that made it; None where a client gave it."""
    created_at: float
    """Seconds since 1970, UTC, like the next."""
    expires_at: float | None
    """When it is removed unless a session holds it; None: never."""

"""What was said: messages and the parts they are made of.

Pure values: no identity, no provider, no storage; two messages with the same content are equal.
Every wire format is translated to and from this shape, so a new format costs one translation
instead of one per provider.
"""

from typing import Any, Literal

from msgspec import Struct


class Value(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An immutable value of the internal model."""


class Tagged(Value, frozen=True, tag_field="kind", tag=str.lower):
    """A value that is one alternative of a union; `kind` names it when encoded."""


class Text(Tagged, frozen=True):
    text: str
    extra: dict[str, Any] = {}
    """Fields of the part that the model does not name (`cache_control`, …), decoded, order kept."""


GLB = "model/gltf-binary"
"""What backends make meshes as."""


class Media(Tagged, frozen=True):
    """A picture, sound, document or mesh.  Exactly one of `data` and `url` is set."""

    mime: str
    data: bytes | None = None
    url: str | None = None
    name: str | None = None
    """File name, where the client gave one."""
    extra: dict[str, Any] = {}


class Stored(Value, frozen=True):
    """That a picture or a mesh is kept here: stands in its media's `extra["stored"]`."""

    id: str
    """The artifact's."""
    url: str
    """Signed: gives it to whoever has it."""
    expires_at: float
    """Of the URL; seconds since 1970, UTC."""
    size_bytes: int
    sha256: str
    poster_url: str | None = None
    """A picture of a mesh, as a signed URL."""


class Reasoning(Tagged, frozen=True):
    text: str
    signature: str | None = None
    """Opaque proof that Anthropic wants back unchanged on the next turn."""
    redacted: str | None = None
    """The whole of a redacted block, opaque, instead of text."""


class ToolCall(Tagged, frozen=True):
    id: str
    name: str
    arguments: str
    """JSON text exactly as the model wrote it, which may be invalid JSON."""
    extra: dict[str, Any] = {}


class Opaque(Tagged, frozen=True):
    """A part that only the dialect it was written in understands: a server tool's call, a file's id, …"""

    type: str
    body: dict[str, Any]
    """The whole part, decoded, its type included."""
    said: "tuple[Text | Media, ...]" = ()
    """What it says, for models that do not know its kind; empty when that cannot be said."""


class ToolResult(Tagged, frozen=True):
    id: str
    parts: tuple[Text | Media | Opaque, ...]
    failed: bool = False
    extra: dict[str, Any] = {}


Part = Text | Media | Reasoning | ToolCall | ToolResult | Opaque
Role = Literal["system", "developer", "user", "assistant", "tool"]


class Message(Value, frozen=True):
    role: Role
    parts: tuple[Part, ...]
    extra: dict[str, Any] = {}

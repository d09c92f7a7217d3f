"""What can be asked: a model as a backend or the registry describes it."""

from typing import Literal

from compat.canonical.message import Value

Modality = Literal["text", "embedding", "image", "3d", "rerank"]


class Model(Value, frozen=True):
    """A model someone can name.  None means unknown."""

    name: str
    """The backend's own name for it."""
    backend: str
    modality: Modality = "text"
    capabilities: tuple[str, ...] = ()
    context_length: int | None = None
    """In tokens."""
    status: str | None = None
    size_bytes: int | None = None
    quantization: str | None = None
    source: str | None = None
    license: str | None = None
    """In SPDX's words, in lower case, where it has one."""
    created: int = 0
    """Seconds since 1970, UTC; 0 when the backend does not say."""
    owned_by: str | None = None
    parameters: int | None = None
    """How many numbers its weights are."""
    version: str | None = None
    """Of its repository: the commit that its files are from."""
    memory_bytes: int | None = None
    """What it takes when it is loaded, as measured, else as estimated."""
    gated: bool | None = None
    """Its makers want their licence accepted before they hand it out."""
    price: str | None = None
    """Its class: `free`, `paid` or `local`."""
    aliases: tuple[str, ...] = ()
    """Other names that clients may ask for it by."""
    tags: tuple[str, ...] = ()
    summary: str | None = None
    """A sentence or two from its card."""

    @property
    def id(self) -> str:
        """The name under which clients address it: BACKEND/MODEL."""
        return f"{self.backend}/{self.name}"

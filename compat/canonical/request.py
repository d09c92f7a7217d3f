"""What was asked: the envelope every request arrives in, and one request type per task."""

from typing import Any, Literal

from msgspec import Raw, Struct

from compat.canonical.message import Media, Message, Opaque, Tagged, Value

Dialect = Literal[
    "chat", "completions", "embeddings", "rerank", "images", "image_edits", "3d", "responses", "messages", "native"
]
"""A wire format a client may speak; relaying backends name those they speak themselves."""


class Envelope(Struct, kw_only=True, frozen=True, weakref=True):
    """A request peeked at: enough to route it, while its fields stay raw bytes.

    Of two equal keys the last one counts, in `fields` and in everything rebuilt from them.
    """

    dialect: Dialect
    model: str
    """As the client asked for it; empty when the body names none."""
    stream: bool
    fields: dict[str, Raw]
    """The body's top-level fields in their order, values as the client's own bytes.  Of a form: those
    that are not files, as JSON strings."""
    body: bytes
    content_type: str = ""
    """Of a body that is a form (multipart/form-data), boundary included; empty for JSON."""
    headers: dict[str, str] = {}
    """The client's headers that belong to its dialect (`anthropic-beta`, …), names in lower case."""
    wants_usage: bool = True
    """False when the answer is streamed and the client did not ask for usage in it."""


class Sampling(Value, frozen=True):
    """How to draw tokens.  None everywhere means: the backend's own default."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None


class Tool(Value, frozen=True):
    name: str
    parameters: dict[str, Any]
    """JSON Schema, untouched."""
    description: str | None = None
    strict: bool | None = None
    extra: dict[str, Any] = {}
    """Fields that the model does not name (`cache_control`, …), decoded, order kept."""


class Schema(Value, frozen=True):
    """A structure the answer must have: OpenAI's `response_format`."""

    name: str
    schema: dict[str, Any] | None
    """JSON Schema; None asks for any JSON object."""
    strict: bool | None = None


class TextRequest(Tagged, frozen=True):
    model: str
    messages: tuple[Message, ...]
    sampling: Sampling = Sampling()
    tools: tuple[Tool | Opaque, ...] = ()
    """Opaque ones are the provider's own (web search, …)."""
    tool_choice: str | None = None
    """"auto", "none", "required", or "=" and the name of one tool."""
    parallel_tools: bool | None = None
    schema: Schema | None = None
    effort: str | None = None
    choices: int = 1
    user: str | None = None
    extra: dict[str, Any] = {}
    """Fields of the client's dialect that the model does not name, decoded, order kept."""
    dialect: Dialect = "chat"
    """Whose fields the `extra` here and in the parts are, and whose parts the opaque ones."""
    state: dict[str, Any] = {}
    """What providers gave to be brought back, by name: each backend takes those its provider has, and no other is
    sent."""


class EmbeddingRequest(Tagged, frozen=True):
    model: str
    inputs: tuple[str | tuple[int, ...], ...]
    """Texts, or texts as token ids."""
    dimensions: int | None = None
    user: str | None = None
    extra: dict[str, Any] = {}


class ImageRequest(Tagged, frozen=True):
    """Make pictures from a prompt; with `images`, change those."""

    model: str
    prompt: str
    images: tuple[Media, ...] = ()
    mask: Media | None = None
    """Transparent where the picture is to change."""
    count: int = 1
    size: str | None = None
    """WIDTHxHEIGHT in pixels, or the provider's own word."""
    previews: int = 0
    """How many pictures of the work on the way a streaming client wants, for each one it gets."""
    user: str | None = None
    extra: dict[str, Any] = {}


class MeshRequest(Tagged, frozen=True):
    """Make a mesh (a 3D model) from words or a picture.  What backends give is GLB: Y up, metres."""

    model: str
    prompt: str = ""
    image: Media | None = None
    seed: int | None = None
    user: str | None = None
    extra: dict[str, Any] = {}
    """The engine's own parameters (`steps`, `guidance`, `resolution`, …)."""


class RerankRequest(Tagged, frozen=True):
    """Say how well each document answers a query."""

    model: str
    query: str
    documents: tuple[str, ...]
    top: int | None = None
    """How many of the best to name; None is all of them."""
    extra: dict[str, Any] = {}


Request = TextRequest | EmbeddingRequest | RerankRequest | ImageRequest | MeshRequest

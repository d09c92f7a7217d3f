"""What a backend is: something that answers requests.

A backend knows its provider or engine and nothing of HTTP requests, routes or storage.  It never
retries: routing does.  Everything it raises is a `GatewayError` of `compat.canonical.error`.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from types import TracebackType
from typing import Annotated, Any, Literal, Protocol, TypeVar, runtime_checkable

from msgspec import Meta, Struct, field

from compat.canonical.error import InvalidRequest
from compat.canonical.event import Event, Usage
from compat.canonical.model import Model
from compat.canonical.principal import Principal
from compat.canonical.request import (
    Dialect,
    EmbeddingRequest,
    Envelope,
    ImageRequest,
    MeshRequest,
    Request,
    RerankRequest,
    TextRequest,
)

T = TypeVar("T")
Seconds = Annotated[float, Meta(gt=0)]
Price = Literal["free", "paid", "local"]
"""The class of price of a model: paid by use, free (with or without a quota), or run by ourselves."""


class Timeouts(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How long each phase of one attempt may take, in seconds."""

    connect_s: Seconds = 5.0
    first_token_s: Seconds = 120.0
    """From the request being sent to the first byte of content."""
    idle_s: Seconds = 60.0
    """Between two pieces of a stream."""
    total_s: Seconds = 600.0
    """The whole request, waiting and all attempts included."""


HINTS = frozenset({"cache_control", "eager_input_streaming", "prompt_cache_key", "prompt_cache_retention"})
"""Fields that change what an answer costs or in what pieces it comes, never what it says: left out, they are
named like others, but nobody has to be refused for them."""


class Wait(Struct, kw_only=True):
    """What a request waited for before its backend began; written by the backend, read by the house."""

    queue_position: int | None = None
    """0 when it is next; None when it is not queued (any more)."""
    first_position: int | None = None
    """The place it got when it came into a queue; None: it never had to wait."""
    queue_s: float = 0.0
    load_s: float = 0.0
    held: bool = False
    """It waits now, in a queue or for a local model to load: no provider has it."""
    eta_s: float | None = None
    """While it is held: how long that may still take, by what is remembered of the model; None: nobody knows."""
    loading: float | None = None
    """While its model loads: how far that is, 0 to 1."""
    step: int = 0
    steps: int = 0
    """Of a picture or a mesh that is being made; 0 of 0 before it is begun."""


class Call(Struct, kw_only=True):
    """What surrounds one request: who asks, and when to stop."""

    request_id: str
    principal: Principal
    deadline: float
    """On the event loop's clock, in seconds."""
    timeouts: Timeouts = Timeouts()
    wait: Wait = field(default_factory=Wait)
    streamed: bool = True
    """The client wants pieces as they come; for one that does not, a provider may be asked for a whole answer."""
    traceparent: str | None = None
    """The header of that name for the provider; only while requests are traced."""
    strict: bool = False
    """Refuse what cannot be carried over, instead of leaving it out."""
    patient: bool = True
    """Wait for a local model to load; else it is begun to load, ModelLoading is raised, and another route is asked."""
    dropped: list[str] = field(default_factory=list)
    """What was left out, by the client's names; complete before the first event."""
    headers: list[tuple[str, str]] = field(default_factory=list)
    """The provider's headers that may reach the client, as in `Relayed`; filled by `run` before the first event."""
    origin: object = None
    """The house's own note of the request, for the ports it lends; means nothing to a backend."""

    def drop(self, *names: str) -> None:
        """Leave fields of the request out.  Raises InvalidRequest if the client forbade that."""
        missed = [name for name in names if name not in HINTS]
        if missed and self.strict:
            raise InvalidRequest(
                f"'{missed[0]}' cannot be carried over to this model's provider.",
                param=missed[0],
                code="unsupported_parameter",
            )
        self.dropped += [name for name in names if name not in self.dropped]


@runtime_checkable
class Backend(Protocol):
    """Something that answers requests.  Implementations are safe to share between tasks."""

    name: str

    def run(self, request: Request, call: Call) -> AsyncGenerator[Event, None]:
        """Answer one request in events.

        The caller closes the generator, which stops the work behind it within a second.  Raises
        GatewayError; before the first event if the request never began.
        """
        ...

    async def models(self) -> Sequence[Model]:
        """What it offers now.  Raises BackendError when it cannot be asked."""
        ...

    async def aclose(self) -> None:
        """Release every connection and process.  Requests under way end with an error."""
        ...


class Tally(Protocol):
    """What passed through a relayed answer so far."""

    usage: Usage | None
    model: str | None
    began: bool
    """Content has been seen: the answer can no longer be taken back."""
    finished: bool
    """The terminal event has been seen (or the whole body, when not streamed)."""


class Relayed(Struct, kw_only=True):
    """A provider's answer in the client's own dialect.  Exactly one of `body` and `frames` is set."""

    headers: Sequence[tuple[str, str]]
    """The provider's headers that may reach the client, names in lower case."""
    tally: Tally
    body: bytes | None = None
    frames: AsyncGenerator[bytes, None] | None = None
    """Whole SSE events, one or more a piece, separators included.  The receiver closes it, which
    stops the provider.  Raises BackendError if it ends without its terminal event."""


class Held(AsyncGenerator[T, None]):
    """A stream that holds something until it ends or is closed.

    A generator function could not: closed before its first step, it never reaches its `finally`.
    """

    def __init__(self, stream: AsyncGenerator[T, None], release: Callable[[], Awaitable[None]]) -> None:
        self._stream = stream
        self._release = release
        """May be called more than once."""

    async def asend(self, value: None) -> T:
        try:
            return await self._stream.asend(value)
        except BaseException:
            await self._release()
            raise

    async def athrow(self, typ: Any, val: BaseException | object = None, tb: TracebackType | None = None) -> T:
        try:
            return await self._stream.athrow(typ, val, tb)
        except BaseException:
            await self._release()
            raise

    async def aclose(self) -> None:
        try:
            await self._stream.aclose()
        finally:
            await self._release()


@runtime_checkable
class Relays(Protocol):
    """A backend that speaks a client's dialect itself, so that bytes need no translation."""

    dialects: frozenset[Dialect]

    async def relay(self, envelope: Envelope, model: str, call: Call) -> Relayed:
        """Send the body on under `model`, the backend's own name, and hand the answer back.

        Returns once the provider has accepted (its head arrived).  Raises GatewayError.
        """
        ...


@runtime_checkable
class Translates(Protocol):
    """A backend that relays, but answers some requests of the dialects it speaks only when they are translated."""

    def translates(self, envelope: Envelope, model: str) -> bool:
        """Whether this one has to go through `run`.  Cheap: every request is asked about."""
        ...


@runtime_checkable
class Priced(Protocol):
    """A backend that knows what class of price its models have: free, paid or local."""

    price: Price | None


@runtime_checkable
class Prefills(Protocol):
    """A backend that knows whether it goes on with an assistant's message that ends a request."""

    prefills: bool | None
    """None: unknown.  One that says True refuses where it cannot, rather than begin a new turn."""


@runtime_checkable
class KeepsResponses(Protocol):
    """A backend whose provider keeps the responses it has given, under its own ids."""

    async def kept_response(self, method: str, id_: str, part: str = "", query: str = "") -> bytes:
        """Ask for a response, or for the `part` of it that a path names (`/input_items`, `/cancel`).

        method: GET, POST or DELETE; query: as it stood in the client's URL.  Raises GatewayError.
        """
        ...


@runtime_checkable
class Probed(Protocol):
    """A backend that can tell whether it would serve.  Others are taken to be ready."""

    async def ready(self) -> str | None:
        """None when it would serve, else why not, in words fit for a status page."""
        ...


@runtime_checkable
class CountsTokens(Protocol):
    """A backend that can tell how long a prompt is without answering it."""

    async def count_tokens(self, envelope: Envelope, model: str, call: Call) -> int:
        """The tokens of a request in Anthropic's dialect, tools and system prompt included.  Raises GatewayError."""
        ...


IN_MEMORY = frozenset({"loading", "ready", "busy", "draining"})
"""How a model stands that takes memory."""


@runtime_checkable
class Loads(Protocol):
    """A backend whose models are in memory or not, and can be told to be."""

    async def load(self, model: str, call: Call) -> None:
        """Return once it is in memory.  Raises GatewayError."""
        ...

    async def unload(self, model: str, *, force: bool = False) -> None:
        """Let nothing new in, wait for what runs, and return when its memory is free.

        Raises Conflict for a pinned one unless forced; ModelNotFound.
        """
        ...

    def standing(self, model: str) -> dict[str, Any]:
        """How it stands now, fit for JSON: status, requests running and waiting, memory, last failure, …"""
        ...

    def lacks(self, model: str) -> str | None:
        """What the model needs that is not installed here, and how it comes to be; None where nothing is missing."""
        ...

    def counts(self) -> dict[str, float]:
        """Of its models together, for metrics: loaded, max_loaded, memory_bytes, memory_max_bytes and waiting; and
        since it was connected loads, evictions and crashes.
        """
        ...

    def warm(self) -> None:
        """Begin to load what is pinned.  Called once, when the house is open."""
        ...


@runtime_checkable
class Succeeds(Protocol):
    """A backend that goes on with what runs in the one whose place it takes."""

    def succeed(self, old: Backend) -> None:
        """Take over, if `old` is of its kind.  Called once, before it is asked anything; `old` still answers those
        who have it, and is closed after them without ending what it gave away.
        """
        ...


_TASKS: dict[type[Request], str] = {
    TextRequest: "text",
    EmbeddingRequest: "embeddings",
    RerankRequest: "reranking",
    ImageRequest: "images",
    MeshRequest: "3D",
}


def unfit(backend: str, request: Request) -> InvalidRequest:
    """The refusal of a task that a backend does not do."""
    task = _TASKS[type(request)]
    return InvalidRequest(f"Backend '{backend}' does not do {task}.", param="model", code="unsupported_value")

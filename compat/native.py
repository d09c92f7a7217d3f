"""The bodies of POST /v1/generate, both directions: the gateway's own dialect (docs/native.md)."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec
from msgspec import Struct

from compat.body import missing, read, read_fields
from compat.canonical.error import GatewayError, InvalidRequest
from compat.canonical.event import Event, Finished, Reason, ReasoningDelta, Result, TextDelta, ToolDelta, Usage
from compat.canonical.message import Media, Message, Part, Reasoning, Text, ToolCall
from compat.canonical.request import Envelope, Sampling, TextRequest
from compat.openai.error import render_error
from compat.openai.part import media_of_url, parse_message
from compat.sse import frame

SelectionMode = Literal["auto", "local_only", "free_only", "commercial_only"]


class Input(Struct, forbid_unknown_fields=True):
    """What to answer: a prompt or messages, with pictures if the model takes them."""

    prompt: str | None = None
    messages: list[dict[str, Any]] = []
    """OpenAI's chat messages."""
    images: list[str] = []
    """`https:` or `data:` URLs."""


class Parameters(Struct, forbid_unknown_fields=True):
    """How to draw tokens; what is left out is the backend's own default."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    max_tokens: int | None = None
    stop: str | list[str] | None = None
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None


class Generate(Struct, forbid_unknown_fields=True):
    """A request to generate; only `input` is required."""

    input: Input
    model: str | None = None
    provider: str | None = None
    """The backend to use, by its name in the configuration."""
    modality: Literal["text", "image", "3d", "embedding"] | None = None
    parameters: Parameters = msgspec.field(default_factory=Parameters)
    stream: bool = False
    session_id: str | None = None
    state: dict[str, Any] = {}
    selection_mode: SelectionMode = "auto"


class Selection(Struct):
    """Why this model answered."""

    requested: str
    reason: str
    fallback: bool = False
    attempts: int = 1


class Timing(Struct):
    """Where the time went, in seconds."""

    queue_s: float = 0.0
    load_s: float = 0.0
    first_token_s: float | None = None
    total_s: float = 0.0


class Tokens(Struct):
    """What it cost; null where the backend does not say."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None


class Output(Struct):
    text: str
    artifacts: list[dict[str, Any]] = []
    reasoning: str | None = None
    tool_calls: list[dict[str, Any]] | None = None


class Generation(Struct, kw_only=True):
    """A whole answer."""

    id: str
    object: str = "generation"
    created_at: str
    """ISO 8601, UTC."""
    model: str
    """The model that answered, as its backend reports it."""
    backend: str
    modality: str = "text"
    output: Output
    finish_reason: Reason
    usage: Tokens
    selection: Selection
    session_id: str | None = None
    state: dict[str, Any] = {}
    timing: Timing


_read = msgspec.json.Decoder(Generate)
_write = msgspec.json.Encoder().encode


def peek(body: bytes) -> Envelope:
    """Read a request.  Raises InvalidRequest."""
    fields = read_fields(body)
    asked = read(body, _read)
    if asked.input.prompt is None and not asked.input.messages:
        raise missing("input.prompt")
    if asked.input.prompt is not None and asked.input.messages:
        raise InvalidRequest("Give either 'input.prompt' or 'input.messages', not both.", param="input.messages")
    if asked.modality not in (None, "text"):
        raise InvalidRequest(
            f"No backend answers modality '{asked.modality}' yet.", param="modality", code="invalid_value"
        )
    if asked.session_id is not None:
        raise InvalidRequest(
            "Sessions are not available on this gateway yet.", param="session_id", code="invalid_value"
        )
    model = asked.model or ""
    if asked.provider is not None:
        if not model:
            raise missing("model")
        model = f"{asked.provider}/{model}"
    return Envelope(dialect="native", model=model, stream=asked.stream, fields=fields, body=body)


def parse_request(envelope: Envelope) -> TextRequest:
    """Read a request whole.  Raises InvalidRequest."""
    asked = read(envelope.body, _read)
    p = asked.parameters
    messages = [parse_message(m, f"input.messages[{n}]") for n, m in enumerate(asked.input.messages)]
    images: list[Media] = [
        media_of_url(url, f"input.images[{n}]", "image/*", {}) for n, url in enumerate(asked.input.images)
    ]
    if asked.input.prompt is not None:
        messages.append(Message(role="user", parts=(Text(text=asked.input.prompt), *images)))
    elif images:
        last = messages[-1]
        messages[-1] = msgspec.structs.replace(last, parts=(*last.parts, *images))
    return TextRequest(
        model=envelope.model,
        messages=tuple(messages),
        sampling=Sampling(
            temperature=p.temperature,
            top_p=p.top_p,
            top_k=p.top_k,
            max_tokens=p.max_tokens,
            stop=() if p.stop is None else (p.stop,) if isinstance(p.stop, str) else tuple(p.stop),
            seed=p.seed,
            presence_penalty=p.presence_penalty,
            frequency_penalty=p.frequency_penalty,
        ),
    )


def generation(
    id_: str, envelope: Envelope, result: Result, *, backend: str, selection: Selection, timing: Timing
) -> Generation:
    """The whole answer to a request."""
    choice = result.choices[0]
    return Generation(
        id=id_,
        created_at=datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        model=result.started.model,
        backend=backend,
        output=_output(choice.parts),
        finish_reason=choice.finished.reason,
        usage=_tokens(result.usage),
        selection=selection,
        timing=timing,
        state=msgspec.json.decode(envelope.fields["state"]) if "state" in envelope.fields else {},
    )


def render_result(whole: Generation) -> bytes:
    return _write(whole)


def render_started(id_: str, model: str, backend: str) -> bytes:
    """The first event of a streamed answer."""
    return frame(_write({"id": id_, "object": "generation", "model": model, "backend": backend}), "generation.started")


async def render_deltas(events: AsyncGenerator[Event, None]) -> AsyncGenerator[bytes, None]:
    """The events between the first and the last of a streamed answer."""
    async with aclosing(events):
        async for event in events:
            match event:
                case TextDelta(text=text):
                    yield frame(_write({"delta": text}), "text.delta")
                case ReasoningDelta(text=text):
                    yield frame(_write({"delta": text}), "reasoning.delta")
                case ToolDelta():
                    piece = {"index": event.call, "id": event.id, "name": event.name, "delta": event.arguments}
                    yield frame(_write(piece), "tool_call.delta")
                case Finished():
                    pass


def render_completed(whole: Generation) -> bytes:
    """The last event of a streamed answer: the whole of it."""
    return frame(_write(whole), "generation.completed")


def render_error_frame(error: GatewayError) -> bytes:
    """The last event of a stream that failed."""
    return frame(render_error(error), "error")


def _output(parts: tuple[Part, ...]) -> Output:
    calls = [{"id": p.id, "name": p.name, "arguments": p.arguments} for p in parts if isinstance(p, ToolCall)]
    return Output(
        text="".join(part.text for part in parts if isinstance(part, Text)),
        artifacts=[],
        reasoning="".join(part.text for part in parts if isinstance(part, Reasoning)) or None,
        tool_calls=calls or None,
    )


def _tokens(usage: Usage) -> Tokens:
    return Tokens(
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cached_tokens=usage.cached_tokens,
        reasoning_tokens=usage.reasoning_tokens,
    )

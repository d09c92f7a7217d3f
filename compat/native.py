"""The bodies of POST /v1/generate, both directions: the gateway's own dialect (docs/native.md).

One request for every modality; `compat.nativetask` says what each of them takes.
"""

import hashlib
import re
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from compat import mesh
from compat.body import missing, read, read_fields
from compat.canonical.error import GatewayError, InvalidRequest
from compat.canonical.event import (
    Event,
    Finished,
    Produced,
    Progress,
    Reason,
    ReasoningDelta,
    Result,
    TextDelta,
    ToolDelta,
    Usage,
)
from compat.canonical.message import Media, Part, Reasoning, Stored, Text, ToolCall
from compat.canonical.model import Modality
from compat.canonical.request import Envelope, Request
from compat.mesh import Facts, Format, formats_of, iso, poster_url, render_progress
from compat.nativetask import Input, Parameters, check_parameters, references, task
from compat.openai.part import url_of_made
from compat.sse import frame

SelectionMode = Literal["auto", "local_only", "free_only", "commercial_only"]


class Generate(Struct, forbid_unknown_fields=True):
    """A request to generate; only `input` is required."""

    input: Input
    model: str | None = None
    provider: str | None = None
    """The backend to use, by its name in the configuration; without a model, its only one."""
    modality: Literal["text", "image", "3d", "3D", "embedding"] | None = None
    parameters: Parameters | None = None
    stream: bool | None = None
    session_id: str | None = None
    """The conversation that it goes on with."""
    state: dict[str, Any] | None = None
    selection_mode: SelectionMode | None = None
    """`auto` if unsaid."""


_NONE: Mapping[str, Media] = {}
_SIGNS = (b'"images"', b'"image_url"', b"\\u")
"""Without one of these, an input names no pictures: most do not, and are not read twice."""
_PLACES = {name: f"parameters.{name}" for name in Parameters.__struct_fields__}
_PLACES |= {name: f"input.{name}" for name in Input.__struct_fields__} | {"image": "input.images"}
"""Where the fields stand that backends know by their bare names."""
_MESSAGE = re.compile(r"messages\[\d+\]").match


class Errors(mesh.Errors):
    """How an error is written: with the whole path of what is wrong."""

    def __init__(self, said: str | None = None) -> None:
        """said: what stands for a message that the client did not send as one."""
        self._said = said

    def body(self, error: GatewayError) -> bytes:
        return super().body(_placed(error, self._said))

    def frame(self, error: GatewayError) -> bytes:
        return super().frame(_placed(error, self._said))


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


class Artifact(Struct, kw_only=True):
    """A picture, or a mesh in one format."""

    id: str | None = None
    """Null where its provider keeps it."""
    url: str
    """Signed: gives it to whoever has it; or where its provider keeps it for a while."""
    expires_at: str | None = None
    """Of the URL, not of the artifact; ISO 8601, UTC."""
    mime: str
    bytes: int | None
    """Null where its provider keeps it; so is `sha256`."""
    sha256: str | None
    mesh: Facts | UnsetType = UNSET
    poster_url: str | UnsetType = UNSET
    """A picture of the mesh."""


class Output(Struct):
    text: str
    artifacts: list[Artifact] = []
    reasoning: str | None = None
    tool_calls: list[dict[str, Any]] | None = None
    embedding: tuple[float, ...] | None = None


class LeftOut(Struct, frozen=True, kw_only=True):
    """What of a session its model was not told."""

    policy: Literal["error", "drop_oldest", "summarize"]
    dropped_messages: int
    dropped: list[str]
    """The ids of these messages, oldest first."""
    summarized: bool
    """A summary stands for them."""
    artifacts: list[str] = []
    """Pictures that it was told of, and not shown."""


class InSession(Struct, frozen=True):
    """Where an answer stands."""

    session_id: str
    message_id: str
    context: LeftOut | None
    """None where nothing was left out."""


class Generation(Struct, kw_only=True):
    """A whole answer."""

    id: str
    object: str = "generation"
    created_at: str
    """ISO 8601, UTC."""
    model: str
    """The model that answered, as its backend reports it."""
    backend: str
    modality: Modality = "text"
    output: Output
    finish_reason: Reason
    usage: Tokens
    selection: Selection
    session_id: str | None = None
    message_id: str | UnsetType = UNSET
    """Only in a session, like the next: the answer's, among its messages."""
    context: LeftOut | UnsetType | None = UNSET
    state: dict[str, Any] = {}
    timing: Timing


class Regenerate(Struct, forbid_unknown_fields=True):
    """A request to answer anew; the older answer is kept as an alternative."""

    message_id: str | None = None
    """The answer, or the message that it answers; the session's last one if unsaid."""
    model: str | None = None
    """As for the older answer if unsaid, like the parameters, of which each may be changed by itself."""
    parameters: Parameters | None = None
    stream: bool = False


_read = msgspec.json.Decoder(Generate)
_read_regenerate = msgspec.json.Decoder(Regenerate)
_read_parameters = msgspec.json.Decoder(Parameters | None)
_read_input = msgspec.json.Decoder(Input)
_write = msgspec.json.Encoder().encode


def peek(body: bytes) -> Envelope:
    """Read a request.  Raises InvalidRequest."""
    fields = read_fields(body)
    asked = read(body, _read)
    if asked.input.prompt is None and not asked.input.messages and not asked.input.images:
        raise missing("input.prompt")
    if asked.input.prompt is not None and asked.input.messages:
        raise InvalidRequest("Give either 'input.prompt' or 'input.messages', not both.", param="input.messages")
    if asked.modality == "3D":
        asked.modality, fields["modality"] = "3d", Raw(b'"3d"')
    if asked.modality is not None and asked.parameters is not None:
        check_parameters(asked.modality, asked.parameters)
    model = asked.model or ""
    if asked.provider is not None:
        model = f"{asked.provider}/{model}"
    if asked.selection_mode is None:
        fields.pop("selection_mode", None)
    return Envelope(dialect="native", model=model, stream=asked.stream or False, fields=fields, body=body)


def peek_turn(body: bytes) -> Envelope:
    """Read a request whose session its path names.  Raises InvalidRequest."""
    envelope = peek(body)
    if session_of(envelope) is not None:
        raise InvalidRequest(
            "The session is named by the path: leave 'session_id' out.", param="session_id", code="unknown_parameter"
        )
    return envelope


def peek_regenerate(body: bytes) -> Envelope:
    """Read a request to answer anew.  Raises InvalidRequest."""
    fields = read_fields(body)
    asked = read(body, _read_regenerate)
    return Envelope(dialect="native", model=asked.model or "", stream=asked.stream, fields=fields, body=body)


def session_of(envelope: Envelope) -> str | None:
    """The session that a request names."""
    raw = envelope.fields.get("session_id")
    id_: str | None = None if raw is None else msgspec.json.decode(raw)
    return id_


def as_modality(envelope: Envelope, modality: Modality) -> Envelope:
    """The envelope of a request that did not say what it wants made.  Raises InvalidRequest where that cannot be asked
    for here.
    """
    if modality == "rerank":
        raise InvalidRequest("This model ranks documents: ask it by /v1/rerank.", param="model", code="invalid_value")
    check_parameters(modality, _parameters(envelope))
    return msgspec.structs.replace(envelope, fields=envelope.fields | {"modality": Raw(_write(modality))})


def modality_of(envelope: Envelope) -> Modality | None:
    """What a request says that it wants made."""
    said = envelope.fields.get("modality")
    modality: Modality | None = None if said is None else msgspec.json.decode(said)
    return modality


def formats(envelope: Envelope) -> tuple[Format, ...]:
    """Of the files that a mesh is wanted as.  Raises InvalidRequest."""
    return formats_of(_parameters(envelope).output_formats, "parameters.output_formats")


def _parameters(envelope: Envelope) -> Parameters:
    """Not from the whole body: pictures are megabytes."""
    raw = envelope.fields.get("parameters", b"null")
    return read(bytes(raw), _read_parameters, "parameters") or Parameters()


def _placed(error: GatewayError, said: str | None) -> GatewayError:
    name = error.param or ""
    place = (said or f"input.{name}") if _MESSAGE(name) else _PLACES.get(name)
    if place is not None:
        error.param = place
        error.message = error.message.replace(f"'{name}'", f"'{error.param}'")
    return error


def named_pictures(envelope: Envelope) -> list[tuple[str, str]]:
    """The pictures that a request names instead of holding them: the path of each, and the URL or id there."""
    raw = bytes(envelope.fields["input"])
    if not any(sign in raw for sign in _SIGNS):
        return []
    return references(read(raw, _read_input, "input"))


def parse_request(envelope: Envelope, pictures: Mapping[str, Media] = _NONE) -> Request:
    """Read a request whole.  Raises InvalidRequest.

    pictures: those of `named_pictures`, by what stands for them.
    """
    asked = read(envelope.body, _read)
    modality = modality_of(envelope) or "text"
    return task(modality, envelope.model, asked.input, asked.parameters or Parameters(), pictures, asked.state or {})


def generation(
    id_: str,
    envelope: Envelope,
    result: Result,
    *,
    backend: str,
    selection: Selection,
    timing: Timing,
    place: InSession | None = None,
) -> Generation:
    """The whole answer to a request."""
    choice = result.choices[0]
    return Generation(
        id=id_,
        created_at=datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        model=result.started.model,
        backend=backend,
        modality=modality_of(envelope) or "text",
        output=_output(choice.parts, result),
        finish_reason=choice.finished.reason,
        usage=_tokens(result.usage),
        selection=selection,
        session_id=None if place is None else place.session_id,
        message_id=UNSET if place is None else place.message_id,
        context=UNSET if place is None else place.context,
        timing=timing,
        state=(msgspec.json.decode(envelope.fields.get("state", b"null")) or {}) | choice.finished.state,
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
                case Progress():
                    yield render_progress(event)
                case Produced(partial=None):
                    yield frame(_write(_artifact(event.media)), "artifact")
                case Finished():
                    pass


def render_completed(whole: Generation) -> bytes:
    """The last event of a streamed answer: the whole of it."""
    return frame(_write(whole), "generation.completed")


def _output(parts: tuple[Part, ...], result: Result) -> Output:
    calls = [{"id": p.id, "name": p.name, "arguments": p.arguments} for p in parts if isinstance(p, ToolCall)]
    return Output(
        text="".join(part.text for part in parts if isinstance(part, Text)),
        artifacts=[_artifact(one.media) for one in result.produced],
        reasoning="".join(part.text for part in parts if isinstance(part, Reasoning)) or None,
        tool_calls=calls or None,
        embedding=result.vectors[0] if result.vectors else None,
    )


def _artifact(media: Media) -> Artifact:
    data: bytes | None = media.data
    stored: Stored | None = media.extra.get("stored")
    return Artifact(
        id=None if stored is None else stored.id,
        url=url_of_made(media),
        expires_at=None if stored is None else iso(stored.expires_at),
        mime=media.mime,
        bytes=None if data is None else len(data),
        sha256=_hash(data, stored),
        mesh=media.extra.get("mesh", UNSET),
        poster_url=poster_url(media) or UNSET,
    )


def _hash(data: bytes | None, stored: Stored | None) -> str | None:
    if stored is not None:
        return stored.sha256
    return None if data is None else hashlib.sha256(data).hexdigest()


def _tokens(usage: Usage) -> Tokens:
    return Tokens(
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cached_tokens=usage.cached_tokens,
        reasoning_tokens=usage.reasoning_tokens,
    )

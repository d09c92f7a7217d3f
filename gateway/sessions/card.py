"""Sessions and their messages as clients see them."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal, TypeVar

import msgspec
from msgspec import Struct

from compat.native import Tokens
from compat.openai.conversations import artifact_of
from compat.openai.responses_item import Item, parse_thought
from gateway.auth.keycard import moment
from gateway.db.responses import Turn
from gateway.keeping import ContextPolicy
from gateway.sessions.said import Role, Said, said, texts_of
from gateway.sessions.session import Session, Status

T = TypeVar("T")

_CALLS = {"function_call": "arguments", "custom_tool_call": "input"}
_CUT = {"max_output_tokens": "length", "content_filter": "content_filter"}


class SessionCard(Struct, frozen=True, kw_only=True):
    """A session, without what was said in it."""

    id: str
    object: Literal["session"] = "session"
    title: str | None
    """Null until something has been said, unless its client gave one."""
    created_at: datetime
    last_used_at: datetime
    message_count: int
    """Of the line that is shown, without alternatives."""
    status: Status
    """closed: it can be read, and nothing else."""
    system: str | None
    model: str | None
    parameters: dict[str, Any]
    metadata: dict[str, Any]
    state: dict[str, Any]
    context: ContextPolicy | None
    """Null: as configured."""
    head: str | None
    """The answer that the next message goes on from."""
    closed_at: datetime | None


class Attached(Struct, frozen=True, kw_only=True):
    """A picture, a mesh or another thing in a message."""

    id: str
    kind: str | None
    mime: str | None
    bytes: int | None
    sha256: str | None
    name: str | None
    url: str | None
    """Signed: gives it to whoever has it, until it expires.  Null: it was deleted."""
    expires_at: datetime | None
    """Of the URL."""


class Alternative(Struct, frozen=True):
    """Another answer in the place of this one."""

    id: str
    created_at: datetime
    model: str | None


class Call(Struct, frozen=True):
    """A tool that the model wants called."""

    id: str
    name: str
    arguments: str


class MessageCard(Struct, frozen=True, kw_only=True):
    """What was said by one side; null is not known, or does not apply."""

    id: str
    object: Literal["session.message"] = "session.message"
    role: Role
    created_at: datetime
    status: str
    """incomplete: it was broken off."""
    text: str
    reasoning: str | None = None
    tool_calls: list[Call] | None = None
    tool_call_id: str | None = None
    """Of the call that this answers."""
    images: list[str] = []
    """Pictures that are not kept here, by their URL."""
    artifacts: list[Attached] = []
    modality: str | None = None
    model: str | None = None
    backend: str | None = None
    usage: Tokens | None = None
    finish_reason: str | None = None
    parameters: dict[str, Any] | None = None
    """What it was made with."""
    dropped: list[str] | None = None
    """Messages that were left out of the prompt, since the session had become too long for the model."""
    alternatives: list[Alternative] = []
    """PUT the session's `head` to choose one."""


def card(session: Session) -> SessionCard:
    return SessionCard(
        id=session.id,
        title=session.title,
        created_at=moment(session.created_at),
        last_used_at=moment(session.last_used_at),
        message_count=session.message_count,
        status=session.status,
        system=session.system,
        model=session.model,
        parameters=session.parameters,
        metadata=session.metadata,
        state=session.state,
        context=session.context,
        head=session.head,
        closed_at=None if session.closed_at is None else moment(session.closed_at),
    )


def named(turn: Turn) -> list[str]:
    """The ids of the artifacts in a turn."""
    return [id_ for item in (*turn.given, *turn.output) for id_ in _artifacts(item)]


def cards(turn: Turn, others: list[Alternative], known: Mapping[str, Attached]) -> list[MessageCard]:
    """The messages of a turn.

    others: alternatives to it.  known: the artifacts that there still are, by their ids.
    """
    shown = [_card(turn, message, known) for message in said(turn)]
    if shown and others:
        shown[-1] = msgspec.structs.replace(shown[-1], alternatives=others)
    return shown


def _card(turn: Turn, message: Said, known: Mapping[str, Attached]) -> MessageCard:
    items = message.items
    calls = [
        Call(item["call_id"], item["name"], item[_CALLS[item["type"]]]) for item in items if item["type"] in _CALLS
    ]
    thoughts = [parse_thought(item).text for item in items if item["type"] == "reasoning"]
    artifacts = [known.get(id_) or _gone(id_, item) for item in items for id_ in _artifacts(item)]
    plain = MessageCard(
        id=message.id,
        role=message.role,
        created_at=moment(turn.created_at),
        status=turn.status if message.answer else "completed",
        text=_text(message),
        reasoning="\n\n".join(filter(None, thoughts)) or None,
        tool_calls=calls or None,
        tool_call_id=items[0].get("call_id") if message.role == "tool" else None,
        images=[url for item in items for url in _urls(item)],
        artifacts=artifacts,
    )
    if not message.answer or not turn.backend:
        return plain
    usage = turn.usage
    return msgspec.structs.replace(
        plain,
        modality=turn.body.get("modality") or "text",
        model=turn.model or None,
        backend=turn.backend,
        usage=Tokens(usage.input_tokens, usage.output_tokens, usage.cached_tokens, usage.reasoning_tokens),
        finish_reason=_finish(turn, bool(calls)),
        parameters=_if(dict, turn.body.get("parameters")),
        dropped=_if(list, turn.body.get("dropped")),
    )


def _if(kind: type[T], value: Any) -> T | None:
    return value if isinstance(value, kind) else None


def _text(message: Said) -> str:
    if message.role != "tool":
        return "\n".join("".join(texts_of(item)) for item in message.items if item["type"] == "message")
    output = message.items[0].get("output")
    if isinstance(output, list):
        return "".join(str(part.get("text") or "") for part in output if isinstance(part, dict))
    return str(output or "")


def _finish(turn: Turn, calls: bool) -> str | None:
    if isinstance(reason := turn.body.get("finish_reason"), str):
        return reason
    details = turn.body.get("incomplete_details")
    if turn.status != "completed":
        return _CUT.get(details.get("reason", "")) if isinstance(details, dict) else None
    return "tool_calls" if calls else "stop"


def _artifacts(item: Item) -> list[str]:
    if item["type"] == "artifact":
        return [item["id"]]
    return [id_ for part in _parts(item) if (id_ := artifact_of(part)) is not None]


def _urls(item: Item) -> list[str]:
    urls = [
        part.get("image_url") for part in _parts(item) if part.get("type") == "input_image" and not artifact_of(part)
    ]
    # What is not kept as an artifact is the client's own address; a data URL is too long for a list.
    return [url for url in urls if isinstance(url, str) and not url.startswith("data:")]


def _parts(item: Item) -> list[Item]:
    content = item.get("content") if item["type"] == "message" else item.get("output")
    return [part for part in content if isinstance(part, dict)] if isinstance(content, list) else []


def _gone(id_: str, item: Item) -> Attached:
    facts = item if item["type"] == "artifact" else {}
    return Attached(
        id=id_,
        kind=facts.get("kind"),
        mime=facts.get("mime"),
        bytes=facts.get("bytes"),
        sha256=facts.get("sha256"),
        name=facts.get("name"),
        url=None,
        expires_at=None,
    )

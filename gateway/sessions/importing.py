"""An export of a session, as a session again: another one, of whoever imports it."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal

from msgspec import Struct

from compat.canonical.event import Usage
from compat.canonical.message import Media, Message, Part, Reasoning, Text, ToolCall, ToolResult
from compat.nativeturn import ARTIFACT_URL
from compat.openai.responses_item import Item
from gateway.db.responses import Turn
from gateway.sessions.card import Call
from gateway.sessions.form import MODEL_MAX, NewSession, line, wrong
from gateway.sessions.messages import ID_MAX, Keeper, turns_of
from gateway.sessions.said import Role

MESSAGES_MAX = 10_000
BACKEND_MAX = 64


class Attachment(Struct, frozen=True):
    id: str
    kind: str | None = None


class Spent(Struct, frozen=True):
    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None


class ExportedMessage(Struct, frozen=True, kw_only=True):
    """What is taken of a message; the rest of it says what was."""

    role: Role
    text: str = ""
    created_at: datetime | None = None
    status: Literal["completed", "incomplete"] = "completed"
    reasoning: str | None = None
    tool_calls: list[Call] | None = None
    tool_call_id: str | None = None
    images: list[str] = []
    artifacts: list[Attachment] = []
    """Those that the tenant still has; of the others a note is kept."""
    modality: str | None = None
    model: str | None = None
    backend: str | None = None
    usage: Spent | None = None
    finish_reason: str | None = None


class ExportedSession(NewSession, frozen=True, kw_only=True, forbid_unknown_fields=False):
    """What is taken of a session's card."""


class Exported(Struct, frozen=True, kw_only=True):
    """What GET /v1/sessions/{id}/export gave."""

    session: ExportedSession
    messages: list[ExportedMessage] = []
    version: Literal[1] = 1


async def taken_in(keeper: Keeper, session_id: str, messages: Sequence[ExportedMessage], now: float) -> list[Turn]:
    """The turns of an export.  Raises InvalidRequest, and as artifacts do that cannot be kept."""
    if len(messages) > MESSAGES_MAX:
        raise wrong("messages", f"at most {MESSAGES_MAX}")
    said: list[list[Item]] = []
    about: dict[str, ExportedMessage] = {}
    for n, one in enumerate(messages):
        at = f"messages[{n}]"
        there = await keeper.there([attachment.id for attachment in one.artifacts])
        parts = _parts(one, list(there) if one.role in ("user", "system", "developer") else [])
        notes = [_gone(attachment, at) for attachment in one.artifacts if attachment.id not in there]
        if one.role != "tool" and (notes or not (parts or there)):
            # No message is left out: what was said after it goes on from it.
            parts = _noted(parts, notes)
        items = (await keeper.items([Message(role=one.role, parts=tuple(parts))], at))[0] if parts else []
        if one.role == "assistant":
            items += list(there.values())
        if items:
            said.append(items)
            about[items[0]["id"]] = one
    turns = turns_of(session_id, None, said, now)
    for turn in turns:
        first = (*turn.output, *turn.given)[0]
        _describe(turn, about[first["id"]], "messages")
    return turns


def _parts(one: ExportedMessage, pictures: Sequence[str]) -> list[Part]:
    parts: list[Part] = []
    if one.role == "tool":
        return [ToolResult(id=one.tool_call_id or "", parts=(Text(text=one.text),))]
    if one.role == "assistant" and one.reasoning:
        parts.append(Reasoning(text=one.reasoning))
    if one.text:
        parts.append(Text(text=one.text))
    if one.role == "assistant":
        parts += [ToolCall(id=call.id, name=call.name, arguments=call.arguments) for call in one.tool_calls or ()]
    else:
        parts += [Media(mime="image/*", url=f"{ARTIFACT_URL}{id_}") for id_ in pictures]
        parts += [Media(mime="image/*", url=url) for url in one.images]
    return parts


def _noted(parts: Sequence[Part], notes: Sequence[str]) -> list[Part]:
    """With notes after what is said."""
    said = "".join(part.text for part in parts if isinstance(part, Text))
    before = [part for part in parts if isinstance(part, Reasoning)]
    after = [part for part in parts if not isinstance(part, (Text, Reasoning))]
    return [*before, Text(text="\n".join(filter(None, (said, *notes)))), *after]


def _gone(one: Attachment, at: str) -> str:
    kind = one.kind if one.kind in ("mesh", "text") else "image"
    return f"[{kind} {line(f'{at}.artifacts', one.id, ID_MAX)}: gone]"


def _describe(turn: Turn, one: ExportedMessage, at: str) -> None:
    if one.created_at is not None and one.created_at.tzinfo is not None:
        turn.created_at = one.created_at.timestamp()
    if not turn.output:
        return
    turn.status = one.status
    if one.backend:
        turn.backend = line(f"{at}.backend", one.backend, BACKEND_MAX)
        turn.model = line(f"{at}.model", one.model, MODEL_MAX) if one.model else ""
        body: dict[str, Any] = {"modality": one.modality, "finish_reason": one.finish_reason}
        turn.body = {name: value[:BACKEND_MAX] for name, value in body.items() if value is not None}
    if (usage := one.usage) is not None:
        counts = {name: _count(getattr(usage, name)) for name in usage.__struct_fields__}
        turn.usage = Usage(**counts)


def _count(given: int | None) -> int | None:
    return given if given is not None and 0 <= given < 2**53 else None

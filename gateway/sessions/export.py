"""A session as a file: JSON that can be imported again, or Markdown to be read."""

import re
import unicodedata
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Literal

import msgspec
from msgspec import Struct

from gateway.sessions.card import Attached, MessageCard, SessionCard

VERSION = 1
_SIDES = {"user": "User", "assistant": "Assistant", "system": "System", "developer": "Developer", "tool": "Tool"}
_not_in_names = re.compile(r"[^A-Za-z0-9]+")
_special = re.compile(r"([\\`*_\[\]<>#|])")


class Export(Struct, frozen=True, kw_only=True):
    object: Literal["session.export"] = "session.export"
    version: int = VERSION
    exported_at: datetime
    session: SessionCard
    messages: list[MessageCard]


def render_json(session: SessionCard, messages: Sequence[MessageCard]) -> bytes:
    whole = Export(exported_at=datetime.now(UTC).replace(microsecond=0), session=session, messages=list(messages))
    return msgspec.json.format(msgspec.json.encode(whole), indent=2)


def render_markdown(session: SessionCard, messages: Sequence[MessageCard]) -> bytes:
    """The conversation for people: artifacts are links, whose URLs end."""
    blocks = [f"# {_escaped(session.title or 'Untitled session')}", _facts(session)]
    if session.system:
        blocks.append("\n".join(f"> {line}" for line in session.system.splitlines()))
    for message in messages:
        blocks += _message(message)
    return ("\n\n".join(blocks) + "\n").encode(errors="replace")


def filename(session: SessionCard, ending: str) -> str:
    """Of letters, digits and hyphens, whatever the title is."""
    plain = unicodedata.normalize("NFKD", session.title or "").encode("ascii", "ignore").decode()
    return f"{_not_in_names.sub('-', plain).strip('-')[:60].strip('-') or session.id}.{ending}"


def _facts(session: SessionCard) -> str:
    facts = [f"`{session.id}`", f"begun {session.created_at:%Y-%m-%d %H:%M} UTC", f"{session.message_count} messages"]
    if session.model:
        facts.append(f"model {_escaped(session.model)}")
    return " · ".join([*facts, session.status])


def _message(message: MessageCard) -> list[str]:
    heading = _SIDES[message.role]
    if message.model:
        heading += f" ({_escaped(message.model)})"
    blocks = [f"## {heading}"]
    if message.reasoning:
        blocks.append("\n".join(f"> {line}" for line in ("*Reasoning:*", *message.reasoning.splitlines())))
    if message.text:
        blocks.append(message.text)
    blocks += [f"![picture]({_target(url)})" for url in message.images]
    blocks += [_link(one) for one in message.artifacts]
    for call in message.tool_calls or ():
        fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", call.arguments)), default=0))
        blocks.append(f"Calls `{call.name.replace('`', '')}`:\n\n{fence}json\n{call.arguments}\n{fence}")
    if message.status != "completed":
        blocks.append("*(broken off)*")
    return blocks


def _link(one: Attached) -> str:
    name = _escaped(one.name or one.id)
    what = ", ".join(filter(None, (one.mime, None if one.bytes is None else f"{one.bytes} bytes")))
    if one.url is None:
        return f"{name} ({what or 'deleted'}): no longer kept"
    image = "!" if one.kind in ("image", "poster") else ""
    return f"{image}[{name}]({_target(one.url)}) ({what})"


def _target(url: str) -> str:
    # Nothing that ends the parentheses, or the line.
    return "".join(c if c.isprintable() and c not in " ()<>" else f"%{ord(c):02X}" for c in url)


def _escaped(text: str) -> str:
    return _special.sub(r"\\\1", " ".join(text.split()))

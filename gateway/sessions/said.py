"""What was said in a turn: its items as the messages of a conversation.

A user's message is an item; what a model says in one go, its thinking and its calls included, is one message.
"""

import unicodedata
from collections.abc import Iterator
from typing import Literal

from msgspec import Struct

from gateway.db.responses import Item, Turn

Role = Literal["user", "system", "developer", "assistant", "tool"]


class Said(Struct):
    """One message."""

    id: str
    """An answer has the id of its turn; everything else that of its item."""
    role: Role
    items: list[Item]
    answer: bool
    """It came back, instead of having been given."""


def said(turn: Turn) -> list[Said]:
    """The messages that a turn adds to its conversation.  None of a turn that its backend keeps."""
    messages: list[Said] = []
    speaking: Said | None = None
    for item in turn.given:
        if (role := _role(item)) != "assistant":
            speaking = None
            messages.append(Said(item["id"], role, [item], answer=False))
        elif speaking is None:
            messages.append(speaking := Said(item["id"], role, [item], answer=False))
        else:
            speaking.items.append(item)
            if item["type"] == "message":
                speaking.id = item["id"]
    if turn.output:
        messages.append(Said(turn.id, "assistant", list(turn.output), answer=True))
    return messages


def count(turn: Turn) -> int:
    """How many messages it adds."""
    return 0 if turn.remote else len(said(turn))


def words(turn: Turn) -> str:
    """All that is said in a turn by whomever, as it is searched."""
    if turn.remote:
        return ""
    texts = "\n".join(text for item in (*turn.given, *turn.output) for text in texts_of(item))
    return folded(texts.replace("\x00", ""))


def folded(text: str) -> str:
    """A text as it is searched: whatever the case of its letters, and however they are encoded."""
    # The dot that casefolding leaves of a Turkish capital I is on every small i.
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold()).replace("i\u0307", "i")


def texts_of(item: Item) -> Iterator[str]:
    """What a message's item says, part by part; nothing of one that is none."""
    content = item.get("content") if item["type"] == "message" else None
    if isinstance(content, str):
        yield content
    elif isinstance(content, list):
        for part in content:
            text = part.get("text", part.get("refusal")) if isinstance(part, dict) else None
            if isinstance(text, str):
                yield text


def _role(item: Item) -> Role:
    kind = item["type"]
    if kind == "message":
        role: Role = item.get("role", "user")
        return role if role in ("user", "system", "developer", "assistant") else "user"
    return "tool" if kind.endswith("_output") else "assistant"

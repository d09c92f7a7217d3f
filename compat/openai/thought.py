"""Signed thinking in a dialect that has no word for it: `thinking_blocks`, an extension of messages.

Anthropic wants the thinking of a turn with tool calls back on the next one, unchanged and in its place.
OpenAI's `reasoning_content` can hold neither signatures nor redacted blocks, so a message carries beside
it the list that LiteLLM's clients know (https://docs.litellm.ai/docs/reasoning_content), each block once
and whole: {"type": "thinking", "thinking", "signature"} or {"type": "redacted_thinking", "data"}, with an
`index`, its place among the parts of the answer.  A client that sends the message back as it came has
kept it all.
"""

from collections.abc import Sequence
from typing import Any

from compat.canonical.event import ReasoningDelta, TextDelta, ToolDelta
from compat.canonical.message import Part, Reasoning


def render_thoughts(parts: Sequence[Part]) -> list[dict[str, Any]]:
    """The signed and redacted thoughts among the parts of one answer."""
    return [
        _render(part, index)
        for index, part in enumerate(parts)
        if isinstance(part, Reasoning) and (part.signature is not None or part.redacted is not None)
    ]


def parse_thoughts(wire: Any) -> list[tuple[int, Reasoning]]:
    """Read the value of a `thinking_blocks` key, each thought with its place; what is no block is passed over."""
    found = []
    for n, block in enumerate(wire if isinstance(wire, list) else ()):
        match block:
            case {"type": "thinking", "thinking": str(text), "signature": str(signature)}:
                thought = Reasoning(text=text, signature=signature)
            case {"type": "redacted_thinking", "data": str(data)}:
                thought = Reasoning(text="", redacted=data)
            case _:
                continue
        index = block.get("index")
        found.append((index if isinstance(index, int) and index >= 0 else n, thought))
    return sorted(found, key=lambda one: one[0])


def put(thoughts: list[tuple[int, Reasoning]], among: list[Part]) -> list[Part]:
    """Put the thoughts back in their places among an answer's other parts."""
    parts = list(among)
    for index, thought in thoughts:
        parts.insert(index, thought)
    return parts


class Thoughts:
    """Follows one streamed answer: numbers its parts, and tells of each signed thought when it is whole."""

    def __init__(self) -> None:
        self._index = -1
        self._last: object = None
        self._pieces: list[str] = []

    def note(self, event: TextDelta | ReasoningDelta | ToolDelta) -> dict[str, Any] | None:
        """The block that this event completes, for the client; None for all others."""
        match event:
            case TextDelta():
                self._enter("text")
            case ToolDelta():
                self._enter(event.call)
            case ReasoningDelta(redacted=str(data)):
                self._enter(None)
                return _render(Reasoning(text="", redacted=data), self._index)
            case ReasoningDelta(text=text, signature=signature):
                self._enter("thought")
                self._pieces.append(text)
                if signature is not None:
                    thought = Reasoning(text="".join(self._pieces), signature=signature)
                    self._last = None
                    return _render(thought, self._index)
        return None

    def _enter(self, part: object) -> None:
        if part is None or part != self._last:
            self._index += 1
            self._pieces = []
        self._last = part


def _render(thought: Reasoning, index: int) -> dict[str, Any]:
    if thought.redacted is not None:
        return {"index": index, "type": "redacted_thinking", "data": thought.redacted}
    return {"index": index, "type": "thinking", "thinking": thought.text, "signature": thought.signature}

"""How the calls of an answer are written for the client that asked: as functions, as custom tools, or as the
one `function_call` of the time before tools."""

from collections.abc import Sequence
from typing import Any

from msgspec import Raw

from compat.body import decode_raw
from compat.canonical.event import ToolDelta
from compat.canonical.message import ToolCall
from compat.canonical.request import Envelope
from compat.openai.custom import unwrapped


class Calls:
    """Writes the calls of one answer."""

    def __init__(self, asked: Envelope | None = None) -> None:
        fields: dict[str, Raw] = asked.fields if asked is not None else {}
        self.legacy = "functions" in fields and "tools" not in fields
        self._custom = _custom_names(fields["tools"]) if b'"custom"' in bytes(fields.get("tools", b"")) else frozenset()
        self._texts: dict[tuple[int, int], list[str]] = {}
        """Arguments of custom tools so far, by choice and call: their text is known only when they are whole."""

    def reason(self, word: str) -> str:
        return "function_call" if self.legacy and word == "tool_calls" else word

    def message(self, calls: Sequence[ToolCall]) -> dict[str, Any]:
        """The fields of a message that made these calls."""
        if not calls:
            return {}
        if self.legacy:
            return {"function_call": {"name": calls[0].name, "arguments": calls[0].arguments}}
        return {"tool_calls": [self._call(call) for call in calls]}

    def delta(self, event: ToolDelta) -> dict[str, Any] | None:
        """The delta for a piece of a call; None when it has nothing to say yet."""
        named = {} if event.name is None else {"name": event.name}
        if self.legacy:
            return {"function_call": named | {"arguments": event.arguments}} if event.call == 0 else None
        key = (event.choice, event.call)
        if event.name in self._custom:
            self._texts[key] = [event.arguments]
            call = {"index": event.call, "id": event.id, "type": "custom", "custom": {"name": event.name, "input": ""}}
            return {"tool_calls": [call]}
        if key in self._texts:
            self._texts[key].append(event.arguments)
            return None
        call = {"index": event.call} if event.id is None else {"index": event.call, "id": event.id, "type": "function"}
        return {"tool_calls": [call | {"function": named | {"arguments": event.arguments}}]}

    def last(self, choice: int) -> dict[str, Any] | None:
        """The delta that completes what was held back of a choice."""
        held = [(call, pieces) for (of, call), pieces in self._texts.items() if of == choice]
        texts = [{"index": call, "custom": {"input": unwrapped("".join(pieces))}} for call, pieces in held]
        return {"tool_calls": texts} if texts else None

    def _call(self, call: ToolCall) -> dict[str, Any]:
        if call.name in self._custom:
            return {"id": call.id, "type": "custom", "custom": {"name": call.name, "input": unwrapped(call.arguments)}}
        return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}


def _custom_names(raw: Raw) -> frozenset[str]:
    found = set()
    for tool in decode_raw(raw):
        match tool:
            case {"type": "custom", "custom": {"name": str(name)}}:
                found.add(name)
    return frozenset(found)

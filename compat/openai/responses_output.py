"""The items of a response while they are written: each says of itself what its stream must.

Source: https://platform.openai.com/docs/api-reference/responses-streaming
"""

from collections.abc import Callable
from typing import Any

from compat.openai.responses_item import Item, seal

Say = Callable[..., bytes]
"""Event type and fields → the numbered event as a frame."""


class Saying:
    """What is said, while it is: one item with one part."""

    def __init__(self, id_: str, say: Say, index: int) -> None:
        self.id = id_
        self.open = True
        self._pieces: list[str] = []
        self._say = say
        self._at: dict[str, Any] = {"item_id": id_, "output_index": index, "content_index": 0}

    def opening(self) -> bytes:
        item = self.item("in_progress") | {"content": []}
        added = self._say("response.output_item.added", output_index=self._at["output_index"], item=item)
        return added + self._say("response.content_part.added", **self._at, part=_text_part(""))

    def add(self, text: str) -> bytes:
        self._pieces.append(text)
        return self._say("response.output_text.delta", **self._at, delta=text, logprobs=[])

    def closing(self, status: str) -> bytes:
        self.open = False
        text = "".join(self._pieces)
        return (
            self._say("response.output_text.done", **self._at, text=text, logprobs=[])
            + self._say("response.content_part.done", **self._at, part=_text_part(text))
            + self._say("response.output_item.done", output_index=self._at["output_index"], item=self.item(status))
        )

    def item(self, status: str) -> Item:
        content = [_text_part("".join(self._pieces))]
        return {"id": self.id, "type": "message", "status": status, "content": content, "role": "assistant"}


class Thinking:
    """What is thought: the summary a client asked for, or the text itself."""

    def __init__(self, id_: str, say: Say, index: int, *, summary: bool) -> None:
        self.id = id_
        self.open = True
        self.signature: str | None = None
        self.redacted: str | None = None
        self._pieces: list[str] = []
        self._say = say
        self._index = index
        self._summary = summary
        self._part, self._delta = (
            ("reasoning_summary_part", "reasoning_summary_text") if summary else ("content_part", "reasoning_text")
        )
        self._at = {"item_id": id_, "output_index": index, "summary_index" if summary else "content_index": 0}
        self._has_part = False

    def opening(self) -> bytes:
        return self._say("response.output_item.added", output_index=self._index, item=self.item("in_progress"))

    def add(self, text: str) -> bytes:
        out = b""
        if not self._has_part:
            self._has_part = True
            out = self._say(f"response.{self._part}.added", **self._at, part=self._text(""))
        self._pieces.append(text)
        return out + self._say(f"response.{self._delta}.delta", **self._at, delta=text)

    def closing(self, status: str) -> bytes:
        self.open = False
        out, text = b"", "".join(self._pieces)
        if self._has_part:
            out = self._say(f"response.{self._delta}.done", **self._at, text=text)
            out += self._say(f"response.{self._part}.done", **self._at, part=self._text(text))
        return out + self._say("response.output_item.done", output_index=self._index, item=self.item(status))

    def item(self, status: str) -> Item:  # noqa: ARG002  OpenAI's reasoning items have none
        parts = [self._text("".join(self._pieces))] if self._pieces else []
        item: Item = {"id": self.id, "type": "reasoning", "summary": parts if self._summary else []}
        if not self._summary:
            item["content"] = parts
        if (sealed := seal(self.signature, self.redacted)) is not None:
            item["encrypted_content"] = sealed
        return item

    def _text(self, text: str) -> Item:
        return {"type": "summary_text" if self._summary else "reasoning_text", "text": text}


class Calling:
    """A function call, while its arguments arrive."""

    def __init__(self, id_: str, say: Say, index: int, call_id: str, name: str) -> None:
        self.id = id_
        self.open = True
        self._pieces: list[str] = []
        self._say = say
        self._index = index
        self._call_id = call_id
        self._name = name

    def opening(self) -> bytes:
        return self._say("response.output_item.added", output_index=self._index, item=self.item("in_progress"))

    def add(self, arguments: str) -> bytes:
        self._pieces.append(arguments)
        at = {"item_id": self.id, "output_index": self._index}
        return self._say("response.function_call_arguments.delta", **at, delta=arguments)

    def closing(self, status: str) -> bytes:
        self.open = False
        return self._say(
            "response.function_call_arguments.done",
            item_id=self.id,
            output_index=self._index,
            arguments="".join(self._pieces),
        ) + self._say("response.output_item.done", output_index=self._index, item=self.item(status))

    def item(self, status: str) -> Item:
        return {
            "id": self.id,
            "type": "function_call",
            "status": status,
            "arguments": "".join(self._pieces),
            "call_id": self._call_id,
            "name": self._name,
        }


def _text_part(text: str) -> Item:
    return {"type": "output_text", "annotations": [], "logprobs": [], "text": text}

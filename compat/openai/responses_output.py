"""The items of a response while they are written: each says of itself what its stream must.

Source: https://platform.openai.com/docs/api-reference/responses-streaming
"""

from collections.abc import Callable, Iterable
from typing import Any

from compat.canonical.event import Cited
from compat.openai.custom import unwrapped
from compat.openai.responses_item import Item, seal

Say = Callable[..., bytes]
"""Event type and fields → the numbered event as a frame."""


class Saying:
    """What is said, while it is: one item with one part."""

    def __init__(self, id_: str, say: Say, index: int) -> None:
        self.id = id_
        self.open = True
        self._pieces: list[str] = []
        self._logprobs: list[Item] = []
        self._annotations: list[Item] = []
        self._say = say
        self._at: dict[str, Any] = {"item_id": id_, "output_index": index, "content_index": 0}

    def opening(self) -> bytes:
        item = self.item("in_progress") | {"content": []}
        added = self._say("response.output_item.added", output_index=self._at["output_index"], item=item)
        return added + self._say("response.content_part.added", **self._at, part=_text_part(""))

    def add(self, text: str, logprobs: Iterable[Item] = ()) -> bytes:
        """logprobs: of its tokens, as chat has them."""
        tokens = [_logprob(token) for token in logprobs]
        self._pieces.append(text)
        self._logprobs += tokens
        return self._say("response.output_text.delta", **self._at, delta=text, logprobs=tokens)

    def cite(self, cited: Cited, before: int) -> bytes:
        """before: characters said in earlier items."""
        where = {"start_index": max(cited.start - before, 0), "end_index": max(cited.end - before, 0)}
        note = {"type": "url_citation", **where, "url": cited.url, "title": cited.title or cited.url}
        self._annotations.append(note)
        count = len(self._annotations) - 1
        return self._say("response.output_text.annotation.added", **self._at, annotation_index=count, annotation=note)

    @property
    def length(self) -> int:
        return sum(map(len, self._pieces))

    def closing(self, status: str) -> bytes:
        self.open = False
        text = "".join(self._pieces)
        return (
            self._say("response.output_text.done", **self._at, text=text, logprobs=self._logprobs)
            + self._say("response.content_part.done", **self._at, part=self._part())
            + self._say("response.output_item.done", output_index=self._at["output_index"], item=self.item(status))
        )

    def item(self, status: str) -> Item:
        return {"id": self.id, "type": "message", "status": status, "content": [self._part()], "role": "assistant"}

    def _part(self) -> Item:
        said = _text_part("".join(self._pieces))
        return said | {"annotations": list(self._annotations), "logprobs": list(self._logprobs)}


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
            name=self._name,
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


class CallingCustom(Calling):
    """A call of a custom tool: its text is known only when its arguments are whole."""

    def add(self, arguments: str) -> bytes:
        self._pieces.append(arguments)
        return b""

    def closing(self, status: str) -> bytes:
        self.open = False
        item, at = self.item(status), {"item_id": self.id, "output_index": self._index}
        return (
            self._say("response.custom_tool_call_input.delta", **at, delta=item["input"])
            + self._say("response.custom_tool_call_input.done", **at, input=item["input"])
            + self._say("response.output_item.done", output_index=self._index, item=item)
        )

    def item(self, status: str) -> Item:
        text = "" if self.open else unwrapped("".join(self._pieces))
        call = {"id": self.id, "type": "custom_tool_call", "status": status}
        return call | {"call_id": self._call_id, "name": self._name, "input": text}


def _text_part(text: str) -> Item:
    return {"type": "output_text", "annotations": [], "logprobs": [], "text": text}


def _logprob(token: Item) -> Item:
    """A token as this dialect shows it: `bytes` and `top_logprobs` are always there."""
    shown = {"token": "", "bytes": [], "logprob": 0.0} | {k: v for k, v in token.items() if v is not None}
    top = [one for one in token.get("top_logprobs") or () if isinstance(one, dict)]
    return shown | {"top_logprobs": [{"bytes": []} | {k: v for k, v in one.items() if v is not None} for one in top]}

"""OpenAI's Responses API: answers.  A `Writer` writes one, as events or whole, from the same state.

Source: https://platform.openai.com/docs/api-reference/responses-streaming.  Every event is numbered and
named; the stream ends with `response.completed`, `.incomplete` or `.failed` and has no [DONE].
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import msgspec

from compat.canonical.error import BadResponse, GatewayError, RateLimited, RequestError
from compat.canonical.event import (
    Cited,
    Event,
    Finished,
    Metered,
    Reason,
    ReasoningDelta,
    Result,
    Started,
    TextDelta,
    ToolDelta,
    Usage,
)
from compat.canonical.message import Reasoning, Text, ToolCall
from compat.openai.custom import wrapped
from compat.openai.responses_item import Item, NewId, parse_thought, unsealed
from compat.openai.responses_output import Calling, CallingCustom, Saying, Thinking
from compat.openai.responses_usage import parse_usage, render_usage
from compat.sse import frame, split

T = TypeVar("T", Saying, Thinking, Calling)

_CUT: dict[Reason, str] = {"length": "max_output_tokens", "content_filter": "content_filter"}
_WHOLE: dict[str | None, Reason] = {why: reason for reason, why in _CUT.items()}
_OWN = frozenset({"id", "object", "created_at", "status", "background", "completed_at", "error", "incomplete_details"})
_OWN |= {"model", "output", "usage"}
"""What a response says of its answer; the rest says what was asked."""

_write = msgspec.json.Encoder().encode


class Writer:
    """One response while it is written.

    new_id: prefix → an id for an item.
    clock: the time in seconds since 1970, UTC.
    custom: names of tools that take text instead of arguments.
    """

    def __init__(
        self,
        id_: str,
        settings: dict[str, Any],
        *,
        model: str,
        created_at: int,
        new_id: NewId,
        clock: Callable[[], float],
        summary: bool = False,
        include: Iterable[str] = (),
        custom: Iterable[str] = (),
    ) -> None:
        self.id = id_
        self.model = model
        """As the client asked for it, until the backend has said which it is."""
        self.created_at = created_at
        self.status = "in_progress"
        self.usage: Usage | None = None
        self._settings = settings
        self._new_id = new_id
        self._clock = clock
        self._summary = summary
        self._include = frozenset(include)
        self._custom = frozenset(custom)
        self._items: list[Saying | Thinking | Calling] = []
        self._calls: dict[int, Calling] = {}
        self._states: list[str] = []
        self._reason: str | None = None
        self._error: dict[str, str] | None = None
        self._completed_at: int | None = None
        self._count = 0
        self._began = False

    @property
    def output(self) -> list[Item]:
        """The items as they are kept: with all that a later turn needs."""
        return [item.item(state) for item, state in zip(self._items, self._states, strict=True)]

    def response(self) -> dict[str, Any]:
        """The response as it stands, for the client."""
        over = self.status != "in_progress"
        body = {
            "id": self.id,
            "object": "response",
            "created_at": self.created_at,
            "status": self.status,
            "background": False,
            "completed_at": self._completed_at,
            "error": self._error,
            "incomplete_details": {"reason": self._reason} if self.status == "incomplete" else None,
            **self._settings,
            "model": self.model,
            "output": [unsealed(item, self._include) for item in self.output] if over else [],
        }
        # The published schema lets it be left out, but not be null.
        if self.status in ("completed", "incomplete"):
            body["usage"] = render_usage(self.usage or Usage())
        return body

    def feed(self, event: Event) -> bytes:
        """Take an event of the answer and return what it makes of the stream, but for the last event."""
        match event:
            case Started(model=model):
                self.model = model or self.model
                return self._begin()
            case TextDelta():
                return self._speak(event)
            case ReasoningDelta():
                return self._think(event)
            case ToolDelta():
                return self._call(event)
            case Cited():
                return self._cite(event)
            case Finished(reason=reason):
                return self._finish(_CUT.get(reason))
            case Metered(usage=usage):
                self.usage = usage
        return b""

    def end(self) -> bytes:
        """The last event.  Raises BadResponse if the answer never finished."""
        if self.status == "in_progress":
            raise BadResponse("The backend's answer ended before it was complete.")
        return self._say(f"response.{self.status}", response=self.response())

    def fail(self, error: GatewayError) -> bytes:
        """The last events of an answer that failed: OpenAI says so twice."""
        out = b"" if self._began else self._begin()
        self.status, self._error = "failed", failure(error)
        self._states = ["incomplete" if item.open else s for item, s in zip(self._items, self._states, strict=True)]
        return out + render_failure(self.response(), self._count, error)

    def _begin(self) -> bytes:
        self._began = True
        response = self.response()
        return self._say("response.created", response=response) + self._say("response.in_progress", response=response)

    def _speak(self, event: TextDelta) -> bytes:
        message, out = self._current(Saying, lambda at: Saying(self._new_id("msg"), self._say, at))
        return out + message.add(event.text, event.logprobs)

    def _cite(self, event: Cited) -> bytes:
        last = self._items[-1] if self._items else None
        if not isinstance(last, Saying) or not last.open:
            return b""
        return last.cite(event, sum(item.length for item in self._items[:-1] if isinstance(item, Saying)))

    def _think(self, event: ReasoningDelta) -> bytes:
        def make(at: int) -> Thinking:
            return Thinking(self._new_id("rs"), self._say, at, summary=self._summary)

        if event.redacted is not None:
            out = self._close_last()
            thought, opening = self._open(make)
            thought.redacted = event.redacted
            return out + opening + self._close_last()
        thought, out = self._current(Thinking, make)
        if event.text:
            out += thought.add(event.text)
        if event.signature is not None:
            thought.signature = event.signature
            out += self._close_last()
        return out

    def _call(self, event: ToolDelta) -> bytes:
        out, called = b"", self._calls.get(event.call)
        if called is None:
            out, id_, name = self._close_last(), event.id or self._new_id("call"), event.name or ""
            kind, prefix = (CallingCustom, "ctc") if name in self._custom else (Calling, "fc")
            called, opening = self._open(lambda at: kind(self._new_id(prefix), self._say, at, id_, name))
            self._calls[event.call] = called
            out += opening
        return out + called.add(event.arguments) if event.arguments else out

    def _finish(self, cut: str | None) -> bytes:
        out = b""
        if not self._items:  # clients read the first message of an answer that says nothing
            out = self._open(lambda at: Saying(self._new_id("msg"), self._say, at))[1]
        last = len(self._items) - 1
        for n, item in enumerate(self._items):
            if item.open:
                self._states[n] = "incomplete" if cut and n == last else "completed"
                out += item.closing(self._states[n])
        self.status, self._reason = ("incomplete", cut) if cut else ("completed", None)
        self._completed_at = None if cut else int(self._clock())
        return out

    def _current(self, kind: type[T], make: Callable[[int], T]) -> tuple[T, bytes]:
        """The last item if it is of this kind and open, else a new one."""
        last = self._items[-1] if self._items else None
        if isinstance(last, kind) and last.open:
            return last, b""
        out = self._close_last()
        item, opening = self._open(make)
        return item, out + opening

    def _open(self, make: Callable[[int], T]) -> tuple[T, bytes]:
        item = make(len(self._items))
        self._items.append(item)
        self._states.append("in_progress")
        return item, item.opening()

    def _close_last(self) -> bytes:
        # Calls stay open to the end: some providers send the fragments of several in turn.
        if not self._items or not self._items[-1].open or isinstance(self._items[-1], Calling):
            return b""
        self._states[-1] = "completed"
        return self._items[-1].closing("completed")

    def _say(self, kind: str, **fields: Any) -> bytes:
        if kind == "response.output_item.done":
            fields["item"] = unsealed(fields["item"], self._include)
        body = {"type": kind, "sequence_number": self._count, **fields}
        self._count += 1
        return frame(_write(body), kind)


def unfold(result: Result) -> Iterator[Event]:
    """The events of a whole answer: what `fold` makes `result` of again."""
    yield result.started
    choice = result.choices[0]
    calls, said = 0, 0
    for part in choice.parts:
        match part:
            case Text(text=text, extra=extra):
                yield TextDelta(text=text, logprobs=tuple(extra.get("logprobs", ())))
                yield from [cited for cited in choice.cited if said < cited.end <= said + len(text)]
                said += len(text)
            case Reasoning(text=text, signature=signature, redacted=redacted):
                yield ReasoningDelta(text=text, signature=signature, redacted=redacted)
            case ToolCall(id=id_, name=name, arguments=arguments):
                yield ToolDelta(call=calls, id=id_, name=name, arguments=arguments)
                calls += 1
    yield choice.finished
    yield Metered(usage=result.usage)


def render_response(response: dict[str, Any]) -> bytes:
    return _write(response)


def failure(error: GatewayError) -> dict[str, str]:
    """The `error` of a response, whose codes are few."""
    known = "server_error"
    if isinstance(error, RateLimited):
        known = "rate_limit_exceeded"
    elif isinstance(error, RequestError):
        known = "invalid_prompt"
    return {"code": known, "message": error.message}


def render_failure(response: dict[str, Any], count: int, error: GatewayError) -> bytes:
    """The two events that end a stream which failed.

    response: as it stood; count: the number of the next event.
    """
    told = {"code": error.code or error.type, "message": error.message, "param": error.param}
    failed = response | {"status": "failed", "error": failure(error)}
    return frame(_write({"type": "error", "sequence_number": count, **told}), "error") + frame(
        _write({"type": "response.failed", "sequence_number": count + 1, "response": failed}), "response.failed"
    )


def replay(response: dict[str, Any], include: Iterable[str]) -> bytes:
    """The stream of a response that is kept, as it might have come: one delta a part.

    response: with its output as `Writer.output` gave it.
    """
    output: list[Item] = response["output"]
    ids = iter([str(item["id"]) for item in output])
    writer = Writer(
        response["id"],
        {name: value for name, value in response.items() if name not in _OWN},
        model=response["model"],
        created_at=response["created_at"],
        new_id=lambda _: next(ids),
        clock=lambda: response["completed_at"] or 0,
        summary=any(item["type"] == "reasoning" and item["summary"] for item in output),
        include=include,
        custom=[item["name"] for item in output if item["type"] == "custom_tool_call"],
    )
    out = writer.feed(Started(id=response["id"], model=response["model"], created=response["created_at"]))
    said = 0
    for position, item in enumerate(output):
        for event in _events_of(item, position, said):
            said += len(event.text) if isinstance(event, TextDelta) else 0
            out += writer.feed(event)
    if response["status"] == "failed":
        shown = response | {"output": [unsealed(item, include) for item in output]}
        last = {"type": "response.failed", "sequence_number": len(split(out)), "response": shown}
        return out + frame(_write(last), "response.failed")
    why = (response["incomplete_details"] or {}).get("reason")
    out += writer.feed(Finished(reason=_WHOLE.get(why, "stop")))
    if (usage := parse_usage(_write(response.get("usage")))) is not None:
        writer.feed(Metered(usage=usage))
    return out + writer.end()


def _events_of(item: Item, call: int, said: int) -> Iterator[Event]:
    """said: characters in the messages before it."""
    match item["type"]:
        case "message":
            for part in item["content"]:
                yield TextDelta(text=part["text"], logprobs=tuple(part.get("logprobs") or ()))
                for note in part["annotations"]:
                    start, end = note["start_index"] + said, note["end_index"] + said
                    yield Cited(url=note["url"], start=start, end=end, title=note["title"])
        case "reasoning":
            thought = parse_thought(item)
            yield ReasoningDelta(text=thought.text, signature=thought.signature, redacted=thought.redacted)
        case "custom_tool_call":
            yield ToolDelta(call=call, id=item["call_id"], name=item["name"], arguments=wrapped(item["input"]))
        case "function_call":
            yield ToolDelta(call=call, id=item["call_id"], name=item["name"], arguments=item["arguments"])

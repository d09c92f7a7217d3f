"""What the fault provider says, in OpenAI's and in Anthropic's words: sixty numbered ones, whole or in events.

Each word is a token, so that an answer which was cut, spliced or repeated shows where.
"""

import json
import re
from collections.abc import Sequence
from typing import Any, Protocol

TOKENS = tuple(f"{' ' if n > 1 else ''}w{n:02}" for n in range(1, 61))
TEXT = "".join(TOKENS)
"""The one answer."""
OTHER_TOKENS = tuple(token.replace("w", "x") for token in TOKENS)
OTHER_TEXT = "".join(OTHER_TOKENS)
"""What a model says that does not repeat itself."""
INPUT_TOKENS = 7
CANARY = "provider-words-canary-7714"
"""Stands in the text of errors that only the provider's operator should read."""
WINDOW = 131_072
"""The context of every model in the list; `context` has a smaller one."""

_PADDING = "…" * 1024
"""A whole answer is long enough to be broken off in the middle of its body, by bytes."""


def rest_of(text: str, given: str) -> list[str]:
    """The tokens of a text after its beginning `given`; all of them if it begins otherwise."""
    rest = text.removeprefix(given)
    return re.findall(r"^[^ ]+| [^ ]*", rest)


class Ask:
    """A request, as far as it decides the answer."""

    def __init__(self, path: str, body: bytes) -> None:
        self.path = path
        value = json.loads(body) if body else {}
        self.body: dict[str, Any] = value if isinstance(value, dict) else {}
        self.model = str(self.body.get("model", ""))
        self.streams = self.body.get("stream") is True
        self.wants_usage = bool((self.body.get("stream_options") or {}).get("include_usage"))
        self.prefill = _prefill(self.body.get("messages"))
        """What the last message lets the assistant have said already; empty when it is not the assistant's."""
        limit = self.body.get("max_completion_tokens") or self.body.get("max_tokens")
        self.limit = limit if isinstance(limit, int) else 1_000_000

    def tokens(self, text: str = TEXT) -> list[str]:
        """What is left to say of a text."""
        return rest_of(text, self.prefill)[: self.limit]

    def is_whole(self, tokens: Sequence[str]) -> bool:
        """Whether these tokens are all there is to say, not all that was allowed."""
        return len(tokens) < self.limit or self.limit >= len(rest_of(TEXT, self.prefill))


class Dialect(Protocol):
    """One answer's bytes."""

    def opening(self) -> list[bytes]: ...
    def word(self, token: str) -> bytes: ...
    def closing(self, tokens: Sequence[str]) -> list[bytes]:
        """Why the answer ended, and its usage."""
        ...

    def end(self) -> bytes: ...
    def whole(self, tokens: Sequence[str]) -> bytes: ...
    def hollow(self) -> bytes:
        """A whole answer without any content."""
        ...

    def error(self, kind: str) -> bytes:
        """An error's body; `kind` is a row of the table, or a status."""
        ...

    def error_event(self) -> bytes: ...


class OpenAI:
    def __init__(self, ask: Ask, number: int) -> None:
        self._ask = ask
        self._head = {"id": f"chatcmpl-{number}", "created": 1_760_000_000, "model": ask.model}

    def opening(self) -> list[bytes]:
        return [self._chunk({"role": "assistant", "content": ""})]

    def word(self, token: str) -> bytes:
        return self._chunk({"content": token})

    def closing(self, tokens: Sequence[str]) -> list[bytes]:
        ended = self._chunk({}, self._reason(tokens))
        if not self._ask.wants_usage:
            return [ended]
        usage = _event(self._head | {"object": "chat.completion.chunk", "choices": [], "usage": _usage(tokens)})
        return [ended, usage]

    def end(self) -> bytes:
        return b"data: [DONE]\n\n"

    def whole(self, tokens: Sequence[str]) -> bytes:
        message = {"role": "assistant", "content": "".join(tokens), "refusal": None}
        return self._body([{"index": 0, "message": message, "finish_reason": self._reason(tokens)}], _usage(tokens))

    def hollow(self) -> bytes:
        return self._body([], _usage(()))

    def error(self, kind: str) -> bytes:
        return _dump({"error": {**_OPENAI.get(kind, _OPENAI["500"])}})

    def error_event(self) -> bytes:
        return b"data: " + self.error("500") + b"\n\n"

    def _reason(self, tokens: Sequence[str]) -> str:
        return "stop" if self._ask.is_whole(tokens) else "length"

    def _body(self, choices: list[Any], usage: dict[str, Any]) -> bytes:
        rest = {"choices": choices, "usage": usage, "vendor_note": _PADDING}
        return _dump(self._head | {"object": "chat.completion"} | rest)

    def _chunk(self, delta: dict[str, Any], reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        return _event(self._head | {"object": "chat.completion.chunk", "choices": [choice]})


class Anthropic:
    def __init__(self, ask: Ask, number: int) -> None:
        self._ask = ask
        self._message = {"id": f"msg_{number}", "type": "message", "role": "assistant", "model": ask.model}

    def opening(self) -> list[bytes]:
        usage = {"input_tokens": INPUT_TOKENS, "output_tokens": 1}
        message: dict[str, Any] = self._message | {
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": usage,
        }
        block = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
        return [_named({"type": "message_start", "message": message}), _named(block), _named({"type": "ping"})]

    def word(self, token: str) -> bytes:
        delta = {"type": "text_delta", "text": token}
        return _named({"type": "content_block_delta", "index": 0, "delta": delta})

    def closing(self, tokens: Sequence[str]) -> list[bytes]:
        delta = {"stop_reason": self._reason(tokens), "stop_sequence": None}
        stopped = {"type": "message_delta", "delta": delta, "usage": {"output_tokens": len(tokens)}}
        return [_named({"type": "content_block_stop", "index": 0}), _named(stopped)]

    def end(self) -> bytes:
        return _named({"type": "message_stop"})

    def whole(self, tokens: Sequence[str]) -> bytes:
        usage = {"input_tokens": INPUT_TOKENS, "output_tokens": len(tokens)}
        content = [{"type": "text", "text": "".join(tokens)}]
        reason = {"stop_reason": self._reason(tokens), "stop_sequence": None}
        return _dump(self._message | {"content": content, **reason, "usage": usage, "vendor_note": _PADDING})

    def hollow(self) -> bytes:
        return _dump(self._message | {"vendor_note": _PADDING})

    def error(self, kind: str) -> bytes:
        type_, message = _ANTHROPIC.get(kind, _ANTHROPIC["500"])
        return _dump({"type": "error", "error": {"type": type_, "message": message}, "request_id": "req_1"})

    def error_event(self) -> bytes:
        return b"event: error\ndata: " + self.error("529") + b"\n\n"

    def _reason(self, tokens: Sequence[str]) -> str:
        return "end_turn" if self._ask.is_whole(tokens) else "max_tokens"


def dialect(ask: Ask, number: int) -> Dialect:
    """The one that a request's path speaks; `number` makes the answer's id."""
    return Anthropic(ask, number) if ask.path.endswith("/messages") else OpenAI(ask, number)


def models(names: Sequence[str]) -> bytes:
    """A list that clients of both dialects can read."""
    rows = [{"id": name, "object": "model", "type": "model", "context_length": WINDOW} for name in names]
    return _dump({"object": "list", "data": rows, "has_more": False, "first_id": None, "last_id": None})


def _row(message: str, type_: str | None, code: str | None, param: str | None = None, **more: Any) -> dict[str, Any]:
    return {"message": message, "type": type_, "param": param, "code": code, **more}


_OPENAI: dict[str, dict[str, Any]] = {
    "400": _row("Unsupported value: 'temperature'.", "invalid_request_error", "unsupported_value", "temperature"),
    "401": _row(f"Incorrect API key provided {CANARY}", "invalid_request_error", "invalid_api_key"),
    "402": _row(f"You exceeded your current quota {CANARY}", "insufficient_quota", "insufficient_quota"),
    "429": _row(f"Rate limit reached {CANARY}", "requests", "rate_limit_exceeded"),
    "500": _row(f"The server had an error {CANARY}", "server_error", None),
    "503": _row(f"The engine is overloaded {CANARY}", "server_error", None),
    "context": _row(
        "This model's maximum context length is 8192 tokens.",
        "invalid_request_error",
        "context_length_exceeded",
        "messages",
    ),
    "filter": _row("The prompt was filtered.", "invalid_request_error", "content_filter", "prompt"),
    "azure": _row(
        "The response was filtered.", None, "content_filter", "prompt", status=400,
        innererror={"code": "ResponsibleAIPolicyViolation", "content_filter_result": {"hate": {"filtered": True}}},
    ),
    "prefill": _row("The last message must be the user's.", "invalid_request_error", None, "messages"),
}  # fmt: skip
_ANTHROPIC = {
    "400": ("invalid_request_error", "temperature: range: 0..1"),
    "401": ("authentication_error", f"invalid x-api-key {CANARY}"),
    "402": ("billing_error", f"Your credit balance is too low {CANARY}"),
    "429": ("rate_limit_error", f"This request would exceed your rate limit {CANARY}"),
    "500": ("api_error", f"Internal server error {CANARY}"),
    "503": ("overloaded_error", f"Overloaded {CANARY}"),
    "529": ("overloaded_error", f"Overloaded {CANARY}"),
    "context": ("invalid_request_error", "prompt is too long: 210000 tokens > 200000 maximum"),
    "filter": ("invalid_request_error", "Output blocked by content filtering policy"),
    "azure": ("invalid_request_error", "Output blocked by content filtering policy"),
    "prefill": ("invalid_request_error", "This model does not support assistant message prefill."),
    "space": ("invalid_request_error", "final assistant content cannot end with trailing whitespace"),
}


def _prefill(messages: Any) -> str:
    last = messages[-1] if isinstance(messages, list) and messages else {}
    if last.get("role") != "assistant":
        return ""
    content = last.get("content") or ""
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


def _usage(tokens: Sequence[str]) -> dict[str, int]:
    made = len(tokens)
    return {"prompt_tokens": INPUT_TOKENS, "completion_tokens": made, "total_tokens": INPUT_TOKENS + made}


def _dump(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def _event(value: Any) -> bytes:
    return b"data: " + _dump(value) + b"\n\n"


def _named(value: dict[str, Any]) -> bytes:
    return b"event: " + str(value["type"]).encode() + b"\n" + _event(value)

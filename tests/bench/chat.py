"""OpenAI's chat completions and legacy completions, as bytes: what is asked, and what comes back.

Wire format: https://platform.openai.com/docs/api-reference/chat/streaming and .../completions
"""

from typing import Any

import msgspec
from msgspec import Struct

from tests.bench.passage import ANSWER_TOKENS, PROMPT_TOKENS, QUESTION, SYSTEM, TEXT, TOKENS, compact, said

HEAD = {"id": "chatcmpl-C9benchZ7t2yqLw0aVfXhR4mKd1", "created": 1763712000, "model": "gpt-4o-mini-2024-07-18"}
LEGACY_HEAD = {
    "id": "cmpl-C9benchQ4s8vTnB2kXcYpW6dRg3",
    "created": 1763712000,
    "model": "gpt-3.5-turbo-instruct",
}
TAIL = {"system_fingerprint": "fp_51db84afab"}
USAGE = {
    "prompt_tokens": PROMPT_TOKENS,
    "completion_tokens": ANSWER_TOKENS,
    "total_tokens": PROMPT_TOKENS + ANSWER_TOKENS,
    "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
}
LEGACY_USAGE = {name: count for name, count in USAGE.items() if name != "prompt_tokens_details"}
DONE = b"data: [DONE]\n\n"
PACED = "bench-paced"
"""The `user` that tells the upstream to pause between events."""


class _Said(Struct, frozen=True):
    content: str | None = None


class _Choice(Struct, frozen=True):
    delta: _Said = _Said()
    message: _Said = _Said()
    text: str | None = None
    finish_reason: str | None = None


class _Answer(Struct, frozen=True):
    choices: list[_Choice]


_decode = msgspec.json.Decoder(_Answer).decode


def asked(model: str, *, stream: bool, paced: bool = False) -> bytes:
    """A request for a chat completion."""
    body: dict[str, Any] = {
        "model": model,
        "messages": [{"role": "system", "content": SYSTEM}, {"role": "user", "content": QUESTION}],
        "temperature": 0.2,
        "max_tokens": 256,
        "stream": stream,
        "user": PACED if paced else "bench",
    }
    return compact(body).encode()


def legacy_asked(model: str, *, stream: bool) -> bytes:
    """A request for a legacy completion."""
    body = {
        "model": model,
        "prompt": f"{SYSTEM} {QUESTION}",
        "temperature": 0.2,
        "max_tokens": 256,
        "stream": stream,
        "user": "bench",
    }
    return compact(body).encode()


def answer() -> bytes:
    """The non-streamed answer."""
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": TEXT, "refusal": None},
        "logprobs": None,
        "finish_reason": "stop",
    }
    return compact({**HEAD, "object": "chat.completion", "choices": [choice], "usage": USAGE, **TAIL}).encode()


def legacy_answer() -> bytes:
    """The non-streamed answer of the legacy endpoint."""
    choice = {"text": TEXT, "index": 0, "logprobs": None, "finish_reason": "stop"}
    body = {**LEGACY_HEAD, "object": "text_completion", "choices": [choice], "usage": LEGACY_USAGE}
    return compact(body).encode()


def events(usage: bool) -> list[bytes]:
    """The streamed answer: role, 62 deltas, finish, usage if it was asked for, `[DONE]`."""
    first = {"role": "assistant", "content": "", "refusal": None}
    steps: list[tuple[dict[str, Any], str | None]] = [(first, None)]
    steps += [({"content": token}, None) for token in TOKENS]
    steps += [({}, "stop")]
    choices = [{"index": 0, "delta": delta, "finish_reason": reason} for delta, reason in steps]
    head = {**HEAD, "object": "chat.completion.chunk", **TAIL}
    return _events(head, choices, USAGE if usage else None)


def legacy_events(usage: bool) -> list[bytes]:
    """The streamed answer of the legacy endpoint: 62 pieces, finish, usage if it was asked for, `[DONE]`."""
    steps = [*((token, None) for token in TOKENS), ("", "stop")]
    choices = [{"text": text, "index": 0, "logprobs": None, "finish_reason": reason} for text, reason in steps]
    return _events({**LEGACY_HEAD, "object": "text_completion"}, choices, LEGACY_USAGE if usage else None)


def _events(head: dict[str, Any], choices: list[dict[str, Any]], usage: dict[str, Any] | None) -> list[bytes]:
    chunks: list[dict[str, Any]] = [
        {"choices": [choice]} | ({} if usage is None else {"usage": None}) for choice in choices
    ]
    if usage is not None:
        chunks.append({"choices": [], "usage": usage})
    return [b"data: " + compact({**head, **chunk}).encode() + b"\n\n" for chunk in chunks] + [DONE]


def check_answer(body: bytes) -> str | None:
    """What is wrong with a whole answer of either endpoint; None when nothing is."""
    try:
        found = _decode(body)
    except msgspec.DecodeError:
        return "not a completion"
    if len(found.choices) != 1 or TEXT not in (found.choices[0].message.content, found.choices[0].text):
        return "another text"
    return None


def check_stream(body: bytes) -> str | None:
    """What is wrong with a streamed answer of either endpoint; None when nothing is."""
    pieces: list[str] = []
    finished = done = False
    try:
        for line in body.splitlines():
            if not line.startswith(b"data:"):
                continue
            if done:
                return "events after [DONE]"
            if line[5:].strip() == b"[DONE]":
                done = True
                continue
            for choice in _decode(line[5:]).choices:
                finished = finished or choice.finish_reason == "stop"
                if text := choice.delta.content or choice.text:
                    pieces.append(text)
    except msgspec.DecodeError:
        return "an event that is not a chunk"
    if not done:
        return "no [DONE]"
    if not finished:
        return "no finish_reason"
    return said(pieces)

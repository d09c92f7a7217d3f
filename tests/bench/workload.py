"""What is asked and what must come back: the one thing upstream and load generator agree on.

Wire format: https://platform.openai.com/docs/api-reference/chat/streaming
"""

import json
from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import Struct

HEAD = {"id": "chatcmpl-C9benchZ7t2yqLw0aVfXhR4mKd1", "created": 1763712000, "model": "gpt-4o-mini-2024-07-18"}
TAIL = {"system_fingerprint": "fp_51db84afab"}
_CUT = (
    "Plugg|ably| is| a| gateway|:| it| takes| a| request| in| one| dialect|,| finds| a| model| that| can| answer|"
    " it|,| and| passes| the| answer| back| as| it| is| made|.| What| that| costs| is| measured| here|,| event| by|"
    " event|,| so| that| nobody| has| to| believe| a| number| that| was| taken| on| another| machine|.| End| of| it|."
)
TOKENS = _CUT.split("|")
TEXT = "".join(TOKENS)
FIRST = TOKENS[0].encode()
"""Where a client would show something: time to first token ends when these bytes are there."""
USAGE = {
    "prompt_tokens": 41,
    "completion_tokens": 62,
    "total_tokens": 103,
    "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
}
DONE = b"data: [DONE]\n\n"
PACED = "bench-paced"
"""The `user` that tells the upstream to pause between events."""

_compact = json.JSONEncoder(separators=(",", ":")).encode


class _Said(Struct, frozen=True):
    content: str | None = None


class _Choice(Struct, frozen=True):
    delta: _Said = _Said()
    message: _Said = _Said()
    finish_reason: str | None = None


class _Answer(Struct, frozen=True):
    choices: list[_Choice]


class Workload(Struct, frozen=True):
    name: str
    stream: bool
    check: Callable[[bytes], str | None]
    """What is wrong with an answer's body; None when it is whole."""
    paced: bool = False
    """Events come with a pause between, as from a model: without it, a proxy that is slower than the
    upstream finds many events in one read, and what each event costs does not show."""

    def body(self, model: str) -> bytes:
        asked: dict[str, Any] = {
            "model": model,
            "messages": [
                {"role": "system", "content": "You answer in plain words, and you never use more of them than needed."},
                {
                    "role": "user",
                    "content": "What does a gateway in front of language models do, and what is its cost?",
                },
            ],
            "temperature": 0.2,
            "max_tokens": 256,
            "stream": self.stream,
            "user": PACED if self.paced else "bench",
        }
        return _compact(asked).encode()


def answer() -> bytes:
    """The non-streamed answer."""
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": TEXT, "refusal": None},
        "logprobs": None,
        "finish_reason": "stop",
    }
    return _compact({**HEAD, "object": "chat.completion", "choices": [choice], "usage": USAGE, **TAIL}).encode()


def events(usage: bool) -> list[bytes]:
    """The streamed answer: role, 62 deltas, finish, usage if it was asked for, `[DONE]`."""
    first = {"role": "assistant", "content": "", "refusal": None}
    steps: list[tuple[dict[str, Any], str | None]] = [(first, None)]
    steps += [({"content": token}, None) for token in TOKENS]
    steps += [({}, "stop")]
    chunks: list[dict[str, Any]] = [
        {"choices": [{"index": 0, "delta": delta, "finish_reason": reason}]} | ({"usage": None} if usage else {})
        for delta, reason in steps
    ]
    if usage:
        chunks.append({"choices": [], "usage": USAGE})
    return [
        b"data: " + _compact({**HEAD, "object": "chat.completion.chunk", **TAIL, **chunk}).encode() + b"\n\n"
        for chunk in chunks
    ] + [DONE]


def _check_answer(body: bytes) -> str | None:
    try:
        found = _decode(body)
    except msgspec.DecodeError:
        return "not a chat completion"
    if len(found.choices) != 1 or found.choices[0].message.content != TEXT:
        return "another text"
    return None


def _check_stream(body: bytes) -> str | None:
    said: list[str] = []
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
                if choice.delta.content:
                    said.append(choice.delta.content)
    except msgspec.DecodeError:
        return "an event that is not a chunk"
    if not done:
        return "no [DONE]"
    if not finished:
        return "no finish_reason"
    if len(said) != len(TOKENS):
        return f"{len(said)} content events instead of {len(TOKENS)}"
    return None if "".join(said) == TEXT else "another text"


_decode = msgspec.json.Decoder(_Answer).decode
WORKLOADS = {
    "json": Workload("json", stream=False, check=_check_answer),
    "stream64": Workload("stream64", stream=True, check=_check_stream),
    "paced64": Workload("paced64", stream=True, check=_check_stream, paced=True),
}

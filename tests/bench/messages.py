"""Anthropic's Messages, as bytes: what is asked, and what comes back.

Wire format: https://platform.claude.com/docs/en/build-with-claude/streaming
"""

from typing import Any

import msgspec
from msgspec import Struct

from tests.bench.passage import ANSWER_TOKENS, PROMPT_TOKENS, QUESTION, SYSTEM, TEXT, TOKENS, compact, said

HEAD = {
    "model": "claude-sonnet-4-5-20250929",
    "id": "msg_01BenchK3vQ7xTz9LrW2pYhN5",
    "type": "message",
    "role": "assistant",
}
READ = {
    "input_tokens": PROMPT_TOKENS,
    "cache_creation_input_tokens": 0,
    "cache_read_input_tokens": 0,
    "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0},
}
SERVED = {"service_tier": "standard", "inference_geo": "global"}


class _Block(Struct, frozen=True):
    type: str
    text: str = ""


class _Message(Struct, frozen=True):
    type: str
    content: list[_Block]
    stop_reason: str | None = None


class _Delta(Struct, frozen=True):
    text: str = ""
    stop_reason: str | None = None


class _Event(Struct, frozen=True):
    type: str
    delta: _Delta = _Delta()


_decode = msgspec.json.Decoder(_Message).decode
_decode_event = msgspec.json.Decoder(_Event).decode


def asked(model: str, *, stream: bool) -> bytes:
    """The request."""
    body: dict[str, Any] = {
        "model": model,
        "max_tokens": 256,
        "system": SYSTEM,
        "messages": [{"role": "user", "content": QUESTION}],
        "temperature": 0.2,
        "stream": stream,
        "metadata": {"user_id": "bench"},
    }
    return compact(body).encode()


def answer() -> bytes:
    """The non-streamed answer."""
    stop = {"stop_reason": "end_turn", "stop_sequence": None}
    usage = {**READ, "output_tokens": ANSWER_TOKENS, **SERVED}
    return compact({**HEAD, "content": [{"type": "text", "text": TEXT}], **stop, "usage": usage}).encode()


def events() -> list[bytes]:
    """The streamed answer: message_start to message_stop, with 62 deltas and the ping after the block's start."""
    start: dict[str, Any] = {**HEAD, "content": [], "stop_reason": None, "stop_sequence": None}
    start["usage"] = {**READ, "output_tokens": 1, **SERVED}
    steps: list[dict[str, Any]] = [
        {"type": "message_start", "message": start},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "ping"},
    ]
    steps += [
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": token}} for token in TOKENS
    ]
    counts = {name: count for name, count in READ.items() if name != "cache_creation"}
    steps += [
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn", "stop_sequence": None},
            "usage": {**counts, "output_tokens": ANSWER_TOKENS},
        },
        {"type": "message_stop"},
    ]
    return [f"event: {step['type']}\ndata: {compact(step)}\n\n".encode() for step in steps]


def check_answer(body: bytes) -> str | None:
    """What is wrong with a whole answer; None when nothing is."""
    try:
        found = _decode(body)
    except msgspec.DecodeError:
        return "not a message"
    if found.stop_reason != "end_turn":
        return "no stop_reason"
    return None if [block.text for block in found.content] == [TEXT] else "another text"


def check_stream(body: bytes) -> str | None:
    """What is wrong with a streamed answer; None when nothing is."""
    pieces: list[str] = []
    seen: list[str] = []
    reason = None
    for event in body.split(b"\n\n"):
        if not event or event.startswith(b":"):
            continue
        name, _, data = event.partition(b"\n")
        try:
            step = _decode_event(data.removeprefix(b"data: "))
        except msgspec.DecodeError:
            return "an event that is not one of a message"
        if name != f"event: {step.type}".encode():
            return "an event under another name"
        if step.type == "content_block_delta":
            pieces.append(step.delta.text)
        elif step.type == "message_delta":
            reason = step.delta.stop_reason
        if step.type != "ping" and (not seen or seen[-1] != step.type):
            seen.append(step.type)
    if seen[-1:] != ["message_stop"]:
        return "no message_stop"
    if seen != _ORDER:
        return "events out of order"
    if reason != "end_turn":
        return "no stop_reason"
    return said(pieces)


_ORDER = [
    "message_start",
    "content_block_start",
    "content_block_delta",
    "content_block_stop",
    "message_delta",
    "message_stop",
]

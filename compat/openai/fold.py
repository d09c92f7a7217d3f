"""Chunks of a streamed answer folded into the one body a non-streaming client expects.

Works on the wire, not on the internal model, so that fields this code has never heard of survive:
of a field that repeats, text is joined, lists are concatenated, and anything else keeps its last value.
"""

from collections.abc import AsyncIterator
from typing import Any

import msgspec

from compat.sse import data_of, split

_read = msgspec.json.Decoder(dict[str, Any]).decode

_CONSTANT = frozenset({"role", "id", "name", "type"})
"""Strings that name something: repeated by some providers, never continued."""


async def fold_chat(frames: AsyncIterator[bytes]) -> bytes:
    """Read the frames of chat completion chunks and return the body of a `chat.completion`."""
    return await _fold(frames, "chat.completion", _chat_choice)


async def fold_completions(frames: AsyncIterator[bytes]) -> bytes:
    """Read the frames of streamed completions and return the body of a `text_completion`."""
    return await _fold(frames, "text_completion", _text_choice)


async def _fold(frames: AsyncIterator[bytes], object_: str, finish: Any) -> bytes:
    body: dict[str, Any] = {}
    choices: dict[int, dict[str, Any]] = {}
    async for events in frames:
        for event in split(events):
            data = data_of(event)
            if not data or data == b"[DONE]":
                continue
            chunk = _read(data)
            for choice in chunk.pop("choices", None) or ():
                _merge(choices.setdefault(choice.get("index", 0), {}), choice)
            for name, value in chunk.items():
                if value is not None or name not in body:
                    body[name] = value
    body["object"] = object_
    usage = body.pop("usage", None)
    body["choices"] = [finish(choice) for _, choice in sorted(choices.items())]
    if usage is not None:
        body["usage"] = usage
    return msgspec.json.encode(body)


def _merge(into: dict[str, Any], piece: dict[str, Any]) -> None:
    for name, value in piece.items():
        known = into.get(name)
        if known is None:
            if isinstance(value, list) and name == "tool_calls":
                into[name] = known = []
                _merge_calls(known, value)
            elif isinstance(value, dict):
                into[name] = known = {}
                _merge(known, value)
            else:
                into[name] = value
        elif value is None:
            continue
        elif name == "tool_calls":
            _merge_calls(known, value)
        elif isinstance(known, dict) and isinstance(value, dict):
            _merge(known, value)
        elif isinstance(known, list) and isinstance(value, list):
            known.extend(value)
        elif isinstance(known, str) and isinstance(value, str) and name not in _CONSTANT:
            into[name] = value if name == "finish_reason" else known + value
        else:
            into[name] = value


def _merge_calls(into: list[dict[str, Any]], pieces: list[dict[str, Any]]) -> None:
    for piece in pieces:
        index = piece.get("index", 0)
        call = next((call for call in into if call.get("index", 0) == index), None)
        if call is None:
            call = {"index": index}
            into.append(call)
        _merge(call, piece)


def _chat_choice(choice: dict[str, Any]) -> dict[str, Any]:
    delta = choice.pop("delta", {})
    message: dict[str, Any] = {"role": "assistant", "content": None, **delta}
    if not message.get("content"):
        # Streams say null where a whole message says "": null belongs to answers that are something else.
        other = any(message.get(name) for name in ("tool_calls", "function_call", "refusal", "audio"))
        message["content"] = None if other else ""
    for call in message.get("tool_calls") or ():
        call.pop("index", None)
    message.setdefault("refusal", None)
    out = {"index": choice.pop("index", 0), "message": message}
    out["logprobs"] = choice.pop("logprobs", None)
    out["finish_reason"] = choice.pop("finish_reason", None)
    return out | choice


def _text_choice(choice: dict[str, Any]) -> dict[str, Any]:
    choice.setdefault("text", "")
    choice.setdefault("logprobs", None)
    return choice

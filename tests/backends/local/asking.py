"""Asking a local backend as the house does: along the relay where it relays, else translated and back."""

import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from msgspec.structs import replace

from backends.base import Call
from backends.local import LocalBackend
from compat.canonical.event import Event
from compat.openai.answer import render_events
from compat.openai.calls import Calls
from compat.openai.chat import parse_request, peek
from compat.openai.fold import fold_chat
from compat.sse import data_of, split
from tests.backends.local.bench import call

WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Tells the weather in a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "unit": {"enum": ["celsius", "fahrenheit"]}},
            "required": ["city", "unit"],
        },
    },
}
ADD: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "Adds two numbers.",
        "parameters": {
            "$defs": {"Number": {"type": "integer"}},
            "type": "object",
            "properties": {"a": {"$ref": "#/$defs/Number"}, "b": {"$ref": "#/$defs/Number"}},
            "required": ["a", "b"],
        },
    },
}


def chat(text: str = "What is the weather in Paris?", model: str = "smol", **fields: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": text}]
    return {"model": model, "messages": messages, "max_tokens": 60, "temperature": 0, "seed": 1} | fields


async def frames_of(
    backend: LocalBackend, body: dict[str, Any], asked: Call | None = None
) -> AsyncGenerator[bytes, None]:
    """The frames of a streamed answer."""
    envelope, asked = peek(json.dumps(body | {"stream": True}).encode()), asked or call()
    if not backend.translates(envelope, body["model"]):
        relayed = await backend.relay(envelope, body["model"], asked)
        assert relayed.frames is not None
        frames = relayed.frames
    else:
        frames = render_events(backend.run(parse_request(envelope), asked), include_usage=True, calls=Calls(envelope))
    async with aclosing(frames):
        async for frame in frames:
            yield frame


async def chunks_of(backend: LocalBackend, body: dict[str, Any], asked: Call | None = None) -> list[dict[str, Any]]:
    """The chunks of a streamed answer."""
    events = [event async for frame in frames_of(backend, body, asked) for event in split(frame)]
    assert events[-1] == b"data: [DONE]"
    return [json.loads(data_of(event)) for event in events[:-1]]


async def choices_of(backend: LocalBackend, body: dict[str, Any], asked: Call | None = None) -> list[dict[str, Any]]:
    """The choices of the whole answer."""
    answer = json.loads(await fold_chat(frames_of(backend, body, asked)))
    choices: list[dict[str, Any]] = answer["choices"]
    return choices


async def events_of(backend: LocalBackend, body: dict[str, Any], asked: Call | None = None) -> list[Event]:
    """The events of a translated answer."""
    request = replace(parse_request(peek(json.dumps(body).encode())), model=body["model"])
    async with aclosing(backend.run(request, asked or call())) as events:
        return [event async for event in events]

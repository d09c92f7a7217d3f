"""A model that can call tools, for the provider: clever enough for the clients' own test suites, and never random.

It calls the tools that the prompt names, or else the first.  Arguments come from their JSON schema and
from the prompt: numbers in order, then quoted words, then the last word with a capital.
"""

import json
import re
from collections.abc import Iterator
from itertools import chain, repeat
from typing import Any

from tests import wire
from tests.exchange import Exchange

Json = dict[str, Any]


async def play(x: Exchange) -> None:
    """The script: answer a chat request, streamed or not."""
    asked = x.json
    calls, text = _calls(asked), ""
    if not calls:
        text = _text(asked)
    if not x.streams:
        x.answer(_whole(x.model, calls, text))
        return
    x.begin()
    for frame in _frames(x, calls, text):
        x.send(frame)
    x.end()


def _calls(asked: Json) -> list[Json]:
    """The tool calls to make, as OpenAI writes them."""
    tools = {tool["function"]["name"]: tool["function"] for tool in asked.get("tools", ())}
    choice = asked.get("tool_choice", "auto")
    if not tools or choice == "none" or (choice == "auto" and asked["messages"][-1]["role"] == "tool"):
        return []
    prompt = _prompt(asked)
    if isinstance(choice, dict):
        names = [choice["function"]["name"]]
    else:
        names = [name for name in tools if re.search(rf"\b{name}\b", prompt)] or list(tools)[:1]
    if asked.get("parallel_tool_calls") is False:
        names = names[:1]
    return [
        {
            "id": f"call_{len(asked['messages'])}_{index}",
            "type": "function",
            "function": {"name": name, "arguments": _fitting(tools[name].get("parameters") or {}, prompt)},
        }
        for index, name in enumerate(names)
    ]


def _text(asked: Json) -> str:
    last, wanted = asked["messages"][-1], asked.get("response_format") or {}
    if wanted.get("type") == "json_schema":
        return _fitting(wanted["json_schema"]["schema"], _prompt(asked))
    if wanted.get("type") == "json_object":
        return json.dumps(dict.fromkeys(re.findall(r"'(\w+)'", _prompt(asked)), "something"))
    if last["role"] == "tool":
        return f"The tool says: {_said(last)}"
    return "Hello from a model that can call tools."


def _prompt(asked: Json) -> str:
    return next((_said(m) for m in reversed(asked["messages"]) if m["role"] == "user"), "")


def _said(message: Json) -> str:
    content = message.get("content") or ""
    return content if isinstance(content, str) else " ".join(part.get("text", "") for part in content)


def _fitting(schema: Json, prompt: str) -> str:
    """JSON text that fits a schema, with what the prompt offers."""
    numbers = chain(map(int, re.findall(r"\d+", prompt)), repeat(1))
    words = re.findall(r"'([^']+)'", prompt) or re.findall(r"\b[A-Z]\w+", prompt)[-1:] or ["something"]
    value = _value(schema, schema, numbers, chain(words, repeat(words[-1])))
    return json.dumps(value, ensure_ascii=False)


def _value(schema: Json, root: Json, numbers: Iterator[int], words: Iterator[str]) -> Any:
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return _value(root["$defs"][name], root, numbers, words)
    if "anyOf" in schema:
        return _value(schema["anyOf"][0], root, numbers, words)
    if "enum" in schema:
        return schema["enum"][0]
    match schema.get("type"):
        case "object":
            return {k: _value(v, root, numbers, words) for k, v in schema.get("properties", {}).items()}
        case "array":
            return [_value(schema["items"], root, numbers, words)]
        case "integer" | "number":
            return next(numbers)
        case "boolean":
            return True
        case "null":
            return None
        case _:
            return next(words)


def _whole(model: str, calls: list[Json], text: str) -> bytes:
    message: Json = {"role": "assistant", "content": text or None, "refusal": None, "annotations": []}
    if calls:
        message["tool_calls"] = calls
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "tool_calls" if calls else "stop"}
    return wire.dump(
        {
            "id": "chatcmpl-C1",
            "object": "chat.completion",
            "created": 1760000000,
            "model": model,
            "choices": [choice],
            "usage": wire.USAGE,
        }
    )


def _frames(x: Exchange, calls: list[Json], text: str) -> Iterator[bytes]:
    """The answer as OpenAI streams it: a call's name first, then its arguments in fragments."""
    usage = b"null" if x.wants_usage else None

    def frame(fields: Json, finish: str | None = None) -> bytes:
        return wire.chunk(wire.delta(fields, finish), usage, x.model)

    yield frame({"role": "assistant", "content": None if calls else "", "refusal": None})
    for word in re.findall(r"\S+\s*", text):
        yield frame({"content": word})
    for index, call in enumerate(calls):
        name, arguments = call["function"]["name"], call["function"]["arguments"]
        yield frame({"tool_calls": [{**call, "index": index, "function": {"name": name, "arguments": ""}}]})
        for at in range(0, len(arguments), 5):
            yield frame({"tool_calls": [{"index": index, "function": {"arguments": arguments[at : at + 5]}}]})
    yield frame({}, "tool_calls" if calls else "stop")
    if x.wants_usage:
        yield wire.chunk(b"[]", wire.dump(wire.USAGE), x.model)
    yield wire.DONE

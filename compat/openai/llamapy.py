"""A request for llama-cpp-python's server, which knows less of OpenAI's dialect than llama.cpp's own.

What it would get wrong in silence is refused in its name, what it passes over is taken out by name, and what it
spells otherwise is spelled so.  Source: llama_cpp/server/types.py and app.py, 0.3.36.
"""

from typing import Any

import msgspec
from msgspec import Raw

from compat.body import decode_raw
from compat.canonical.error import InvalidRequest
from compat.canonical.plain import telling
from compat.canonical.request import Envelope

_NAME = "llama_cpp_python"
_KNOWN = frozenset(
    {
        *("model", "messages", "prompt", "stream", "stream_options", "user", "n", "max_tokens", "min_tokens"),
        *("temperature", "top_p", "min_p", "top_k", "stop", "seed", "presence_penalty", "frequency_penalty"),
        *("repeat_penalty", "logit_bias", "logit_bias_type", "response_format", "grammar"),
        *("mirostat_mode", "mirostat_tau", "mirostat_eta", "suffix", "echo", "best_of"),
    }
)
_CANNOT = {
    "n": "makes one choice at a time: ask again for another",
    "logprobs": "tells no probabilities",
    "top_logprobs": "tells no probabilities",
    "lora": "applies its adapters when it loads the model, not by request",
}
_write = msgspec.json.Encoder().encode


def fitted(asked: Envelope) -> tuple[Envelope, tuple[str, ...]]:
    """The request as that server takes it, and the names of what that leaves out.  Raises InvalidRequest.

    It has been held to OpenAI's rules already (`compat.openai.fitting`), and has no tools.
    """
    given = {name: value for name, raw in asked.fields.items() if (value := decode_raw(raw)) is not None}
    for name in telling(given):
        if name in _CANNOT and given[name] != (1 if name == "n" else 0):
            raise _cannot(name, _CANNOT[name])
    biased = given.get("logit_bias") or {}
    if given.get("logit_bias_type") != "tokens" and not all(token.isdecimal() for token in biased):
        raise _cannot("logit_bias", "takes tokens by their numbers")
    if "max_completion_tokens" in given:
        given["max_tokens"] = given.pop("max_completion_tokens")
    if isinstance(prompt := given.get("prompt"), list) and not (len(prompt) == 1 and isinstance(prompt[0], str)):
        raise _cannot("prompt", "completes one prompt at a time, given as text")
    if isinstance(format_ := given.get("response_format"), dict):
        given["response_format"] = _format(format_)
    if isinstance(messages := given.get("messages"), list):
        given["messages"] = [_message(message, f"messages[{n}].content") for n, message in enumerate(messages)]
    lost = tuple(name for name in telling(given) if name not in _KNOWN | _CANNOT.keys())
    fields = {name: Raw(_write(value)) for name, value in given.items() if name in _KNOWN}
    return msgspec.structs.replace(asked, fields=fields, body=_write(fields)), lost


def _format(given: dict[str, Any]) -> dict[str, Any]:
    if given["type"] != "json_schema":
        return given
    return {"type": "json_object", "schema": given["json_schema"].get("schema") or {"type": "object"}}


def _message(message: dict[str, Any], at: str) -> dict[str, Any]:
    """It knows no developer, and its templates no lists of texts."""
    if message.get("role") == "developer":
        message = message | {"role": "system"}
    content = message.get("content")
    if isinstance(content, list):
        if not all("text" in part for part in content):
            raise _cannot(at, "looks at no pictures")
        content = "\n".join(part["text"] for part in content)
    return message | {"content": content or ""}


def _cannot(name: str, what: str) -> InvalidRequest:
    return InvalidRequest(f"Engine {_NAME} {what}.", param=name, code="unsupported_value")

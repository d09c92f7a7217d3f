"""What a provider sends, byte for byte: bodies and frames as recorded from OpenAI's API."""

import json
from pathlib import Path
from typing import Any

FIXTURES = Path(__file__).parent / "fixtures"
MODEL = "gpt-4o-mini-2024-07-18"
USAGE = {
    "prompt_tokens": 9,
    "completion_tokens": 12,
    "total_tokens": 21,
    "prompt_tokens_details": {"cached_tokens": 4, "audio_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
}
EXTRA = (
    b'"service_tier":"default","system_fingerprint":"fp_8f2d4c1a",'
    b'"vendor_note":{"big":12345678901234567890123,"f":1.50}'
)
"""Fields a gateway may never have heard of; the numbers do not survive a float."""
DONE = b"data: [DONE]\n\n"


def fixture(name: str) -> bytes:
    """A golden file of OpenAI's dialect."""
    return (FIXTURES / "openai" / name).read_bytes()


def dump(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def completion(text: str = "Hello there!", model: str = MODEL) -> bytes:
    """A whole `chat.completion`, with unknown fields."""
    message = dump({"role": "assistant", "content": text, "refusal": None, "annotations": []})
    return (
        (
            b'{"id":"chatcmpl-A1","object":"chat.completion","created":1760000000,"model":'
            + dump(model)
            + b',"choices":'
            b'[{"index":0,"message":'
            + message
            + b',"logprobs":null,"finish_reason":"stop"}],"usage":'
            + dump(USAGE)
            + b","
        )
        + EXTRA
        + b"}"
    )


def chunk(choices: bytes, usage: bytes | None = b"null", model: str = MODEL) -> bytes:
    """One `chat.completion.chunk` as an SSE frame; `usage` None leaves the key out."""
    tail = b"" if usage is None else b',"usage":' + usage
    return (
        b'data: {"id":"chatcmpl-A1","object":"chat.completion.chunk","created":1760000000,"model":'
        + dump(model)
        + b","
        + EXTRA
        + b',"choices":'
        + choices
        + tail
        + b"}\n\n"
    )


def delta(fields: dict[str, Any], finish: str | None = None, index: int = 0) -> bytes:
    return dump([{"index": index, "delta": fields, "logprobs": None, "finish_reason": finish}])


def opening(usage: bytes | None = b"null") -> bytes:
    return chunk(delta({"role": "assistant", "content": "", "refusal": None}), usage)


def word(text: str, usage: bytes | None = b"null") -> bytes:
    return chunk(delta({"content": text}), usage)


def finish(reason: str = "stop", usage: bytes | None = b"null") -> bytes:
    return chunk(delta({}, reason), usage)


def totals() -> bytes:
    return chunk(b"[]", dump(USAGE))


def stream(words: list[str], *, include_usage: bool, reason: str = "stop") -> list[bytes]:
    """A streamed answer, one frame each, as OpenAI sends it with or without `include_usage`."""
    usage = b"null" if include_usage else None
    frames = [opening(usage), *(word(w, usage) for w in words), finish(reason, usage)]
    return [*frames, *([totals()] if include_usage else []), DONE]


def tool_call(include_usage: bool) -> list[bytes]:
    """Two parallel calls, their arguments in fragments."""
    usage = b"null" if include_usage else None

    def piece(index: int, arguments: str, name: str | None = None) -> bytes:
        call: dict[str, Any] = {"index": index}
        if name is not None:
            call |= {"id": f"call_{index}", "type": "function", "function": {"name": name, "arguments": arguments}}
        else:
            call["function"] = {"arguments": arguments}
        return chunk(delta({"tool_calls": [call]}), usage)

    return [
        chunk(delta({"role": "assistant", "content": None}), usage),
        piece(0, "", "get_weather"),
        piece(0, '{"city":'),
        piece(0, '"Paris"}'),
        piece(1, "", "get_time"),
        piece(1, '{"zone": "CET"}'),
        finish("tool_calls", usage),
        *([totals()] if include_usage else []),
        DONE,
    ]


def error(
    message: str, type_: str = "invalid_request_error", code: str | None = None, param: str | None = None
) -> bytes:
    return json.dumps({"error": {"message": message, "type": type_, "param": param, "code": code}}, indent=2).encode()


def models() -> bytes:
    rows = [{"id": name, "object": "model", "created": 1686935002, "owned_by": "openai"} for name in ("answer", MODEL)]
    return dump({"object": "list", "data": rows})

"""OpenAI's legacy completions, both directions.  Source: https://platform.openai.com/docs/api-reference/completions

Where it has to be translated, a prompt becomes the only message of a chat; what a chat cannot say
(`suffix`, `best_of`, several prompts, token ids) is refused or left out by name.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import msgspec
from msgspec import Struct

from compat.body import check_kinds, decode_raw, kind_of, missing, read, read_fields
from compat.canonical.error import InvalidRequest
from compat.canonical.event import Event, Finished, Metered, Result, Started, TextDelta, Usage
from compat.canonical.message import Message, Text
from compat.canonical.request import Envelope, Sampling, TextRequest
from compat.openai.answer import own_id, reason_out
from compat.openai.envelope import check_stream_options, envelope
from compat.openai.limits import COMPLETIONS, check_numbers
from compat.openai.usage import render_usage
from compat.sse import DONE, frame

KINDS: dict[str, tuple[str, ...]] = {
    "model": ("string",),
    "prompt": ("string", "array"),
    "stream": ("boolean",),
    "stream_options": ("object",),
    "suffix": ("string",),
    "max_tokens": ("number",),
    "temperature": ("number",),
    "top_p": ("number",),
    "n": ("number",),
    "best_of": ("number",),
    "logprobs": ("number",),
    "echo": ("boolean",),
    "stop": ("string", "array"),
    "presence_penalty": ("number",),
    "frequency_penalty": ("number",),
    "seed": ("number",),
    "logit_bias": ("object",),
    "user": ("string",),
}
"""What the fields that are looked at may be in JSON, besides null."""
_write = msgspec.json.Encoder().encode


class CompletionRequest(Struct):
    """What is read of a request when it has to be translated."""

    prompt: str | list[Any]
    model: str | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    n: int | None = None
    echo: bool | None = None
    stop: str | list[str] | None = None
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    user: str | None = None
    stream: bool | None = None
    stream_options: dict[str, Any] | None = None


_MODELLED = frozenset(CompletionRequest.__struct_encode_fields__)
_read_request = msgspec.json.Decoder(CompletionRequest)


def peek(body: bytes) -> Envelope:
    """Read as much of a request as routing needs.  Raises InvalidRequest."""
    fields = read_fields(body)
    check_kinds(fields, KINDS)
    prompt = fields.get("prompt")
    if prompt is None or kind_of(prompt) == "null":
        raise missing("prompt")
    return envelope("completions", fields, body)


def check(asked: Envelope) -> CompletionRequest:
    """Hold a request to OpenAI's rules.  Raises InvalidRequest."""
    body = read(asked.body, _read_request)
    check_numbers(asked.fields, COMPLETIONS)
    check_stream_options(asked)
    if not body.prompt and isinstance(body.prompt, list):
        raise InvalidRequest("Invalid 'prompt': the array is empty.", param="prompt", code="empty_array")
    return body


def parse_request(asked: Envelope) -> TextRequest:
    """Read a request whole.  Raises InvalidRequest."""
    body = check(asked)
    prompt = _prompt(body)
    if not prompt:
        raise InvalidRequest("This model's provider takes no empty prompt.", param="prompt", code="empty_string")
    if body.max_tokens == 0:
        raise InvalidRequest(
            "This model's provider writes one token at least.", param="max_tokens", code="integer_below_min_value"
        )
    stop = body.stop
    extra = {name: decode_raw(raw) for name, raw in asked.fields.items() if name not in _MODELLED}
    if extra.get("best_of") == 1:
        del extra["best_of"]  # the only one is the best
    return TextRequest(
        model=asked.model,
        messages=(Message(role="user", parts=(Text(text=prompt),)),),
        sampling=Sampling(
            temperature=body.temperature,
            top_p=body.top_p,
            # OpenAI's own default here; a chat's would be the rest of the window.
            max_tokens=16 if body.max_tokens is None else body.max_tokens,
            stop=() if stop is None else (stop,) if isinstance(stop, str) else tuple(stop),
            seed=body.seed,
            presence_penalty=body.presence_penalty,
            frequency_penalty=body.frequency_penalty,
        ),
        choices=body.n or 1,
        user=body.user,
        extra=extra,
        dialect="completions",
    )


def echo_of(asked: Envelope) -> str:
    """What the answer begins with: the prompt of a request that has been parsed, if it asks for that."""
    if bytes(asked.fields.get("echo", b"")) != b"true":
        return ""
    return _prompt(read(asked.body, _read_request))


async def render_events(
    events: AsyncGenerator[Event, None], *, include_usage: bool, echo: str = ""
) -> AsyncGenerator[bytes, None]:
    """Write a stream as SSE frames of `text_completion`, [DONE] included."""
    head: dict[str, Any] = {}
    usage = Usage()
    begun: set[int] = set()
    """Choices that have had the echo."""

    def chunk(choice: int, text: str, reason: str | None = None) -> bytes:
        body = head | {"choices": [{"index": choice, "text": text, "logprobs": None, "finish_reason": reason}]}
        if include_usage:
            body["usage"] = None
        return frame(_write(body))

    async with aclosing(events):
        async for event in events:
            match event:
                case Started(id=id_, model=model, created=created):
                    head = {"id": own_id("cmpl-", id_), "object": "text_completion", "created": created, "model": model}
                case TextDelta(choice=n) | Finished(choice=n):
                    if echo and n not in begun:
                        begun.add(n)
                        yield chunk(n, echo)
                    if isinstance(event, TextDelta):
                        yield chunk(n, event.text)
                    else:
                        yield chunk(n, "", reason_out(event.reason))
                case Metered(usage=usage):
                    pass
        if include_usage:
            yield frame(_write(head | {"choices": [], "usage": render_usage(usage)}))
    yield DONE


def render_result(result: Result, echo: str = "") -> bytes:
    """Write a whole answer as the body of a `text_completion`."""
    choices = [
        {
            "index": choice.finished.choice,
            "text": echo + "".join(part.text for part in choice.parts if isinstance(part, Text)),
            "logprobs": None,
            "finish_reason": reason_out(choice.finished.reason),
        }
        for choice in result.choices
    ]
    started = result.started
    return _write(
        {
            "id": own_id("cmpl-", started.id),
            "object": "text_completion",
            "created": started.created,
            "model": started.model,
            "choices": choices,
            "usage": render_usage(result.usage),
        }
    )


def _prompt(body: CompletionRequest) -> str:
    prompt = body.prompt
    if isinstance(prompt, list):
        if len(prompt) != 1 or not isinstance(prompt[0], str):
            raise InvalidRequest(
                "This model's provider takes one prompt of text at a time.", param="prompt", code="unsupported_value"
            )
        prompt = prompt[0]
    return prompt

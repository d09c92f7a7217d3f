"""Where llama.cpp's server departs from OpenAI's dialect, and what it has besides."""

from typing import Any

import msgspec
from msgspec import Raw, Struct

from compat.canonical.event import Usage
from compat.canonical.request import Envelope
from compat.openai.tap import Chunk, SummingTap, Tap, WholeTap
from compat.sse import data_of, frame, split


class _Tokens(Struct):
    tokens: list[int]


_read = msgspec.json.Decoder(dict[str, Raw]).decode
_read_tokens = msgspec.json.Decoder(_Tokens).decode
_read_prompts = msgspec.json.Decoder(list[Raw]).decode
_write = msgspec.json.Encoder().encode
_NOTED = b'"logprobs":{'
_PROGRESS = b'"prompt_progress":{'


def departs(envelope: Envelope) -> bool:
    """Whether its answer must be put right: with several choices or prompts, or with probabilities."""
    several = bytes(envelope.fields.get("n", b"1")) not in (b"1", b"null") or _prompts(envelope) > 1
    return several or bytes(envelope.fields.get("logprobs", b"null")) not in (b"null", b"false")


def _prompts(envelope: Envelope) -> int:
    """How many prompts a completion goes on with.  Tokens in a list, texts between them or not, are one."""
    raw = bytes(envelope.fields.get("prompt", b""))
    if not raw.startswith(b"["):
        return 1
    prompts = _read_prompts(raw)
    return len(prompts) if all(bytes(one)[:1] in (b'"', b"[") for one in prompts) else 1


class TokensTap(WholeTap):
    """The answer to a request for a text's tokens; `tokens` are their ids."""

    tokens: list[int]

    def whole(self, body: bytes) -> bytes | None:
        try:
            self.tokens = _read_tokens(body).tokens
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None
        return body


class ProgressTap(Tap):
    """One streamed answer, without the events that tell how much of the prompt has been read.

    They are asked for to hear that the engine works: a client gets them only if it asked for them too.
    """

    def __init__(self, envelope: Envelope) -> None:
        super().__init__(envelope)
        self._hides_progress = "return_progress" not in envelope.fields

    def _event(self, event: bytes) -> bytes:
        return b"" if self._hides_progress and _PROGRESS in event else super()._event(event)


class LlamaTap(ProgressTap, SummingTap):
    """One streamed answer, whose probabilities come as OpenAI has them, and whose usage is that of all its prompts.

    Probabilities of a chat lack `refusal`; those of a completion are written as a chat's.
    """

    def __init__(self, envelope: Envelope) -> None:
        super().__init__(envelope)
        self._several = True  # each event is looked at
        self._each = self._choices
        """Choices for one prompt: those of the first are numbered first."""
        self._choices *= _prompts(envelope)
        self._taken: dict[int, Usage] = {}
        """What each prompt took."""
        self._lengths: dict[int, int] = {}
        """Characters of each completion so far."""

    def _event(self, event: bytes) -> bytes:
        out = super()._event(event)
        if _NOTED not in out:
            return out
        return b"".join([self._corrected(each) if _NOTED in each else each + b"\n\n" for each in split(out)])

    def _note(self, chunk: Chunk) -> None:
        before = self.usage
        super()._note(chunk)
        if self.usage is None or self.usage is before:
            return
        index = chunk.choices[0].index or 0 if chunk.choices else 0
        self._taken[index // self._each] = self.usage
        given = sum(one.input_tokens or 0 for one in self._taken.values())
        cached = sum(one.cached_tokens or 0 for one in self._taken.values())
        self.usage = msgspec.structs.replace(self.usage, input_tokens=given, cached_tokens=cached)

    def _corrected(self, event: bytes) -> bytes:
        fields = _read(data_of(event))
        choices: list[dict[str, Any]] = msgspec.json.decode(fields["choices"])
        for choice in choices:
            if not isinstance(given := choice.get("logprobs"), dict):
                continue
            if "text" in choice:
                choice["logprobs"] = self._of_text(given.get("content") or [], choice.get("index", 0))
            else:
                choice["logprobs"] = given | {"refusal": None}
        return frame(_write(fields | {"choices": Raw(_write(choices))}))

    def _of_text(self, tokens: list[dict[str, Any]], index: int) -> dict[str, Any]:
        offsets = []
        for token in tokens:
            offsets.append(self._lengths.get(index, 0))
            self._lengths[index] = offsets[-1] + len(token["token"])
        return {
            "tokens": [token["token"] for token in tokens],
            "token_logprobs": [token["logprob"] for token in tokens],
            "top_logprobs": [{top["token"]: top["logprob"] for top in token["top_logprobs"]} for token in tokens],
            "text_offset": offsets,
        }

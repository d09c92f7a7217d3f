"""Where llama.cpp's server departs from OpenAI's dialect, and what it has besides."""

from typing import Any

import msgspec
from msgspec import Raw, Struct

from compat.canonical.request import Envelope
from compat.openai.tap import SummingTap, WholeTap
from compat.sse import data_of, frame, split


class _Tokens(Struct):
    tokens: list[int]


_read = msgspec.json.Decoder(dict[str, Raw]).decode
_read_tokens = msgspec.json.Decoder(_Tokens).decode
_write = msgspec.json.Encoder().encode
_NOTED = b'"logprobs":{'


def departs(envelope: Envelope) -> bool:
    """Whether its answer must be put right: with several choices, or with probabilities."""
    several = bytes(envelope.fields.get("n", b"1")) not in (b"1", b"null")
    return several or bytes(envelope.fields.get("logprobs", b"null")) not in (b"null", b"false")


class TokensTap(WholeTap):
    """The answer to a request for a text's tokens; `tokens` are their ids."""

    tokens: list[int]

    def whole(self, body: bytes) -> bytes | None:
        try:
            self.tokens = _read_tokens(body).tokens
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None
        return body


class LlamaTap(SummingTap):
    """One streamed answer, whose probabilities come as OpenAI has them.

    Those of a chat lack `refusal`; those of a completion are written as a chat's.
    """

    def __init__(self, envelope: Envelope) -> None:
        super().__init__(envelope)
        self._several = True  # each event is looked at
        self._lengths: dict[int, int] = {}
        """Characters of each completion so far."""

    def _event(self, event: bytes) -> bytes:
        out = super()._event(event)
        if _NOTED not in out:
            return out
        return b"".join([self._corrected(each) if _NOTED in each else each + b"\n\n" for each in split(out)])

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

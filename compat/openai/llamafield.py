"""Fields of a request that llama.cpp has beside OpenAI's, or is laxer about: what they may be.

Its servers pass over what they cannot read, and count a number that is too large from below.
Source: llama.cpp's tools/server/README.md.
"""

from typing import Any

from msgspec import Raw

from compat.body import check_kinds, decode_raw
from compat.canonical.error import ContextTooLong, InvalidRequest
from compat.canonical.request import Envelope
from compat.openai.limits import Limits, check_numbers

CHARACTERS_PER_TOKEN = 32
"""No text has so many on average: what is too long by this measure need not be read to know it."""

_NUMBERS = ("min_p", "typical_p", "repeat_penalty", "repeat_last_n", "mirostat", "mirostat_tau", "mirostat_eta")
KINDS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(_NUMBERS, ("number",)),
    "grammar": ("string",),
    "chat_template_kwargs": ("object",),
    "reasoning_format": ("string",),
    "thinking_budget_tokens": ("number",),
    "samplers": ("array", "string"),
    "logit_bias": ("object", "array"),
}
"""What the fields that are looked at may be in JSON, besides null."""
_SAMPLERS = frozenset(
    {"dry", "top_k", "typ_p", "typical_p", "typical", "typ", "top_p", "nucleus", "top_n_sigma", "min_p"}
    | {"temperature", "temp", "xtc", "infill", "penalties", "adaptive_p"}
)
"""What a list of samplers may name, with hyphens too."""
_SAMPLER_LETTERS = frozenset("dkypsmtxiea")
"""What a text may name them by."""
_INT_MAX = 2**31 - 1
LIMITS: Limits = {
    "max_tokens": (0, _INT_MAX),
    "max_completion_tokens": (1, _INT_MAX),
    "seed": (-(2**63), 2**63 - 1),
    "repeat_last_n": (-1, _INT_MAX),
    "mirostat": (0, 2),
    "thinking_budget_tokens": (-1, _INT_MAX),
    "n_predict": (-1, _INT_MAX),
    "n_probs": (0, _INT_MAX),
    "n_keep": (-1, _INT_MAX),
    "n_discard": (0, _INT_MAX),
    "n_indent": (0, _INT_MAX),
    "min_keep": (0, _INT_MAX),
    "id_slot": (-1, _INT_MAX),
    "dry_allowed_length": (0, _INT_MAX),
    "dry_penalty_last_n": (-1, _INT_MAX),
}
"""Whole numbers only: llama.cpp cuts others off."""
_DECIMALS = (
    "dry_base", "dry_multiplier", "dynatemp_exponent", "dynatemp_range", "t_max_predict_ms", "top_n_sigma", "typ_p",
    "xtc_probability", "xtc_threshold",
)  # fmt: skip
_UNTOLD: dict[str, tuple[str, ...]] = {
    **dict.fromkeys([*LIMITS, *_DECIMALS], ("number",)),
    **dict.fromkeys(["cache_prompt", "ignore_eos", "post_sampling_probs"], ("boolean",)),
    "dry_sequence_breakers": ("array",),
    "json_schema": ("object",),
}
"""The same as in `KINDS`, of fields that are seldom asked for."""
NAMES = (*KINDS, *_UNTOLD, "lora")
"""Those that llama.cpp's servers are known to have."""


def check(asked: Envelope, *, context: int, adapters: int, slots: int | None = None) -> None:
    """Raises InvalidRequest, or ContextTooLong for what cannot be short enough.

    context: in tokens.  adapters: how many LoRA adapters the model has.  slots: how many answers it can write at once;
    None: its engine says so itself.
    """
    fields = asked.fields
    check_kinds(fields, KINDS)
    check_kinds(fields, _UNTOLD)
    check_numbers(fields, LIMITS)
    if slots is not None:
        check_numbers(fields, {"n": (1, slots)})
    _check_length(fields, context)
    if "lora" in fields:
        _check_adapters(decode_raw(fields["lora"]), adapters)
    if "samplers" in fields:
        _check_samplers(decode_raw(fields["samplers"]))
    if "logit_bias" in fields:
        _check_bias(decode_raw(fields["logit_bias"]))
    if _says(fields, "top_logprobs", "0") and not _says(fields, "logprobs", "false"):
        raise InvalidRequest("'top_logprobs' is only allowed when 'logprobs' is enabled.", param="top_logprobs")


def _says(fields: dict[str, Raw], name: str, nothing: str) -> bool:
    return bytes(fields.get(name, b"null")) not in (b"null", nothing.encode())


def _check_length(fields: dict[str, Raw], context: int) -> None:
    for name in ("messages", "prompt"):
        said = bytes(fields.get(name, b""))
        if len(said) > CHARACTERS_PER_TOKEN * context and b"data:" not in said:
            raise ContextTooLong(
                f"This model's maximum context length is {context} tokens. However, your {name} have {len(said)}"
                f" characters, which is more. Please reduce the length of the {name}.",
                param="messages",
            )


def _check_adapters(given: Any, adapters: int) -> None:
    for n, one in enumerate(given if isinstance(given, list) else [] if given is None else [given]):
        id_, scale = (one.get("id"), one.get("scale")) if isinstance(one, dict) else (None, None)
        if type(id_) is not int or type(scale) not in (int, float):
            raise InvalidRequest(
                'Invalid type for \'lora\': expected a list of {"id": number, "scale": number}.',
                param="lora",
                code="invalid_type",
            )
        if not 0 <= id_ < adapters:
            has = f"adapters 0 to {adapters - 1}" if adapters else "no adapters"
            raise InvalidRequest(f"The model has {has}, not {id_}.", param=f"lora[{n}].id", code="invalid_value")


def _check_samplers(given: Any) -> None:
    known = _SAMPLER_LETTERS if isinstance(given, str) else _SAMPLERS
    for n, name in enumerate(given or ()):
        if not isinstance(name, str) or name.lower().replace("-", "_") not in known:
            there = ", ".join(sorted(known))
            raise InvalidRequest(
                f"Invalid value for 'samplers': {str(name)[:100]!r} is no sampler. There are {there}.",
                param=f"samplers[{n}]",
                code="invalid_value",
            )


def _check_bias(given: Any) -> None:
    for token, bias in given.items() if isinstance(given, dict) else ():
        if type(bias) not in (int, float) or not -100 <= bias <= 100:
            raise InvalidRequest(
                "Invalid value for 'logit_bias': a bias is a number from -100 to 100.",
                param=f"logit_bias.{token[:100]}",
                code="invalid_value",
            )

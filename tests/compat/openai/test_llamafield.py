"""Fields that llama.cpp passes over or misreads."""

import json
from typing import Any

import pytest

from compat.canonical.error import GatewayError
from compat.openai.chat import peek
from compat.openai.llamafield import CHARACTERS_PER_TOKEN, check


def hold(*, context: int = 100, adapters: int = 0, **fields: Any) -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]} | fields
    check(peek(json.dumps(body).encode()), context=context, adapters=adapters)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"grammar": 3}, "grammar"),
        ({"min_p": "small"}, "min_p"),
        ({"max_tokens": 2**31}, "max_tokens"),
        ({"logit_bias": {"5": 101}}, "logit_bias.5"),
        ({"logit_bias": {"5": True}}, "logit_bias.5"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"lora": [{"id": 0, "scale": 1}, {"id": 1, "scale": 1}], "adapters": 1}, "lora[1].id"),
        ({"lora": [{"id": True, "scale": 1}]}, "lora"),
        ({"lora": [{"id": 0}]}, "lora"),
        ({"samplers": ["top_k", "nope"]}, "samplers[1]"),
        ({"samplers": [3]}, "samplers[0]"),
        ({"samplers": "kz"}, "samplers[1]"),
        ({"messages": [{"role": "user", "content": "x" * 100 * CHARACTERS_PER_TOKEN}]}, "messages"),
    ],
)
def test_what_cannot_be_is_refused(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(GatewayError) as refused:
        hold(**fields)
    assert (refused.value.status, refused.value.param) == (400, param)


@pytest.mark.parametrize(
    "fields",
    [
        {"grammar": 'root ::= "x"', "min_p": 0.1, "repeat_penalty": 1, "samplers": ["top_k"], "logit_bias": {}},
        {"grammar": None, "logit_bias": None, "lora": None, "top_logprobs": None},
        {"samplers": ["Top-K", "top_n_sigma", "temp"]},
        {"samplers": "edskypmxt"},
        {"samplers": None},
        {"lora": [{"id": 1, "scale": 0.5}], "adapters": 2},
        {"logprobs": True, "top_logprobs": 2, "max_tokens": 2**31 - 1},
        {"top_logprobs": 0},
        {"messages": [{"role": "user", "content": "data:" + "x" * 100 * CHARACTERS_PER_TOKEN}]},
    ],
)
def test_what_can_be_is_let_through(fields: dict[str, Any]) -> None:
    hold(**fields)

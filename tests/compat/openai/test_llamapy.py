"""Requests for llama-cpp-python's server."""

import json
from typing import Any

import pytest

from compat.canonical.error import InvalidRequest
from compat.openai import chat, completions
from compat.openai.llamapy import fitted

MESSAGES = [{"role": "user", "content": "Hi"}]


def sent(**fields: Any) -> tuple[dict[str, Any], tuple[str, ...]]:
    envelope, lost = fitted(chat.peek(json.dumps({"model": "m", "messages": MESSAGES} | fields).encode()))
    body: dict[str, Any] = json.loads(envelope.body)
    assert {name: json.loads(bytes(raw)) for name, raw in envelope.fields.items()} == body
    return body, lost


def test_what_it_does_not_know_is_left_out_by_name_and_nulls_without() -> None:
    body, lost = sent(reasoning_effort="low", chat_template_kwargs={}, cache_prompt=False, temperature=None, min_p=0.1)
    assert body == {"model": "m", "messages": MESSAGES, "min_p": 0.1}
    assert set(lost) == {"reasoning_effort", "chat_template_kwargs"}


def test_what_it_spells_otherwise_is_spelled_so() -> None:
    schema = {"type": "integer"}
    body, lost = sent(
        max_completion_tokens=5,
        response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": schema}},
        messages=[
            {"role": "developer", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
            {"role": "assistant", "content": None},
        ],
    )
    assert body["max_tokens"] == 5
    assert body["response_format"] == {"type": "json_object", "schema": schema}
    assert body["messages"] == [{"role": "system", "content": "a\nb"}, {"role": "assistant", "content": ""}]
    assert not lost


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"n": 2}, "n"),
        ({"logprobs": True}, "logprobs"),
        ({"lora": [{"id": 0, "scale": 1}]}, "lora"),
        ({"logit_bias": {"word": 1}}, "logit_bias"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:"}}]}]},
            "messages[0].content",
        ),
    ],
)
def test_what_it_cannot_do_is_refused_in_its_name(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest, match=r"^Engine llama_cpp_python ") as refused:
        sent(**fields)
    assert refused.value.param == param


def test_one_choice_no_probabilities_and_words_as_biases_are_no_trouble() -> None:
    body, lost = sent(n=1, logprobs=False, top_logprobs=0, logit_bias={"word": 1}, logit_bias_type="tokens")
    assert body["logit_bias"] == {"word": 1}
    assert not lost


@pytest.mark.parametrize("prompt", [["a", "b"], [1, 2], [[1]]])
def test_it_completes_one_text(prompt: Any) -> None:
    body = {"model": "m", "prompt": prompt}
    with pytest.raises(InvalidRequest, match=r"^Engine llama_cpp_python ") as refused:
        fitted(completions.peek(json.dumps(body).encode()))
    assert refused.value.param == "prompt"
    fitted(completions.peek(b'{"model": "m", "prompt": ["a"]}'))

"""What clients get wrong is refused in our words on every engine, and what they may ask for is done or named."""

import json
import math
from typing import Any

import pytest

from backends.local import LocalBackend
from backends.local.settings import ModelSettings
from compat.canonical.error import RequestError
from compat.openai.chat import peek
from compat.openai.completions import peek as peek_completion
from tests.backends.local.asking import WEATHER, chat, choices_of
from tests.backends.local.bench import call
from tests.backends.local.conftest import Start, together

PIXEL = "data:image/png;base64,iVBORw0KGgo="
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"], "additionalProperties": False}


def picture(url: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}]}


def of_schema(schema: Any) -> dict[str, Any]:
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}}


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"temperature": "hot"}, "temperature"),
    ({"temperature": 3}, "temperature"),
    ({"max_tokens": -5}, "max_tokens"),
    ({"max_tokens": 0}, "max_tokens"),
    ({"max_tokens": 10**12}, "max_tokens"),
    ({"messages": []}, "messages"),
    ({"messages": [{"role": "user"}]}, "messages[0].content"),
    ({"messages": [{"content": "x"}]}, "messages[0].role"),
    ({"messages": "hello"}, "messages"),
    ({"n": 0}, "n"),
    ({"n": 5}, "n"),
    ({"stop": [3]}, "stop[0]"),
    ({"top_k": "many"}, "top_k"),
    ({"min_p": "small"}, "min_p"),
    ({"seed": 1.5}, "seed"),
    ({"logit_bias": {"5": "much"}}, "logit_bias.5"),
    ({"logit_bias": {"5": 400}}, "logit_bias.5"),
    ({"top_logprobs": 3}, "top_logprobs"),
    ({"lora": [{"id": 0, "scale": 1}]}, "lora[0].id"),
    ({"lora": "mine"}, "lora"),
    (picture(PIXEL), "messages[0].content"),
    (picture("https://example.com/a.png"), "messages[0].content"),
    (of_schema({"type": "wizard"}), "response_format"),
    (of_schema({"$ref": "#/nowhere"}), "response_format"),
    (of_schema({"type": "object", "properties": 3}), "response_format"),
    (of_schema({"$ref": "http://127.0.0.1:9/schema"}), "response_format"),
    ({"response_format": {"type": "wizard"}}, "response_format.type"),
    ({"grammar": "root := ((("}, "grammar"),
    ({"grammar": 'answer ::= "x"'}, "grammar"),
    ({"grammar": 3}, "grammar"),
    ({"grammar": 'root ::= "x"', "tools": [WEATHER]}, "grammar"),
    ({"tools": [{}]}, "tools[0].function"),
    ({"tools": [WEATHER], "tool_choice": "perhaps"}, "tool_choice"),
    ({"tools": [WEATHER], "tool_choice": {"type": "function", "function": {"name": "other"}}}, "tool_choice"),
    ({"tool_choice": "required"}, "tool_choice"),
    ({"chat_template_kwargs": 3}, "chat_template_kwargs"),
    (chat("word " * 600), "messages"),
    (chat("word " * 2_000_000), "messages"),
]


async def test_what_is_wrong_with_a_request_is_told_by_its_field(start: Start) -> None:
    backend = start(context_max=512, slots=2)
    wrong: list[tuple[object, ...]] = []
    for fields, param in REFUSED:
        try:
            await choices_of(backend, chat("Hi", max_tokens=2) | fields, call(20))
        except RequestError as e:
            if (e.status, e.param) != (400, param) or not e.message or "127.0.0.1:9" in e.message.split("$ref")[0]:
                wrong.append((fields, param, e.status, e.param, e.message))
        else:
            wrong.append((fields, param, "was answered"))
    assert not wrong
    # And none of it has harmed the worker.
    worker = backend.pool.workers()["smol"]
    assert worker.alive
    assert (await choices_of(backend, chat("Hi", max_tokens=2)))[0]["finish_reason"] == "length"
    assert backend.pool.workers()["smol"] is worker


async def test_a_prompt_that_is_too_long_is_told_with_the_numbers(start: Start) -> None:
    backend = start(context_max=512)
    for words in (600, 2_000_000):
        with pytest.raises(RequestError, match=r"maximum context length is 512 tokens.* \d{3,}") as refused:
            await choices_of(backend, chat("word " * words), call(20))
        assert (refused.value.status, refused.value.code) == (400, "context_length_exceeded")


@together
async def test_how_tokens_are_drawn_is_heeded(shared: LocalBackend) -> None:
    async def said(**fields: Any) -> str:
        [choice] = await choices_of(shared, chat("Tell a story.", **{"max_tokens": 12} | fields))
        content: str = choice["message"]["content"]
        return content

    hot = {"temperature": 1.5, "top_k": 0, "top_p": 1}
    assert await said(seed=7, **hot) == await said(seed=7, **hot) != await said(seed=8, **hot)
    plain = await said()
    assert "on" not in await said(stop=["on"])
    assert plain == await said(seed=5, temperature=1.9, top_k=1) == await said(seed=5, temperature=1.9, min_p=1)
    first = await said(max_tokens=1)
    biased = [await said(max_tokens=1, logit_bias={"28": -100, "253": 100})]
    assert biased != [first]


@together
async def test_an_answer_keeps_to_its_schema_or_grammar(shared: LocalBackend) -> None:
    for fields in (of_schema(SCHEMA), {"response_format": {"type": "json_object", "schema": SCHEMA}}):
        [choice] = await choices_of(shared, chat("Give a number.", **fields))
        assert list(json.loads(choice["message"]["content"])) == ["a"]
    [choice] = await choices_of(shared, chat("Is water wet?", grammar='root ::= "yes" | "no"'))
    assert choice["message"]["content"] in ("yes", "no")
    [choice] = await choices_of(shared, chat("Give a person as JSON.", response_format={"type": "json_object"}))
    assert choice["message"]["content"].lstrip().startswith("{")


@together
async def test_choices_and_probabilities_come_or_the_engine_is_named(shared: LocalBackend) -> None:
    told: dict[str, Any] = {"logprobs": True, "top_logprobs": 2, "max_tokens": 4}
    if shared.prefills:
        choices = await choices_of(shared, chat("Hi", n=2, **told))
        assert [choice["index"] for choice in choices] == [0, 1]
        tokens = choices[0]["logprobs"]["content"]
        assert len(tokens) == 4
        assert all(len(token["top_logprobs"]) == 2 and math.exp(token["logprob"]) <= 1 for token in tokens)
        return
    for fields, param in ((told, "logprobs"), ({"n": 2}, "n"), ({"top_logprobs": 0, "logprobs": True}, "logprobs")):
        with pytest.raises(RequestError, match=r"^Engine llama_cpp_python ") as refused:
            await choices_of(shared, chat("Hi", **fields))
        assert (refused.value.status, refused.value.param) == (400, param)


@together
async def test_what_an_engine_would_pass_over_is_named(shared: LocalBackend) -> None:
    asked = call()
    body = chat("Hi", max_tokens=2, store=True, typical_p=0.9, messages=[{"role": "developer", "content": "Be kind."}])
    await choices_of(shared, body, asked)
    assert set(asked.dropped) == ({"store"} if shared.prefills else {"store", "typical_p"})


@together
async def test_completions_are_judged_alike(shared: LocalBackend) -> None:
    async def complete(**fields: Any) -> dict[str, Any]:
        body = {"model": "smol", "prompt": "Once upon", "max_tokens": 3, "temperature": 0} | fields
        relayed = await shared.relay(peek_completion(json.dumps(body).encode()), "smol", call(20))
        assert relayed.body is not None
        answer: dict[str, Any] = json.loads(relayed.body)
        return answer

    assert (await complete())["choices"][0]["text"]
    for fields, param in (
        ({"temperature": "hot"}, "temperature"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"grammar": "root := ((("}, "grammar"),
        ({"n": 0}, "n"),
        ({"prompt": "word " * 2_000_000}, "messages"),
    ):
        with pytest.raises(RequestError) as refused:
            await complete(**fields)
        assert (refused.value.status, refused.value.param) == (400, param)
    if not shared.prefills:
        with pytest.raises(RequestError, match=r"^Engine llama_cpp_python "):
            await complete(prompt=["a", "b"])


async def test_a_model_has_its_own_defaults(start: Start) -> None:
    backend = start(models={"smol": ModelSettings(defaults={"max_tokens": 3})})
    for fields, tokens in (({}, 3), ({"max_tokens": 5}, 5), ({"max_completion_tokens": 6}, 6)):
        # Greedy: a sampled answer may well end by itself before the limit.
        body = {
            "model": "smol",
            "temperature": 0,
            "messages": [{"role": "user", "content": "Count to fifty."}],
        } | fields
        relayed = await backend.relay(peek(json.dumps(body).encode()), "smol", call())
        assert relayed.body is not None
        answer = json.loads(relayed.body)
        assert answer["choices"][0]["finish_reason"] == "length"
        if "usage" in answer:
            assert answer["usage"]["completion_tokens"] == tokens

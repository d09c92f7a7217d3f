"""/v1/completions: relayed untouched both ways, translated where it must be, and the embedded model."""

import json
from typing import Any

import httpx2
import openai
import pytest

from tests import wire
from tests.exchange import Exchange
from tests.gateway.conftest import APP_KEY
from tests.http import error_of, events_of, in_band_error, usage_row
from tests.process import Gateway
from tests.provider import Provider

COMPLETIONS = "/v1/completions"
STREAM = wire.fixture("completions.sse")
ASKED: dict[str, Any] = {"echo": True, "logprobs": 2, "suffix": "!", "n": 2, "best_of": 2, "logit_bias": {"5": 1}}


async def complete(x: Exchange, *ends: str) -> None:
    """Two choices, whole or streamed; with an argument, that many bytes of the stream."""
    if not x.streams:
        x.answer(wire.fixture("completions.json"))
        return
    x.begin()
    x.send(STREAM[: int(ends[0])] if ends else STREAM)
    x.end()


@pytest.fixture(autouse=True)
def writer(upstream: Provider) -> None:
    upstream.scripts["write"] = complete
    upstream.scripts["write:700"] = complete


def prompt(model: str = "up/write", **fields: Any) -> dict[str, Any]:
    return {"model": model, "prompt": "Say hi", **fields}


def test_a_request_and_its_answer_pass_unchanged(client: httpx2.Client, upstream: Provider) -> None:
    answer = client.post(COMPLETIONS, json=prompt(**ASKED, vendor={"a": 1.5}))
    assert answer.content == wire.fixture("completions.json")
    sent = upstream.asked()
    assert sent.path == "/v1/completions"
    assert sent.json == prompt("write", **ASKED, vendor={"a": 1.5})


def test_a_stream_with_usage_asked_passes_byte_for_byte(client: httpx2.Client) -> None:
    answer = client.post(COMPLETIONS, json=prompt(**ASKED, stream=True, stream_options={"include_usage": True}))
    assert answer.content == STREAM


def test_a_stream_without_usage_asked_is_metered_all_the_same(
    house: Gateway, client: httpx2.Client, upstream: Provider
) -> None:
    answer = client.post(COMPLETIONS, json=prompt(**ASKED, stream=True))
    assert b'"usage"' not in answer.content
    assert answer.content.endswith(wire.DONE)
    assert upstream.asked().wants_usage
    row = usage_row(house.folder, answer.headers["x-request-id"])
    assert (row["input_tokens"], row["output_tokens"]) == (3, 4)


def test_a_stream_cut_short_ends_with_an_error(client: httpx2.Client) -> None:
    answer = client.post(COMPLETIONS, json=prompt("once-write:700", stream=True))
    assert in_band_error(answer.content)["code"] == "upstream_bad_response"


@pytest.mark.parametrize("given", [["a", "b"], [1, 2, 3], [[1, 2], [3]]])
def test_every_form_of_prompt_passes(client: httpx2.Client, upstream: Provider, given: Any) -> None:
    client.post(COMPLETIONS, json={"model": "up/write", "prompt": given}).raise_for_status()
    assert upstream.asked().json["prompt"] == given


def test_the_sdk_completes(sdk: openai.OpenAI) -> None:
    whole = sdk.completions.create(model="up/write", prompt="Say hi", n=2, echo=True, logprobs=2)
    assert [c.text for c in whole.choices] == ["Say hi Hi", "Say hi H\u00e9llo"]
    assert whole.choices[0].logprobs is not None
    assert whole.choices[0].logprobs.tokens == ["Say", " hi", " Hi"]
    texts = {0: "", 1: ""}
    for chunk in sdk.completions.create(model="up/write", prompt="Say hi", n=2, stream=True):
        for choice in chunk.choices:
            texts[choice.index] += choice.text
    assert texts == {0: " Hi", 1: " H\u00e9llo"}


async def test_the_async_sdk_completes(house: Gateway) -> None:
    http = httpx2.AsyncClient(verify=False, timeout=30)
    async with openai.AsyncOpenAI(base_url=f"{house.url}/v1", api_key=APP_KEY, http_client=http) as sdk:
        stream = await sdk.completions.create(
            model="up/write", prompt="Say hi", n=2, stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]
        assert chunks[-1].usage is not None
        assert chunks[-1].usage.total_tokens == 7


def test_a_translated_answer_is_openais(sdk: openai.OpenAI) -> None:
    whole = sdk.completions.create(model="fake/fake", prompt="Say hi")
    assert whole.object == "text_completion"
    assert whole.choices[0].text == "Hello from the fake backend."
    stream = sdk.completions.create(model="fake/fake", prompt=["Say hi"], stream=True)
    assert "".join(chunk.choices[0].text for chunk in stream) == "Hello from the fake backend."


def test_a_translated_stream_ends_as_openais_does(client: httpx2.Client) -> None:
    fields = prompt("fake/fake", stream=True, stream_options={"include_usage": True})
    events = events_of(client.post(COMPLETIONS, json=fields).content)
    assert events[-1] == b"[DONE]"
    assert json.loads(events[-2])["usage"]["completion_tokens"] == 5
    assert json.loads(events[-3])["choices"][0]["finish_reason"] == "stop"


def test_what_a_chat_cannot_say_is_named_or_refused(client: httpx2.Client) -> None:
    fields = prompt("fake/fake", echo=True, suffix="!", logprobs=1, best_of=1)
    answer = client.post(COMPLETIONS, json=fields)
    assert answer.headers["x-gateway-dropped"] == "suffix, logprobs"
    strict = client.post(COMPLETIONS, json=fields, headers={"x-gateway-strict": "true"})
    assert (strict.status_code, error_of(strict)["param"]) == (400, "suffix")


def test_several_prompts_are_refused_where_they_cannot_be_asked(client: httpx2.Client) -> None:
    answer = client.post(COMPLETIONS, json={"model": "fake/fake", "prompt": ["a", "b"]})
    assert (answer.status_code, error_of(answer)["param"]) == (400, "prompt")


def test_the_embedded_model_completes(local_gateway: Gateway) -> None:
    with httpx2.Client(verify=False, timeout=60) as http:
        sdk = openai.OpenAI(base_url=f"{local_gateway.url}/v1", api_key="local", max_retries=0, http_client=http)
        asked: dict[str, Any] = {"model": "auto", "prompt": "The capital of France is", "temperature": 0}
        whole = sdk.completions.create(**asked, max_tokens=8)
        assert whole.object == "text_completion"
        assert whole.choices[0].text
        assert whole.usage is not None
        assert whole.usage.completion_tokens == 8
        assert whole.choices[0].finish_reason == "length"
        stream = list(sdk.completions.create(**asked, max_tokens=8, stream=True))
        assert "".join(chunk.choices[0].text for chunk in stream) == whole.choices[0].text
        assert stream[-1].choices[0].finish_reason == "length"

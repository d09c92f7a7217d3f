"""POST /v1/responses where the provider does not speak it: translated, and kept by the gateway."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import openai
import pydantic
import pytest
from openai.types.responses import Response

from tests import scripts, wire
from tests.exchange import Exchange
from tests.gateway.api.conftest import ACME_KEY
from tests.gateway.conftest import config
from tests.http import error_of, post, raw, usage_row
from tests.process import Gateway, gateway
from tests.provider import Provider
from tests.responses import check_response, checked

PATH = "/v1/responses"


def asking(model: str, **fields: Any) -> dict[str, Any]:
    return {"model": model, "input": "Say hello."} | fields


def said(upstream: Provider, count: int = 1) -> list[dict[str, Any]]:
    """The messages of the count-th request that the provider saw."""
    messages: list[dict[str, Any]] = upstream.asked(count=count).json["messages"]
    return messages


# Answers


def test_the_sdk_gets_a_response(acme: openai.OpenAI, upstream: Provider) -> None:
    made = acme.responses.create(model="up/answer", input="Say hello.", instructions="Be kind.", temperature=0.2)
    assert made.output_text == "word0 word1 word2 "
    assert (made.status, made.model, made.object) == ("completed", wire.MODEL, "response")
    assert made.usage is not None
    assert (made.usage.input_tokens, made.usage.output_tokens, made.usage.total_tokens) == (9, 12, 21)
    assert made.usage.input_tokens_details.cached_tokens == 4
    sent = upstream.asked().json
    assert sent["messages"] == [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Say hello."},
    ]
    assert sent["temperature"] == 0.2
    assert not {"input", "store", "instructions"} & set(sent)


def test_the_sdk_streams_a_response(acme: openai.OpenAI) -> None:
    with acme.responses.stream(model="up/answer", input="Say hello.") as stream:
        text = "".join(event.delta for event in stream if event.type == "response.output_text.delta")
        assert text == stream.get_final_response().output_text == "word0 word1 word2 "


@pytest.mark.parametrize("model", ["up/answer", "up/tools", "fake/fake"])
def test_every_event_is_one_of_openais(wire_client: httpx2.Client, model: str) -> None:
    answer = wire_client.post(PATH, json=asking(model, stream=True))
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = checked(answer.content)
    assert events[0]["type"] == "response.created"
    assert events[-1]["type"] == "response.completed"
    assert b"[DONE]" not in answer.content
    whole = wire_client.get(f"{PATH}/{events[-1]['response']['id']}").json()
    assert whole == events[-1]["response"]


def test_a_whole_response_has_every_required_field(wire_client: httpx2.Client) -> None:
    body = wire_client.post(PATH, json=asking("up/answer", metadata={"a": "b"}, user="u")).json()
    check_response(body)
    required = {name for name, field in Response.model_fields.items() if field.is_required()}
    nullable = {"error", "incomplete_details", "instructions", "metadata", "temperature", "top_p", "usage", "status"}
    assert required | nullable | {"previous_response_id", "max_output_tokens", "reasoning", "text"} <= set(body)
    assert (body["metadata"], body["user"], body["store"]) == ({"a": "b"}, "u", True)


def test_it_is_metered_like_any_other(wire_client: httpx2.Client, keeper: Gateway) -> None:
    for stream in (False, True):
        marker = f"metered-{stream}"
        answer = wire_client.post(PATH, json=asking("up/answer", stream=stream), headers={"x-request-id": marker})
        assert answer.headers["x-gateway-model"] == "up/answer"
        row = usage_row(keeper.folder, marker)
        assert (row["route"], row["input_tokens"], row["output_tokens"], row["cached_tokens"]) == (PATH, 9, 12, 4)


def test_an_answer_that_reached_its_limit_is_incomplete(wire_client: httpx2.Client, upstream: Provider) -> None:
    async def cut_short(x: Exchange) -> None:
        await scripts.tell(x, wire.stream(["Once", " upon"], include_usage=True, reason="length"))

    upstream.scripts["cut-short"] = cut_short
    body = wire_client.post(PATH, json=asking("up/cut-short", max_output_tokens=16)).json()
    assert (body["status"], body["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})
    assert body["output"][0]["status"] == "incomplete"
    assert upstream.asked().json["max_tokens"] == 16
    streamed = wire_client.post(PATH, json=asking("up/cut-short", stream=True))
    assert checked(streamed.content)[-1]["type"] == "response.incomplete"


def test_reasoning_comes_as_items_of_its_own(wire_client: httpx2.Client, upstream: Provider) -> None:
    async def thinking(x: Exchange) -> None:
        deltas = ({"role": "assistant", "reasoning_content": "Hm, "}, {"reasoning_content": "yes."}, {"content": "Yes"})
        said = [wire.chunk(wire.delta(fields)) for fields in deltas]
        await scripts.tell(x, [*said, wire.finish(), wire.totals(), wire.DONE])

    upstream.scripts["thinking"] = thinking
    plain = wire_client.post(PATH, json=asking("up/thinking", stream=True))
    kinds = [event["type"] for event in checked(plain.content)]
    assert kinds.count("response.reasoning_text.delta") == 2
    asked = wire_client.post(PATH, json=asking("up/thinking", reasoning={"effort": "low", "summary": "auto"}))
    assert asked.json()["output"][0]["summary"] == [{"type": "summary_text", "text": "Hm, yes."}]
    assert upstream.asked(count=2).json["reasoning_effort"] == "low"


def test_structured_output_is_parsed(acme: openai.OpenAI, upstream: Provider) -> None:
    class City(pydantic.BaseModel):
        name: str
        people: int

    async def structured(x: Exchange) -> None:
        await scripts.tell(x, wire.stream(['{"name":"Bonn",', '"people":3}'], include_usage=True))

    upstream.scripts["structured"] = structured
    made = acme.responses.parse(model="up/structured", input="A city, please.", text_format=City)
    assert made.output_parsed == City(name="Bonn", people=3)
    sent = upstream.asked().json["response_format"]
    assert sent["type"] == "json_schema"
    assert (sent["json_schema"]["name"], sent["json_schema"]["strict"]) == ("City", True)
    assert sent["json_schema"]["schema"]["properties"].keys() == {"name", "people"}


# What came before


def test_a_response_goes_on_from_the_one_before(acme: openai.OpenAI, upstream: Provider) -> None:
    first = acme.responses.create(model="up/answer", input="My name is Ada.", instructions="Only this once.")
    second = acme.responses.create(model="up/answer", input="Who am I?", previous_response_id=first.id)
    assert second.previous_response_id == first.id
    with acme.responses.stream(model="up/answer", input="Sure?", previous_response_id=second.id) as stream:
        stream.until_done()
    assert said(upstream, 3) == [
        {"role": "user", "content": "My name is Ada."},
        {"role": "assistant", "content": "word0 word1 word2 "},
        {"role": "user", "content": "Who am I?"},
        {"role": "assistant", "content": "word0 word1 word2 "},
        {"role": "user", "content": "Sure?"},
    ]


def test_a_conversation_can_go_on_in_two_ways(acme: openai.OpenAI, upstream: Provider) -> None:
    first = acme.responses.create(model="up/answer", input="One.")
    for n, text in enumerate(("Left.", "Right.")):
        acme.responses.create(model="up/answer", input=text, previous_response_id=first.id)
        assert [m["content"] for m in said(upstream, n + 2)] == ["One.", "word0 word1 word2 ", text]


def test_tools_are_called_and_their_results_handed_in(acme: openai.OpenAI, upstream: Provider) -> None:
    tools: Any = [
        {"type": "function", "name": name, "parameters": {"type": "object", "properties": {}}, "strict": False}
        for name in ("get_weather", "get_time")
    ]
    first = acme.responses.create(model="up/tools", input="Weather and time?", tools=tools, parallel_tool_calls=True)
    calls = [item for item in first.output if item.type == "function_call"]
    assert [(c.name, c.arguments, c.call_id) for c in calls] == [
        ("get_weather", '{"city":"Paris"}', "call_0"),
        ("get_time", '{"zone": "CET"}', "call_1"),
    ]
    results: Any = [{"type": "function_call_output", "call_id": c.call_id, "output": f"{c.name}!"} for c in calls]
    last = acme.responses.create(model="up/answer", input=results, tools=tools, previous_response_id=first.id)
    assert last.output_text == "word0 word1 word2 "
    assert upstream.asked().json["tools"][0]["function"]["name"] == "get_weather"
    _, assistant, *told = said(upstream, 2)
    assert [c["id"] for c in assistant["tool_calls"]] == ["call_0", "call_1"]
    assert told == [
        {"role": "tool", "tool_call_id": "call_0", "content": "get_weather!"},
        {"role": "tool", "tool_call_id": "call_1", "content": "get_time!"},
    ]


def test_a_loop_that_hands_everything_back_needs_no_memory(acme: openai.OpenAI, upstream: Provider) -> None:
    history: list[Any] = [{"role": "user", "content": "Weather?"}]
    first = acme.responses.create(model="up/tools", input=history, store=False)
    history += first.output
    history += [{"type": "function_call_output", "call_id": f"call_{n}", "output": "fine"} for n in (0, 1)]
    acme.responses.create(model="up/answer", input=history, store=False)
    assert [m["role"] for m in said(upstream, 2)] == ["user", "assistant", "tool", "tool"]


def test_an_item_can_be_referred_to(acme: openai.OpenAI, rival: openai.OpenAI, upstream: Provider) -> None:
    first = acme.responses.create(model="up/answer", input="One.")
    reference: Any = [{"type": "item_reference", "id": first.output[0].id}, {"role": "user", "content": "Two."}]
    second = acme.responses.create(model="up/answer", input=reference)
    assert said(upstream, 2) == [
        {"role": "assistant", "content": "word0 word1 word2 "},
        {"role": "user", "content": "Two."},
    ]
    assert [item.type for item in acme.responses.input_items.list(second.id, order="asc")] == ["message", "message"]
    with pytest.raises(openai.NotFoundError, match="Item with id"):
        rival.responses.create(model="up/answer", input=reference)


# Kept


def test_a_response_is_kept_listed_and_deleted(acme: openai.OpenAI) -> None:
    first = acme.responses.create(model="up/answer", input="One.")
    second = acme.responses.create(model="up/answer", input="Two.", previous_response_id=first.id)
    assert acme.responses.retrieve(second.id) == second
    listed = acme.responses.input_items.list(second.id, limit=2)
    texts = [item.content[0].text for item in listed if item.type == "message"]  # type: ignore[union-attr]
    assert texts == ["Two.", "word0 word1 word2 ", "One."], "newest first, and over all pages"
    assert listed.has_more
    assert (listed.model_extra or {})["first_id"] == listed.data[0].id
    upwards = acme.responses.input_items.list(second.id, order="asc")
    assert [i.id for i in upwards.data] == [i.id for i in acme.responses.input_items.list(second.id).data][::-1]
    acme.responses.delete(second.id)
    with pytest.raises(openai.NotFoundError) as caught:
        acme.responses.retrieve(second.id)
    assert caught.value.body == {
        "message": f"Response with id '{second.id}' not found.",
        "type": "invalid_request_error",
        "param": None,
        "code": None,
    }


def test_deleting_says_so(wire_client: httpx2.Client) -> None:
    id_ = wire_client.post(PATH, json=asking("fake/fake")).json()["id"]
    assert wire_client.delete(f"{PATH}/{id_}").json() == {"id": id_, "object": "response", "deleted": True}
    assert wire_client.delete(f"{PATH}/{id_}").status_code == 404


def test_a_kept_response_streams_again(acme: openai.OpenAI, wire_client: httpx2.Client) -> None:
    made = acme.responses.create(model="up/tools", input="x")
    events = checked(wire_client.get(f"{PATH}/{made.id}?stream=true").content)
    assert Response.model_validate(events[-1]["response"]) == made
    rest = list(acme.responses.retrieve(made.id, stream=True, starting_after=len(events) - 3))
    assert [e.sequence_number for e in rest] == [len(events) - 2, len(events) - 1]
    endless = wire_client.get(f"{PATH}/{made.id}?stream=true&starting_after={'9' * 5000}")
    assert (endless.status_code, error_of(endless)["param"]) == (400, "starting_after")


def test_what_is_not_to_be_kept_is_not(acme: openai.OpenAI) -> None:
    made = acme.responses.create(model="up/answer", input="One.", store=False)
    with pytest.raises(openai.NotFoundError):
        acme.responses.retrieve(made.id)
    with pytest.raises(openai.BadRequestError) as caught:
        acme.responses.create(model="up/answer", input="Two.", previous_response_id=made.id)
    assert caught.value.body == {
        "message": f"Previous response with id '{made.id}' not found.",
        "type": "invalid_request_error",
        "param": "previous_response_id",
        "code": "previous_response_not_found",
    }


def test_a_conversation_with_a_hole_is_not_gone_on_from(acme: openai.OpenAI) -> None:
    first = acme.responses.create(model="fake/fake", input="One.")
    second = acme.responses.create(model="fake/fake", input="Two.", previous_response_id=first.id)
    acme.responses.delete(first.id)
    with pytest.raises(openai.BadRequestError, match=first.id):
        acme.responses.create(model="fake/fake", input="Three.", previous_response_id=second.id)


def test_another_tenants_response_is_as_unknown_as_one_that_never_was(
    acme: openai.OpenAI, rival: openai.OpenAI
) -> None:
    theirs = acme.responses.create(model="fake/fake", input="Secret.").id
    for id_ in (theirs, "resp_" + "0" * 32):
        found: list[Any] = []
        for call in (
            lambda id_=id_: rival.responses.retrieve(id_),
            lambda id_=id_: rival.responses.retrieve(id_, stream=True),
            lambda id_=id_: rival.responses.delete(id_),
            lambda id_=id_: rival.responses.cancel(id_),
            lambda id_=id_: rival.responses.input_items.list(id_),
        ):
            with pytest.raises(openai.NotFoundError) as caught:
                call()
            found.append(caught.value.body)
        assert {json.dumps(body) for body in found} == {json.dumps(found[0])}
        assert found[0]["message"] == f"Response with id '{id_}' not found."
        with pytest.raises(openai.BadRequestError):
            rival.responses.create(model="fake/fake", input="x", previous_response_id=id_)
    assert acme.responses.retrieve(theirs).status == "completed"


def test_only_what_runs_in_the_background_is_cancelled(acme: openai.OpenAI) -> None:
    made = acme.responses.create(model="fake/fake", input="x")
    with pytest.raises(openai.BadRequestError, match="Cannot cancel a synchronous response"):
        acme.responses.cancel(made.id)


def test_what_was_kept_survives_kill_9(running_provider: Provider, tmp_path: Path, upstream: Provider) -> None:
    tree = config(running_provider.url)
    with gateway(tmp_path, tree) as first:
        client = openai.OpenAI(base_url=f"{first.url}/v1", api_key="x", max_retries=0)
        with client.responses.stream(model="up/answer", input="Remember me.") as stream:
            made = stream.get_final_response()
        first.process.kill()  # at once, after the last event
        first.process.wait(10)
        client.close()
    with gateway(tmp_path, tree) as second:
        client = openai.OpenAI(base_url=f"{second.url}/v1", api_key="x", max_retries=0)
        assert client.responses.retrieve(made.id).output_text == "word0 word1 word2 "
        client.responses.create(model="up/answer", input="Do you?", previous_response_id=made.id)
        client.close()
    assert said(upstream, 2)[0] == {"role": "user", "content": "Remember me."}


# What goes wrong


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"input": None}, "input", "missing_required_parameter"),
        ({"input": 3}, "input", "invalid_type"),
        ({"input": [{"role": "user"}]}, "input[0].content", "missing_required_parameter"),
        ({"previous_response_id": "resp_\x00"}, "previous_response_id", "previous_response_not_found"),
        ({"previous_response_id": "x" * 5000}, "previous_response_id", "previous_response_not_found"),
        ({"metadata": "x"}, "metadata", "invalid_type"),
    ],
)
def test_a_request_that_cannot_be_read_is_refused(
    wire_client: httpx2.Client, fields: dict[str, Any], param: str, code: str
) -> None:
    for stream in (False, True):
        answer = wire_client.post(PATH, json=asking("up/answer", stream=stream) | fields)
        assert answer.status_code == 400
        error = error_of(answer)
        assert (error["param"], error["code"]) == (param, code)


@pytest.mark.parametrize("query", ["limit=0", "limit=101", "limit=x", "limit=" + "9" * 5000, "order=up", "after=msg_9"])
def test_a_list_that_cannot_be_is_refused(wire_client: httpx2.Client, query: str) -> None:
    id_ = wire_client.post(PATH, json=asking("fake/fake")).json()["id"]
    answer = wire_client.get(f"{PATH}/{id_}/input_items?{query}")
    assert answer.status_code == (404 if "after" in query else 400)
    assert error_of(answer)["param"] == query.partition("=")[0]


@pytest.mark.parametrize("id_", ["%00", "x" * 3000, "..%2f..", "%F0%9F%98%80", "resp_%0a"])
def test_an_odd_id_is_unknown_and_nothing_worse(wire_client: httpx2.Client, id_: str) -> None:
    assert wire_client.get(f"{PATH}/{id_}").status_code == 404


def test_wrong_methods_are_told(wire_client: httpx2.Client) -> None:
    assert wire_client.get(PATH).status_code == 405
    assert wire_client.put(f"{PATH}/resp_1").status_code == 405


def test_what_cannot_be_carried_over_is_named_or_refused(wire_client: httpx2.Client) -> None:
    body = asking("up/answer", tools=[{"type": "web_search"}], truncation="auto", service_tier="flex")
    answer = wire_client.post(PATH, json=body)
    assert answer.status_code == 200
    assert answer.json()["tools"] == []
    assert set(answer.headers["x-gateway-dropped"].split(", ")) == {"tools.web_search", "truncation", "service_tier"}
    strict = wire_client.post(PATH, json=body, headers={"x-gateway-strict": "true"})
    assert strict.status_code == 400
    assert error_of(strict)["code"] == "unsupported_parameter"


@pytest.mark.parametrize("model", ["once-cut:2", "once-tear:2", "once-error_event:2", "quick-stall"])
def test_a_stream_that_breaks_off_ends_as_failed(wire_client: httpx2.Client, model: str) -> None:
    answer = wire_client.post(PATH, json=asking(model, stream=True))
    events = checked(answer.content)
    assert [event["type"] for event in events[-2:]] == ["error", "response.failed"]
    failed = events[-1]["response"]
    assert failed["error"]["code"] == "server_error"
    assert failed["output"][0]["content"][0]["text"].startswith("word0 word1")
    assert failed["output"][0]["status"] == "incomplete"
    assert b"[DONE]" not in answer.content
    assert wire_client.get(f"{PATH}/{failed['id']}").json() == failed


@pytest.mark.parametrize(
    ("model", "status"), [("once-cut:2", 502), ("once-status:500", 502), ("once-context", 400), ("no-such", 404)]
)
def test_a_failure_before_the_answer_is_an_error(wire_client: httpx2.Client, model: str, status: int) -> None:
    answer = wire_client.post(PATH, json=asking(model))
    assert answer.status_code == status
    error_of(answer)


@pytest.fixture
def marker() -> str:
    return f"leaving-{time.monotonic_ns()}"


@pytest.mark.parametrize(("model", "stream"), [("up/silent", True), ("up/events:500:0.02", True), ("up/silent", False)])
def test_a_client_that_leaves_stops_the_provider(
    keeper: Gateway, upstream: Provider, marker: str, model: str, stream: bool
) -> None:
    body = json.dumps(asking(model, input=marker, stream=stream)).encode()
    request = post(PATH, body, f"authorization: Bearer {ACME_KEY}", "content-type: application/json")
    with raw(keeper.port, request) as connection:
        call = upstream.asked(marker)
        if "events" in model:
            assert connection.recv(100)
    assert call.left_within(1.0, time.monotonic())


# The embedded model


@pytest.fixture
def local(local_gateway: Gateway) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{local_gateway.url}/v1", api_key="x", max_retries=0, timeout=90) as client:
        yield client


def test_the_embedded_model_answers_and_remembers(local: openai.OpenAI, local_gateway: Gateway) -> None:
    first = local.responses.create(model="auto", input="My name is Ada.", max_output_tokens=12)
    check_response(first.to_dict())
    assert first.output_text
    assert first.usage is not None
    with local.responses.stream(
        model="auto", input="Who am I?", previous_response_id=first.id, max_output_tokens=12
    ) as stream:
        kinds = [event.type for event in stream]
    assert kinds[0] == "response.created"
    assert kinds[-1] in ("response.completed", "response.incomplete")
    items = local.responses.input_items.list(local.responses.retrieve(first.id).id)
    assert [item.type for item in items] == ["message"]
    with httpx2.stream(
        "POST",
        f"{local_gateway.url}{PATH}",
        json=asking("auto", previous_response_id=first.id, stream=True, max_output_tokens=8),
        timeout=90,
    ) as answer:
        last = checked(answer.read())[-1]["response"]
    assert last["usage"]["input_tokens"] > first.usage.input_tokens, "the first turn was read again"
    assert local.responses.retrieve(last["id"]).previous_response_id == first.id


def test_the_embedded_model_keeps_to_a_schema(local: openai.OpenAI) -> None:
    class Answer(pydantic.BaseModel):
        yes: bool

    made = local.responses.parse(model="auto", input="Is water wet?", text_format=Answer, max_output_tokens=40)
    assert isinstance(made.output_parsed, Answer)

"""LangChain's ChatOpenAI against the embedded model and against a provider that calls tools."""

from functools import reduce
from operator import add as add_chunks
from typing import Any, Literal

import openai
import pytest
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, SystemMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel, Field, SecretStr

from tests.process import Gateway


class Dish(BaseModel):
    """Something to eat."""

    course: Literal["starter", "main", "dessert"]
    portions: int = Field(ge=1, le=9)


@tool
def add(a: int, b: int) -> int:
    """Add two whole numbers."""
    return a + b


@tool
def multiply(a: int, b: int) -> int:
    """Multiply two whole numbers."""
    return a * b


def chat(gateway: Gateway, **options: Any) -> ChatOpenAI:
    defaults: dict[str, Any] = {"model": "auto", "temperature": 0, "max_completion_tokens": 10, "max_retries": 0}
    return ChatOpenAI(base_url=f"{gateway.url}/v1", api_key=SecretStr("local"), **{**defaults, **options})


def joined(chunks: list[AIMessageChunk]) -> AIMessageChunk:
    return reduce(add_chunks, chunks)


def test_invoke_answers(local_gateway: Gateway) -> None:
    answer = chat(local_gateway).invoke([SystemMessage("You are brief."), HumanMessage("Say hello.")])
    assert answer.text
    assert answer.response_metadata["model_name"] == "smollm2-135m-instruct"
    assert answer.response_metadata["finish_reason"] in {"stop", "length"}
    assert answer.usage_metadata is not None
    assert answer.usage_metadata["output_tokens"] > 0


def test_stream_answers_in_pieces(local_gateway: Gateway) -> None:
    chunks = list(chat(local_gateway, stream_usage=True).stream("Say hello."))
    whole = joined(chunks)
    assert len([chunk for chunk in chunks if chunk.text]) > 2
    assert whole.text == chat(local_gateway).invoke("Say hello.").text
    assert whole.usage_metadata is not None
    assert whole.response_metadata["model_name"] == "smollm2-135m-instruct"


def test_stream_has_no_usage_when_nobody_asked(local_gateway: Gateway) -> None:
    chunks = chat(local_gateway, stream_usage=False).stream("Say hello.")
    assert all(chunk.usage_metadata is None for chunk in chunks)


async def test_astream_answers_in_pieces(local_gateway: Gateway) -> None:
    async with openai.DefaultAsyncHttpxClient() as http:  # its own is shared across event loops and never closed
        model = chat(local_gateway, http_async_client=http)
        texts = [chunk.text async for chunk in model.astream("Say hello.")]
    assert len([text for text in texts if text]) > 2


def test_batch_answers_every_prompt(local_gateway: Gateway) -> None:
    answers = chat(local_gateway).batch(["Name a fruit.", "Name a colour.", "Name a river."])
    assert all(answer.text for answer in answers)
    assert len({answer.text for answer in answers}) == 3


def test_a_model_whose_template_has_no_tools_calls_them_all_the_same(local_gateway: Gateway) -> None:
    model = chat(local_gateway, max_completion_tokens=100).bind_tools([add], tool_choice="required")
    answer = model.invoke("What is 2 plus 3?")
    (call,) = answer.tool_calls
    assert call["name"] == "add"
    assert set(call["args"]) == {"a", "b"}


def test_a_model_that_is_left_to_choose_answers_with_a_call_or_in_text(local_gateway: Gateway) -> None:
    answer = chat(local_gateway, max_completion_tokens=100).bind_tools([add]).invoke("What is 2 plus 3?")
    assert bool(answer.text) != bool(answer.tool_calls)


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings:UserWarning")
def test_structured_output_fits_the_class(local_gateway: Gateway) -> None:
    model = chat(local_gateway, max_completion_tokens=60).with_structured_output(Dish, method="json_schema")
    assert isinstance(model.invoke("Describe apple pie."), Dish)
    assert isinstance(list(model.stream("Describe apple pie."))[-1], Dish)


def test_bound_tools_are_called_and_their_results_read(tool_gateway: Gateway) -> None:
    model = chat(tool_gateway).bind_tools([add, multiply])
    question = HumanMessage("Do add and multiply with 6 and 7.")
    asked = model.invoke([question])
    assert [(call["name"], call["args"]) for call in asked.tool_calls] == [
        ("add", {"a": 6, "b": 7}),
        ("multiply", {"a": 6, "b": 7}),
    ]
    results = [{"add": add, "multiply": multiply}[call["name"]].invoke(call) for call in asked.tool_calls]
    answer = model.invoke([question, asked, *results])
    assert answer.text == "The tool says: 42"


def test_streamed_tool_calls_join_to_the_same(tool_gateway: Gateway) -> None:
    model = chat(tool_gateway).bind_tools([add, multiply])
    question = "Do add and multiply with 6 and 7."
    chunks = [chunk for chunk in model.stream(question) if isinstance(chunk, AIMessageChunk)]
    whole = joined(chunks)
    asked = model.invoke(question)
    assert isinstance(asked, AIMessage)
    assert [(c["name"], c["args"], c["id"]) for c in whole.tool_calls] == [
        (c["name"], c["args"], c["id"]) for c in asked.tool_calls
    ]
    assert whole.response_metadata["finish_reason"] == "tool_calls"


def test_one_call_at_a_time_if_so_asked(tool_gateway: Gateway) -> None:
    model = chat(tool_gateway).bind_tools([add, multiply], parallel_tool_calls=False)
    assert len(model.invoke("Do add and multiply with 6 and 7.").tool_calls) == 1


def test_structured_output_by_function_calling(tool_gateway: Gateway) -> None:
    model = chat(tool_gateway).with_structured_output(Dish, method="function_calling")
    assert model.invoke("Order 3 portions.") == Dish(course="starter", portions=3)


def test_an_unknown_model_is_an_error_of_the_sdk(local_gateway: Gateway) -> None:
    with pytest.raises(openai.NotFoundError, match="no-such-model"):
        chat(local_gateway, model="no-such-model").invoke("Say hello.")

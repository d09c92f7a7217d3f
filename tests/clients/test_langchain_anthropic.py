"""LangChain's ChatAnthropic, before the embedded model, a model of OpenAI's dialect, and Claude."""

from functools import reduce
from operator import add as add_chunks
from typing import Any, Literal

import anthropic
import pytest
from langchain_anthropic import ChatAnthropic
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, SystemMessage
from langchain_core.tools import tool
from pydantic import BaseModel, SecretStr

from tests.clients.stand_in import PICTURE
from tests.process import Gateway

QUESTION = "Do add and multiply with 6 and 7."
BOTH = [("add", {"a": 6, "b": 7}), ("multiply", {"a": 6, "b": 7})]


class Dish(BaseModel):
    """Something to eat."""

    course: Literal["starter", "main", "dessert"]
    vegetarian: bool


@tool
def add(a: int, b: int) -> int:
    """Add two whole numbers."""
    return a + b


@tool
def multiply(a: int, b: int) -> int:
    """Multiply two whole numbers."""
    return a * b


def chat(gateway: Gateway, **options: Any) -> ChatAnthropic:
    defaults: dict[str, Any] = {"model": "auto", "temperature": 0, "max_tokens": 8, "max_retries": 0}
    return ChatAnthropic(base_url=gateway.url, api_key=SecretStr("local"), **{**defaults, **options})


def joined(chunks: list[Any]) -> AIMessageChunk:
    whole = reduce(add_chunks, chunks)
    assert isinstance(whole, AIMessageChunk)
    return whole


@pytest.mark.feature("langchain-anthropic", "chat")
def test_invoke_answers(local_gateway: Gateway) -> None:
    answer = chat(local_gateway).invoke([SystemMessage("You are brief."), HumanMessage("Say hello.")])
    assert answer.text
    assert answer.response_metadata["model_name"] == "smollm2-135m-instruct"
    assert answer.response_metadata["stop_reason"] == "max_tokens"
    assert answer.usage_metadata is not None
    assert answer.usage_metadata["output_tokens"] == 8


@pytest.mark.feature("langchain-anthropic", "stream")
def test_stream_answers_in_pieces(local_gateway: Gateway) -> None:
    chunks = list(chat(local_gateway).stream("Say hello."))
    whole = joined(chunks)
    assert len([chunk for chunk in chunks if chunk.text]) > 2
    assert whole.text == chat(local_gateway).invoke("Say hello.").text
    assert whole.usage_metadata is not None
    assert whole.usage_metadata["output_tokens"] == 8


@pytest.mark.feature("langchain-anthropic", "async")
async def test_the_asynchronous_half_answers_too(local_gateway: Gateway) -> None:
    model = chat(local_gateway)
    answer = await model.ainvoke("Say hello.")
    chunks = [chunk async for chunk in model.astream("Say hello.")]
    assert joined(chunks).text == answer.text != ""


@pytest.mark.feature("langchain-anthropic", "tools")
def test_bound_tools_are_called_and_their_results_read(stand_in_gateway: Gateway) -> None:
    model = chat(stand_in_gateway, max_tokens=100).bind_tools([add, multiply])
    question = HumanMessage(QUESTION)
    asked = model.invoke([question])
    assert isinstance(asked, AIMessage)
    assert [(call["name"], call["args"]) for call in asked.tool_calls] == BOTH
    results = [{"add": add, "multiply": multiply}[call["name"]].invoke(call) for call in asked.tool_calls]
    assert model.invoke([question, asked, *results]).text == "The tool says: 42"


@pytest.mark.feature("langchain-anthropic", "streamed tools")
def test_streamed_tool_calls_join_to_the_same(stand_in_gateway: Gateway) -> None:
    whole = joined(list(chat(stand_in_gateway, max_tokens=100).bind_tools([add, multiply]).stream(QUESTION)))
    assert [(call["name"], call["args"]) for call in whole.tool_calls] == BOTH
    assert whole.response_metadata["stop_reason"] == "tool_use"


@pytest.mark.feature("langchain-anthropic", "object")
def test_structured_output_fits_the_class(local_gateway: Gateway, stand_in_gateway: Gateway) -> None:
    by_schema = chat(local_gateway, max_tokens=60).with_structured_output(Dish, method="json_schema")
    assert isinstance(by_schema.invoke("Describe apple pie."), Dish)
    by_tool = chat(stand_in_gateway, max_tokens=100).with_structured_output(Dish)
    assert by_tool.invoke("Describe apple pie.") == Dish(course="starter", vegetarian=True)


@pytest.mark.feature("langchain-anthropic", "reasoning")
def test_thinking_comes_apart_from_the_answer(stand_in_gateway: Gateway) -> None:
    thinker = chat(
        stand_in_gateway,
        model="thinker",
        temperature=None,
        max_tokens=2000,
        thinking={"type": "enabled", "budget_tokens": 1024},
    )
    whole = joined(list(thinker.stream("What is the weather?")))
    assert whole.text == "The weather first."
    first = next(block for block in whole.content_blocks if block["type"] == "reasoning")
    assert first["reasoning"] == "Let me solve this step by step."
    assert [call["name"] for call in whole.tool_calls] == ["get_weather"]


@pytest.mark.feature("langchain-anthropic", "image input")
def test_a_picture_reaches_the_model(stand_in_gateway: Gateway) -> None:
    content: list[str | dict[Any, Any]] = [
        {"type": "text", "text": "What is this?"},
        {"type": "image", "base64": PICTURE, "mime_type": "image/png"},
    ]
    answer = chat(stand_in_gateway, model="seer").invoke([HumanMessage(content)])
    assert answer.text == "I see 1: data:image/png"


@pytest.mark.feature("langchain-anthropic", "token count")
def test_tokens_are_counted(local_gateway: Gateway) -> None:
    assert chat(local_gateway).get_num_tokens_from_messages([HumanMessage("Say hello.")]) == 33


@pytest.mark.feature("langchain-anthropic", "errors")
def test_an_unknown_model_is_an_error_of_the_sdk(local_gateway: Gateway) -> None:
    with pytest.raises(anthropic.NotFoundError, match="no-such-model"):
        chat(local_gateway, model="no-such-model").invoke("Say hello.")

"""LangChain's other classes for OpenAI: embeddings, ChatOpenAI through the Responses API, pictures."""

from functools import reduce
from operator import add as add_chunks
from typing import Any, Literal

import pytest
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from pydantic import BaseModel, SecretStr

from tests.clients.stand_in import DIMENSIONS, PICTURE, vector
from tests.process import Gateway


class Dish(BaseModel):
    """Something to eat."""

    course: Literal["starter", "main", "dessert"]
    vegetarian: bool


@tool
def add(a: int, b: int) -> int:
    """Add two whole numbers."""
    return a + b


def chat(gateway: Gateway, **options: Any) -> ChatOpenAI:
    return ChatOpenAI(
        **{
            "base_url": f"{gateway.url}/v1",
            "api_key": SecretStr("local"),
            "model": "auto",
            "temperature": 0,
            "max_completion_tokens": 16,
            "max_retries": 0,
            **options,
        }
    )


@pytest.mark.feature("langchain-openai", "embeddings")
@pytest.mark.parametrize("dimensions", [None, 4])
def test_texts_and_questions_are_embedded(stand_in_gateway: Gateway, dimensions: int | None) -> None:
    embeddings = OpenAIEmbeddings(
        base_url=f"{stand_in_gateway.url}/v1",
        api_key=SecretStr("local"),
        model="embedder",
        dimensions=dimensions,
        check_embedding_ctx_length=False,  # it would fetch OpenAI's tokenizer
    )
    size = dimensions or DIMENSIONS
    assert embeddings.embed_query("one") == vector("one", size)
    assert embeddings.embed_documents(["one", "two"]) == [vector("one", size), vector("two", size)]


@pytest.mark.feature("langchain-openai", "responses")
def test_a_response_answers_and_fits_a_class(local_gateway: Gateway) -> None:
    model = chat(local_gateway, use_responses_api=True)
    answer = model.invoke("Say hello.")
    assert answer.text
    assert answer.usage_metadata is not None
    assert answer.usage_metadata["output_tokens"] > 0
    structured = chat(local_gateway, use_responses_api=True, max_completion_tokens=60).with_structured_output(Dish)
    assert isinstance(structured.invoke("Describe apple pie."), Dish)


@pytest.mark.feature("langchain-openai", "streamed responses")
def test_a_streamed_response_is_the_same(local_gateway: Gateway) -> None:
    model = chat(local_gateway, use_responses_api=True)
    chunks = list(model.stream("Say hello."))
    whole = reduce(add_chunks, chunks)
    assert len([chunk for chunk in chunks if chunk.text]) > 2
    assert whole.text == model.invoke("Say hello.").text


@pytest.mark.feature("langchain-openai", "kept responses")
def test_a_response_goes_on_from_the_one_before(stand_in_gateway: Gateway) -> None:
    model = chat(stand_in_gateway, use_responses_api=True, use_previous_response_id=True).bind_tools([add])
    question = HumanMessage("Do add with 6 and 7.")
    asked = model.invoke([question])
    assert isinstance(asked, AIMessage)
    [call] = asked.tool_calls
    assert (call["name"], call["args"]) == ("add", {"a": 6, "b": 7})
    assert model.invoke([question, asked, add.invoke(call)]).text == "The tool says: 13"


@pytest.mark.feature("langchain-openai", "streamed object")
@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings:UserWarning")  # of ChatOpenAI's own chunks
def test_a_streamed_object_fits_its_class(stand_in_gateway: Gateway) -> None:
    model = chat(stand_in_gateway).with_structured_output(Dish, method="json_schema")
    assert list(model.stream("Describe apple pie."))[-1] == Dish(course="starter", vegetarian=True)


@pytest.mark.feature("langchain-openai", "image input")
def test_a_picture_reaches_the_model(stand_in_gateway: Gateway) -> None:
    content: list[str | dict[Any, Any]] = [
        {"type": "text", "text": "What is this?"},
        {"type": "image", "base64": PICTURE, "mime_type": "image/png"},
    ]
    answer = chat(stand_in_gateway, model="seer").invoke([HumanMessage(content)])
    assert answer.text == "I see 1: data:image/png"

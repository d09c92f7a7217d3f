"""Pydantic AI's agents: by chat completions, by responses, and in Anthropic's dialect."""

import base64
from collections.abc import AsyncIterator
from typing import Any, Literal

import anthropic
import openai
import pytest
from pydantic import BaseModel
from pydantic_ai import Agent, BinaryContent, Embedder, ModelHTTPError, NativeOutput, ToolOutput
from pydantic_ai.embeddings.openai import OpenAIEmbeddingModel
from pydantic_ai.messages import ModelResponse, ThinkingPart, ToolCallPart
from pydantic_ai.models import Model
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.anthropic import AnthropicProvider
from pydantic_ai.providers.openai import OpenAIProvider
from pydantic_ai.settings import ModelSettings

from tests.clients.stand_in import PICTURE, vector
from tests.process import Gateway

SHORT = ModelSettings(max_tokens=8, temperature=0)
ASKED = "Do add and multiply with 6 and 7."
BOTH = [("add", {"a": 6, "b": 7}), ("multiply", {"a": 6, "b": 7})]


class Dish(BaseModel):
    course: Literal["starter", "main", "dessert"]
    vegetarian: bool


def add(a: int, b: int) -> int:
    """Add two whole numbers."""
    return a + b


def multiply(a: int, b: int) -> int:
    """Multiply two whole numbers."""
    return a * b


class Models:
    """The three ways to speak to a gateway."""

    def __init__(self, url: str, openai_http: Any, anthropic_http: Any) -> None:
        sdk = openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="local", max_retries=0, http_client=openai_http)
        self.openai = OpenAIProvider(openai_client=sdk)
        claude = anthropic.AsyncAnthropic(base_url=url, api_key="local", max_retries=0, http_client=anthropic_http)
        self.anthropic = AnthropicProvider(anthropic_client=claude)

    def chat(self, name: str = "auto") -> Model[Any]:
        return OpenAIChatModel(name, provider=self.openai)

    def responses(self, name: str = "auto") -> Model[Any]:
        return OpenAIResponsesModel(name, provider=self.openai)

    def messages(self, name: str = "auto") -> Model[Any]:
        return AnthropicModel(name, provider=self.anthropic)


@pytest.fixture
async def transports() -> AsyncIterator[tuple[Any, Any]]:
    async with openai.DefaultAsyncHttpxClient() as one, anthropic.DefaultAsyncHttpxClient() as other:
        yield one, other


@pytest.fixture
def small(local_gateway: Gateway, transports: tuple[Any, Any]) -> Models:
    """Before the embedded model."""
    return Models(local_gateway.url, *transports)


@pytest.fixture
def big(stand_in_gateway: Gateway, transports: tuple[Any, Any]) -> Models:
    """Before the providers."""
    return Models(stand_in_gateway.url, *transports)


async def check_text(model: Model[Any]) -> None:
    agent = Agent(model, model_settings=SHORT)
    answer = await agent.run("Say hello.")
    assert answer.output
    assert answer.usage.output_tokens == 8
    async with agent.run_stream("Say hello.") as stream:
        pieces = [piece async for piece in stream.stream_text(delta=True, debounce_by=None)]
    assert len(pieces) > 2
    assert "".join(pieces) == answer.output


def calls(messages: list[Any]) -> list[tuple[str, Any]]:
    parts = [part for message in messages if isinstance(message, ModelResponse) for part in message.parts]
    return [(part.tool_name, part.args_as_dict()) for part in parts if isinstance(part, ToolCallPart)]


async def check_tools(model: Model[Any], *, stream: bool) -> None:
    agent = Agent(model, tools=[add, multiply])
    if stream:
        async with agent.run_stream(ASKED) as streamed:
            output, messages = await streamed.get_output(), streamed.all_messages()
    else:
        answer = await agent.run(ASKED)
        output, messages = answer.output, answer.all_messages()
    assert calls(messages) == BOTH
    assert output == "The tool says: 42"


@pytest.mark.feature("pydantic-ai", "chat")
@pytest.mark.feature("pydantic-ai", "stream")
@pytest.mark.feature("pydantic-ai", "async")
async def test_an_agent_answers_and_streams_by_chat(small: Models) -> None:
    await check_text(small.chat())


@pytest.mark.feature("pydantic-ai", "responses")
@pytest.mark.feature("pydantic-ai", "streamed responses")
async def test_an_agent_answers_and_streams_by_responses(small: Models) -> None:
    await check_text(small.responses())


@pytest.mark.feature("pydantic-ai", "chat")
@pytest.mark.feature("pydantic-ai", "stream")
async def test_an_agent_answers_and_streams_by_messages(small: Models) -> None:
    await check_text(small.messages())


@pytest.mark.feature("pydantic-ai", "tools")
@pytest.mark.parametrize("way", ["chat", "responses", "messages"])
async def test_tools_are_called_and_their_results_read(big: Models, way: str) -> None:
    await check_tools(getattr(big, way)(), stream=False)


@pytest.mark.feature("pydantic-ai", "streamed tools")
@pytest.mark.parametrize("way", ["chat", "responses", "messages"])
async def test_streamed_tool_calls_do_the_same(big: Models, way: str) -> None:
    await check_tools(getattr(big, way)(), stream=True)


@pytest.mark.feature("pydantic-ai", "object")
async def test_a_schema_makes_an_object_of_the_embedded_model(small: Models) -> None:
    settings = ModelSettings(max_tokens=200, temperature=0)
    agent = Agent(small.chat(), output_type=NativeOutput(Dish), model_settings=settings)
    assert isinstance((await agent.run("Describe apple pie.")).output, Dish)


@pytest.mark.feature("pydantic-ai", "object")
@pytest.mark.parametrize("way", ["chat", "responses", "messages"])
async def test_a_tool_makes_an_object(big: Models, way: str) -> None:
    agent = Agent(getattr(big, way)(), output_type=ToolOutput(Dish))
    assert (await agent.run("Describe apple pie.")).output == Dish(course="starter", vegetarian=True)


@pytest.mark.feature("pydantic-ai", "streamed object")
async def test_an_object_is_whole_at_the_end_of_its_stream(big: Models) -> None:
    agent = Agent(big.chat(), output_type=NativeOutput(Dish))
    async with agent.run_stream("Describe apple pie.") as stream:
        assert await stream.get_output() == Dish(course="starter", vegetarian=True)


@pytest.mark.feature("pydantic-ai", "reasoning")
@pytest.mark.parametrize("way", ["chat", "messages"])
async def test_thinking_comes_apart_from_the_answer(big: Models, way: str) -> None:
    def get_weather(city: str) -> str:
        return f"sunny in {city}"

    settings = ModelSettings(max_tokens=2000, extra_body={"thinking": {"type": "enabled", "budget_tokens": 1024}})
    agent = Agent(getattr(big, way)("thinker"), tools=[get_weather], model_settings=settings)
    async with agent.iter("What is the weather?") as run:
        async for node in run:
            if Agent.is_model_request_node(node):
                async with node.stream(run.ctx) as stream:
                    async for _ in stream:
                        pass
                    response = stream.response
                break
    thoughts = [part.content for part in response.parts if isinstance(part, ThinkingPart) and part.content]
    assert thoughts == ["Let me solve this step by step."]
    assert response.text == "The weather first."
    assert calls([response]) == [("get_weather", {"city": "Paris"})]


@pytest.mark.feature("pydantic-ai", "image input")
@pytest.mark.parametrize("way", ["chat", "responses", "messages"])
async def test_a_picture_reaches_the_model(big: Models, way: str) -> None:
    picture = BinaryContent(data=base64.b64decode(PICTURE), media_type="image/png")
    answer = await Agent(getattr(big, way)("seer")).run(["What is this?", picture])
    assert answer.output == "I see 1: data:image/png"


@pytest.mark.feature("pydantic-ai", "embeddings")
async def test_texts_are_embedded(big: Models) -> None:
    embedder = Embedder(OpenAIEmbeddingModel("embedder", provider=big.openai))
    made = await embedder.embed_documents(["one", "two"])
    assert [list(row) for row in made.embeddings] == [vector("one"), vector("two")]


@pytest.mark.feature("pydantic-ai", "errors")
@pytest.mark.parametrize("way", ["chat", "responses", "messages"])
async def test_an_unknown_model_is_an_error_with_its_status(small: Models, way: str) -> None:
    with pytest.raises(ModelHTTPError, match="no-such-model") as caught:
        await Agent(getattr(small, way)("no-such-model")).run("Say hello.")
    assert caught.value.status_code == 404

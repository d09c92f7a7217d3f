"""OpenAI's SDK beyond chat's basics: runners of tools, transports, embeddings, pictures, responses, Claude."""

import base64
import io
import json
from collections.abc import Iterator
from typing import Any, Literal

import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from openai.types.chat import ChatCompletionMessageFunctionToolCall, ChatCompletionMessageParam
from openai.types.responses import ResponseFunctionToolCall, ResponseInputParam
from pydantic import BaseModel

from tests.clients.asking import SHORT, ask
from tests.clients.stand_in import PICTURE, vector
from tests.process import Gateway

MODEL = "smollm2-135m-instruct"
ASKED = "Do add and multiply with 6 and 7."
BOTH = [("add", {"a": 6, "b": 7}), ("multiply", {"a": 6, "b": 7})]


class Dish(BaseModel):
    course: Literal["starter", "main", "dessert"]
    vegetarian: bool


class add(BaseModel):  # noqa: N801  the tool's name
    a: int
    b: int

    def run(self) -> int:
        return self.a + self.b


class multiply(BaseModel):  # noqa: N801
    a: int
    b: int

    def run(self) -> int:
        return self.a * self.b


@pytest.fixture
def big(stand_in_gateway: Gateway) -> Iterator[OpenAI]:
    """Before the providers."""
    with OpenAI(base_url=f"{stand_in_gateway.url}/v1", api_key="local", max_retries=0, timeout=30) as client:
        yield client


# --- Chat -------------------------------------------------------------------------------------------


@pytest.mark.feature("openai (Python)", "tools")
@pytest.mark.parametrize("streams", [False, True])
def test_a_loop_of_tools_goes_on_to_the_answer(big: OpenAI, streams: bool) -> None:
    tools = [openai.pydantic_function_tool(add), openai.pydantic_function_tool(multiply)]
    messages: list[ChatCompletionMessageParam] = [{"role": "user", "content": ASKED}]
    seen: list[tuple[str, Any]] = []
    for _ in range(3):
        if streams:
            with big.chat.completions.stream(model="auto", messages=messages, tools=tools) as events:
                message = events.get_final_completion().choices[0].message
        else:
            message = big.chat.completions.parse(model="auto", messages=messages, tools=tools).choices[0].message
        if not message.tool_calls:
            break
        messages.append(message.to_dict())  # type: ignore[arg-type]
        for call in message.tool_calls:
            parsed = call.function.parsed_arguments
            assert isinstance(parsed, add | multiply)
            seen.append((call.function.name, parsed.model_dump()))
            messages.append({"role": "tool", "tool_call_id": call.id, "content": str(parsed.run())})
    assert seen == BOTH
    assert message.content == "The tool says: 42"


@pytest.mark.feature("openai (Python)", "async")
async def test_the_aiohttp_transport_answers_and_streams(local_gateway: Gateway) -> None:
    async with AsyncOpenAI(
        base_url=f"{local_gateway.url}/v1", api_key="local", http_client=openai.DefaultAioHttpClient(), max_retries=0
    ) as client:
        messages: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Say hello."}]
        answer = await client.chat.completions.create(model="auto", messages=messages, **SHORT)
        stream = await client.chat.completions.create(model="auto", messages=messages, stream=True, **SHORT)
        pieces = [chunk.choices[0].delta.content or "" async for chunk in stream]
    assert "".join(pieces) == answer.choices[0].message.content != ""


@pytest.mark.feature("openai (Python)", "stream")
def test_a_streaming_response_is_read_line_by_line(big: OpenAI) -> None:
    with big.chat.completions.with_streaming_response.create(
        model="auto", messages=[{"role": "user", "content": "Hi"}], stream=True
    ) as raw:
        lines = [line for line in raw.iter_lines() if line]
    assert all(line.startswith("data: ") for line in lines)
    assert lines[-1] == "data: [DONE]"


@pytest.mark.feature("openai (Python)", "chat")
def test_a_whole_response_is_read_in_bytes(client: OpenAI) -> None:
    with client.chat.completions.with_streaming_response.create(
        model="auto", messages=[{"role": "user", "content": "Say hello."}], **SHORT
    ) as raw:
        body = json.loads(b"".join(raw.iter_bytes()))
    assert body["choices"][0]["message"]["content"] == ask(client).choices[0].message.content


@pytest.mark.feature("openai (Python)", "image input")
def test_a_picture_reaches_the_model(big: OpenAI) -> None:
    answer = big.chat.completions.create(
        model="seer",
        messages=[
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "What is this?"},
                    {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PICTURE}"}},
                ],
            }
        ],
    )
    assert answer.choices[0].message.content == "I see 1: data:image/png"


@pytest.mark.feature("openai (Python)", "reasoning")
def test_claude_answers_openais_client_thinking_apart(big: OpenAI) -> None:
    with big.chat.completions.stream(
        model="thinker", messages=[{"role": "user", "content": "What is the weather?"}], reasoning_effort="low"
    ) as events:
        chunks = [event.chunk for event in events if event.type == "chunk"]
        [choice] = events.get_final_completion().choices
    thought = "".join(
        (c.choices[0].delta.model_extra or {}).get("reasoning_content") or "" for c in chunks if c.choices
    )
    assert thought == "Let me solve this step by step."
    assert choice.message.content == "The weather first."
    [call] = choice.message.tool_calls or []
    assert isinstance(call, ChatCompletionMessageFunctionToolCall)
    assert (call.function.name, json.loads(call.function.arguments)) == ("get_weather", {"city": "Paris"})
    assert choice.finish_reason == "tool_calls"


# --- Embeddings and pictures ------------------------------------------------------------------------


@pytest.mark.feature("openai (Python)", "embeddings")
def test_embeddings_are_the_same_packed_and_plain(big: OpenAI) -> None:
    packed = big.embeddings.create(model="embedder", input=["one", "two"])
    plain = big.embeddings.create(model="embedder", input=["one", "two"], encoding_format="float")
    for made in (packed, plain):
        assert [row.embedding for row in made.data] == [vector("one"), vector("two")]
        assert [row.index for row in made.data] == [0, 1]
        assert made.usage.prompt_tokens == 2
    short = big.embeddings.create(model="embedder", input="one", dimensions=3)
    assert short.data[0].embedding == vector("one", 3)


@pytest.mark.feature("openai (Python)", "images")
def test_a_picture_is_made(big: OpenAI) -> None:
    made = big.images.generate(model="painter", prompt="a heron", size="1024x1024")
    assert [picture.b64_json for picture in made.data or ()] == [PICTURE]
    assert made.usage is not None
    assert made.usage.output_tokens == 272


@pytest.mark.feature("openai (Python)", "image edits")
def test_uploaded_pictures_are_edited(big: OpenAI) -> None:
    def picture() -> io.BytesIO:
        file = io.BytesIO(base64.b64decode(PICTURE))
        file.name = "heron.png"
        return file

    one = big.images.edit(model="painter", image=picture(), mask=picture(), prompt="bluer")
    two = big.images.edit(model="painter", image=[picture(), picture()], prompt="bluer")
    for made in (one, two):
        assert [edited.b64_json for edited in made.data or ()] == [PICTURE]


# --- Responses --------------------------------------------------------------------------------------


@pytest.mark.feature("openai (Python)", "responses")
def test_a_response_is_whole(client: OpenAI) -> None:
    response = client.responses.create(model="auto", input="Say hello.", max_output_tokens=16, temperature=0)
    assert (response.object, response.model) == ("response", MODEL)
    assert response.output_text
    assert response.usage is not None
    assert 0 < response.usage.output_tokens <= 16


@pytest.mark.feature("openai (Python)", "responses")
def test_a_response_parses_into_its_class(client: OpenAI) -> None:
    parsed = client.responses.parse(model="auto", input="Describe apple pie.", text_format=Dish, max_output_tokens=60)
    assert isinstance(parsed.output_parsed, Dish)


@pytest.mark.feature("openai (Python)", "responses")
def test_a_loop_of_responses_calls_tools(big: OpenAI) -> None:
    tools = [openai.pydantic_function_tool(tool)["function"] for tool in (add, multiply)]
    flat: list[Any] = [{"type": "function", **tool} for tool in tools]
    history: ResponseInputParam = [{"role": "user", "content": ASKED}]
    first = big.responses.create(model="auto", input=history, tools=flat)
    calls = [item for item in first.output if isinstance(item, ResponseFunctionToolCall)]
    assert [(call.name, json.loads(call.arguments)) for call in calls] == BOTH
    history += first.output  # type: ignore[arg-type]
    for call in calls:
        history.append({"type": "function_call_output", "call_id": call.call_id, "output": f"{call.name} done"})
    second = big.responses.create(model="auto", input=history, tools=flat)
    assert second.output_text == "The tool says: multiply done"


@pytest.mark.feature("openai (Python)", "streamed responses")
def test_a_streamed_response_is_the_same_in_pieces(client: OpenAI) -> None:
    options: dict[str, Any] = {"model": "auto", "input": "Say hello.", "max_output_tokens": 16, "temperature": 0}
    events = list(client.responses.create(**options, stream=True))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert text == client.responses.create(**options).output_text != ""
    assert events[-1].type in {"response.completed", "response.incomplete"}


@pytest.mark.feature("openai (Python)", "streamed responses")
def test_the_stream_helper_gathers_a_response(big: OpenAI) -> None:
    text = ""
    with big.responses.stream(model="auto", input="Say hello.") as events:
        for event in events:
            if event.type == "response.output_text.delta":
                text += event.delta
        final = events.get_final_response()
    assert text == final.output_text == "Hello from a model that can call tools."
    assert final.status == "completed"


@pytest.mark.feature("openai (Python)", "kept responses")
def test_a_response_is_kept_and_gone_on_from_until_it_is_deleted(big: OpenAI) -> None:
    made = big.responses.create(model="auto", input="Say hello.")
    assert big.responses.retrieve(made.id).output_text == made.output_text
    [item] = big.responses.input_items.list(made.id)
    assert item.type == "message"
    following = big.responses.create(model="auto", input="And again.", previous_response_id=made.id)
    assert following.previous_response_id == made.id
    big.responses.delete(made.id)
    with pytest.raises(openai.NotFoundError):
        big.responses.retrieve(made.id)

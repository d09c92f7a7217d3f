"""Tools on real engines with a model whose template knows none: they are emulated, whatever asks for them."""

import asyncio
import json
from typing import Any

import jsonschema
import pytest

from backends.local import LocalBackend
from compat.canonical.error import RequestError
from compat.openai.chat import peek
from tests.backends.local.asking import ADD, WEATHER, chat, choices_of, chunks_of, frames_of
from tests.backends.local.bench import LONG_PROMPT, ask, call
from tests.backends.local.conftest import Start, together

TOOLS: dict[str, dict[str, Any]] = {tool["function"]["name"]: tool for tool in (WEATHER, ADD)}
NAMED = {"type": "function", "function": {"name": "add"}}


def check_call(made: dict[str, Any]) -> None:
    """Hold a whole call to the schema of its tool."""
    assert made["type"] == "function"
    schema = TOOLS[made["function"]["name"]]["function"]["parameters"]
    jsonschema.validate(json.loads(made["function"]["arguments"]), schema)


@together
async def test_a_call_is_made_where_one_has_to_be(shared: LocalBackend) -> None:
    both = [WEATHER, ADD]
    cases: list[tuple[list[Any], Any]] = [([WEATHER], "required"), (both, NAMED), (both, "required")]
    for tools, wanted in cases:
        [choice] = await choices_of(shared, chat(tools=tools, tool_choice=wanted))
        [made] = choice["message"]["tool_calls"]
        check_call(made)
        assert choice["finish_reason"] == "tool_calls"
        assert choice["message"]["content"] is None
        if wanted == NAMED:
            assert made["function"]["name"] == "add"


@together
async def test_a_call_streams_its_name_first_and_its_arguments_as_they_come(shared: LocalBackend) -> None:
    chunks = await chunks_of(shared, chat(tools=[WEATHER], tool_choice="required"))
    deltas = [choice["delta"] for chunk in chunks for choice in chunk["choices"]]
    first, *rest = (piece for delta in deltas for piece in delta.get("tool_calls", ()))
    assert first["index"] == 0
    assert first["id"].startswith("call_")
    assert first["function"] == {"name": "get_weather", "arguments": ""}
    assert len(rest) > 3
    assert not [piece for piece in rest if "id" in piece or "name" in piece["function"]]
    assert set(json.loads("".join(piece["function"]["arguments"] for piece in rest))) == {"city", "unit"}
    assert not any(delta.get("content") for delta in deltas)


@together
async def test_auto_is_a_call_or_text_and_none_is_text(shared: LocalBackend) -> None:
    auto = chat(tools=[WEATHER], parallel_tool_calls=True, max_tokens=80)
    [choice] = await choices_of(shared, auto)
    message = choice["message"]
    assert message.get("tool_calls") or message["content"]
    for made in message.get("tool_calls") or () if choice["finish_reason"] == "tool_calls" else ():
        check_call(made)
    asked = call()
    [choice] = await choices_of(shared, chat("Say hello.", tools=[WEATHER], tool_choice="none"), asked)
    assert choice["message"]["content"]
    assert "tool_calls" not in choice["message"]
    assert not asked.dropped


@together
async def test_a_call_that_is_cut_off_is_told_as_such(shared: LocalBackend) -> None:
    [choice] = await choices_of(shared, chat(tools=[WEATHER], tool_choice="required", max_tokens=14))
    assert choice["finish_reason"] == "length"


@together
async def test_the_models_answer_goes_on_from_calls_and_their_results(shared: LocalBackend) -> None:
    made = {"id": "c1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Oslo"}'}}
    history = [
        {"role": "user", "content": "What is the weather in Oslo?"},
        {"role": "assistant", "content": None, "tool_calls": [made]},
        {"role": "tool", "tool_call_id": "c1", "content": "Snow."},
    ]
    cases: list[dict[str, Any]] = [{}, {"tools": [WEATHER], "tool_choice": "none"}]
    for fields in cases:
        [choice] = await choices_of(shared, chat(messages=history, **fields))
        assert choice["message"]["content"]


@together
async def test_a_tool_that_cannot_be_called_is_refused_by_name(shared: LocalBackend) -> None:
    tool = {"type": "function", "function": {"name": "x", "parameters": {"properties": {"a": {"type": "wizard"}}}}}
    for choice in ("auto", "required"):
        with pytest.raises(RequestError) as refused:
            await choices_of(shared, chat(tools=[tool], tool_choice=choice))
        assert (refused.value.status, refused.value.param) == (400, "tools")


@together
async def test_what_came_before_tools_and_tools_of_text_are_called_too(shared: LocalBackend) -> None:
    [choice] = await choices_of(shared, chat(functions=[ADD["function"]], function_call={"name": "add"}))
    assert choice["finish_reason"] == "function_call"
    assert choice["message"]["function_call"]["name"] == "add"
    custom = {"type": "custom", "custom": {"name": "say"}}
    body = chat("Hi", tools=[custom], tool_choice={"type": "custom", "custom": {"name": "say"}})
    [choice] = await choices_of(shared, body | {"max_tokens": 100})
    [made] = choice["message"]["tool_calls"]
    assert (made["type"], made["custom"]["name"]) == ("custom", "say")


@together
async def test_only_what_needs_it_leaves_the_relay(shared: LocalBackend) -> None:
    tools: dict[str, Any] = {"tools": [WEATHER]}
    cases: list[tuple[dict[str, Any], bool]] = [
        ({}, False),
        (tools, True),
        ({"tools": []}, False),
        (tools | {"tool_choice": "none"}, True),
    ]
    for fields, translated in cases:
        assert shared.translates(peek(json.dumps(chat(**fields)).encode()), "smol") == translated
    assert not shared.translates(peek(json.dumps(chat(**tools)).encode()), "absent")


@pytest.mark.parametrize("phase", ["streaming", "reading the prompt"])
async def test_a_client_that_leaves_gives_the_slot_back_within_a_second(start: Start, phase: str) -> None:
    backend = start(slots=1, n_batch=32)
    loop = asyncio.get_running_loop()

    async def short() -> float:
        began = loop.time()
        async with backend.pool.lease("smol", call()) as lease:
            assert (await ask(lease, prompt="Hi", tokens=1, cache_prompt=False))[1]
        return loop.time() - began

    await short()
    usual_s = await short()
    tools: dict[str, Any] = {"tools": [WEATHER, ADD], "tool_choice": "required", "parallel_tool_calls": True}
    frames = frames_of(
        backend, chat(LONG_PROMPT[:2500] if phase != "streaming" else "Weather of all cities?", max_tokens=900, **tools)
    )
    if phase == "streaming":
        await anext(aiter(frames))
        await frames.aclose()
    else:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1.0):
                await anext(aiter(frames))
    # A batch that is being read ends first: it takes what reading the short prompt does.
    assert await short() < 2 * usual_s + 1.0

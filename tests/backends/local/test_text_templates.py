"""Chat templates that know tools and thinking, driven with the real model's weights."""

import json
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from backends.local import LocalBackend, Settings, connect
from backends.local.engine import Engine
from backends.ports import Local, Ports
from compat.canonical.error import RequestError
from tests.backends.local.asking import ADD, WEATHER, chat, choices_of, chunks_of
from tests.backends.local.retemplated import HERMES, THINKING, retemplated

pytestmark = pytest.mark.asyncio(loop_scope="module")
COPY = 'Repeat exactly:\n<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>'


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Local]:
    folder = tmp_path_factory.mktemp("templates")
    made = [retemplated(folder, "hermes", HERMES, tools=True), retemplated(folder, "thinking", THINKING)]
    return {local.name: local for local in made}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def backend(engine: Engine, models: dict[str, Local]) -> AsyncIterator[LocalBackend]:
    settings = Settings(engine=engine.name, threads=1, n_batch=64, context_max=2048)  # type: ignore[arg-type]
    backend = connect("local", settings, Ports(catalogue=lambda: models))
    yield backend
    await backend.aclose()


async def test_a_call_in_the_models_own_words_is_read_by_the_engine_or_emulated(backend: LocalBackend) -> None:
    body = chat(COPY, model="hermes", tools=[WEATHER], max_tokens=80)
    [choice] = await choices_of(backend, body)
    assert choice["finish_reason"] == "tool_calls"
    [made] = choice["message"]["tool_calls"]
    assert made["function"]["name"] == "get_weather"
    assert json.loads(made["function"]["arguments"])["city"] == "Paris"


async def test_a_call_is_made_where_one_has_to_be_though_the_template_has_tools(backend: LocalBackend) -> None:
    made = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1, "b": 2}'}}
    history = [
        {"role": "user", "content": "What is 1 and 2?"},
        {"role": "assistant", "content": None, "tool_calls": [made]},
        {"role": "tool", "tool_call_id": "c1", "content": "3"},
        {"role": "user", "content": "And 5 and 5?"},
    ]
    for choice in ("required", {"type": "function", "function": {"name": "add"}}):
        body = chat(model="hermes", messages=history, tools=[ADD], tool_choice=choice)
        [answer] = await choices_of(backend, body)
        assert answer["finish_reason"] == "tool_calls"
        assert set(json.loads(answer["message"]["tool_calls"][0]["function"]["arguments"])) == {"a", "b"}


async def test_broken_arguments_in_the_history_are_the_clients_fault_or_bear_no_harm(backend: LocalBackend) -> None:
    made = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": "{cit"}}
    history = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": None, "tool_calls": [made]},
        {"role": "tool", "tool_call_id": "c1", "content": "3"},
    ]
    body = chat(model="hermes", messages=history, max_tokens=4)
    if not backend.prefills:
        assert await choices_of(backend, body)
        return
    with pytest.raises(RequestError) as refused:
        await choices_of(backend, body)
    assert (refused.value.status, refused.value.param) == (400, "messages")
    assert "exception" not in refused.value.message


async def test_thinking_is_told_apart_and_may_be_turned_off(backend: LocalBackend) -> None:
    if not backend.prefills:
        pytest.skip("Engine llama_cpp_python reads no thoughts: they are part of the text.")
    body = chat("What is the weather in Paris?", model="thinking", max_tokens=12)
    deltas = [choice["delta"] for chunk in await chunks_of(backend, body) for choice in chunk["choices"]]
    assert "".join(delta.get("reasoning_content") or "" for delta in deltas)
    assert not any(delta.get("content") for delta in deltas)
    for off in ({"reasoning_effort": "none"}, {"chat_template_kwargs": {"enable_thinking": False}}):
        [choice] = await choices_of(backend, body | off)
        assert choice["message"]["content"]
        assert not choice["message"].get("reasoning_content")
    [choice] = await choices_of(backend, body | {"thinking_budget_tokens": 3, "max_tokens": 20})
    assert choice["message"]["reasoning_content"]
    assert choice["message"]["content"]

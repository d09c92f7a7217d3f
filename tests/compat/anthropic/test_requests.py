"""Requests in Anthropic's dialect, read and written, and what becomes of other dialects' in it."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compat.anthropic.envelope import peek, peek_count, upstream_body
from compat.anthropic.error import render_error
from compat.anthropic.messages import parse_request, render_request
from compat.canonical.error import InvalidRequest, Rejected
from compat.canonical.message import Media, Message, Opaque, Reasoning, Text, ToolCall, ToolResult
from compat.canonical.plain import plain
from compat.canonical.request import Sampling, Schema, TextRequest, Tool
from compat.openai import chat
from tests.claude import fixture

HELLO = {"model": "claude-opus-4-6", "max_tokens": 9, "messages": [{"role": "user", "content": "Hello"}]}


def written(request: TextRequest) -> tuple[dict[str, Any], tuple[str, ...]]:
    body, lost = render_request(request, stream=False)
    return json.loads(body), lost


def from_chat(**fields: Any) -> tuple[dict[str, Any], tuple[str, ...]]:
    """What a chat request becomes in Anthropic's dialect."""
    body = {"model": "claude-opus-4-6", "messages": [{"role": "user", "content": "Hello"}], **fields}
    return written(chat.parse_request(chat.peek(json.dumps(body).encode())))


def test_a_request_written_in_this_dialect_comes_out_as_it_went_in() -> None:
    body, lost = written(parse_request(peek(fixture("request.json"))))
    assert body == json.loads(fixture("request.json"))
    assert lost == ()


def test_every_part_is_understood() -> None:
    request = parse_request(peek(fixture("request.json")))
    assert [m.role for m in request.messages] == ["system", "user", "assistant", "user", "system"]
    question, turn, results = request.messages[1:4]
    assert question.parts == (
        Text(text="What is in these?"),
        Media(mime="image/png", data=b"\x89PNG\r\n\x1a\n"),
        Media(mime="image/*", url="https://example.com/a.png"),
        Media(mime="application/pdf", data=b"%PDF-", name="a.pdf", extra={"cache_control": {"type": "ephemeral"}}),
        Media(mime="text/plain", data=b"plain words"),
        Opaque(type="document", body={"type": "document", "source": {"type": "file", "file_id": "file_01"}}),
    )
    assert turn.parts[:3] == (
        Reasoning(text="Let me see.", signature="EqQB"),
        Reasoning(text="", redacted="Emw"),
        Text(text="I will look."),
    )
    assert isinstance(turn.parts[3], ToolCall)
    assert (turn.parts[3].id, turn.parts[3].name, json.loads(turn.parts[3].arguments)) == ("toolu_01", "look", {"n": 1})
    assert isinstance(results.parts[1], ToolResult)
    assert results.parts[1].failed
    assert request.schema is not None
    assert (request.tool_choice, request.parallel_tools, request.effort, request.user) == ("auto", False, "high", "u-1")


def test_a_chat_request_in_anthropics_terms() -> None:
    body, lost = written(chat.parse_request(chat.peek(fixture("request_chat.json"))))
    assert body == json.loads(fixture("request_chat.messages.json"))
    assert lost == (
        "name", "detail", "top_p", "temperature", "seed", "frequency_penalty",
        "n", "logprobs", "top_logprobs", "logit_bias", "metadata",
    )  # fmt: skip


def test_a_messages_request_in_chat_terms() -> None:
    whole = json.loads(fixture("request.json"))
    del whole["messages"][0]["content"][-1]  # a file's id, which nobody else can read
    request, lost = plain(parse_request(peek(json.dumps(whole).encode())), "chat")
    assert json.loads(chat.render_request(request, stream=False)) == json.loads(fixture("request.chat.json"))
    assert lost == (
        "service_tier", "container", "cache_control", "eager_input_streaming", "tools.web_search_20250305",
        "redacted_thinking", "server_tool_use", "is_error",
    )  # fmt: skip


def test_documents_are_given_as_what_they_say() -> None:
    request, lost = plain(parse_request(peek(fixture("request_documents.json"))), "chat")
    assert json.loads(chat.render_request(request, stream=False)) == json.loads(fixture("request_documents.chat.json"))
    assert lost == ("citations", "cache_control")


@pytest.mark.parametrize(
    "content",
    [
        {"type": "document", "source": {"type": "url", "url": "https://example.com/a.pdf"}},
        {"type": "document", "source": {"type": "file", "file_id": "file_01"}},
        {"type": "image", "source": {"type": "file", "file_id": "file_01"}},
        {"type": "document", "source": {"type": "content", "content": [
            {"type": "text", "text": "x"}, {"type": "image", "source": {"type": "file", "file_id": "file_01"}}]}},
        {"type": "container_upload", "file_id": "file_01"},
        {"type": "tool_result", "tool_use_id": "a", "content": [{"type": "tool_reference", "tool_name": "f"}]},
    ],
)  # fmt: skip
def test_what_could_not_be_read_is_refused(content: dict[str, Any]) -> None:
    body = HELLO | {"messages": [{"role": "user", "content": [content]}]}
    with pytest.raises(InvalidRequest, match="cannot be carried over"):
        plain(parse_request(peek(json.dumps(body).encode())), "chat")


def test_a_choice_of_a_tool_that_is_left_out_goes_with_it() -> None:
    search = {"type": "web_search_20250305", "name": "web_search"}
    own = {"name": "f", "input_schema": {"type": "object"}}
    for tools, choice, kept, named in (
        ([search], {"type": "tool", "name": "web_search"}, None, True),
        ([search, own], {"type": "tool", "name": "web_search"}, None, True),
        ([search, own], {"type": "tool", "name": "f"}, "=f", False),
        ([search], {"type": "any", "disable_parallel_tool_use": True}, None, True),
        ([search], {"type": "auto"}, None, False),
        ([], {"type": "none"}, None, False),
    ):
        body = HELLO | {"tools": tools, "tool_choice": choice}
        request, lost = plain(parse_request(peek(json.dumps(body).encode())), "chat")
        assert (request.tool_choice, "tool_choice" in lost) == (kept, named)
        assert request.tools or request.parallel_tools is None


def test_content_that_the_model_would_not_see_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="document"):
        plain(parse_request(peek(fixture("request.json"))), "chat")
    audio = {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}
    with pytest.raises(InvalidRequest, match="audio/wav"):
        from_chat(messages=[{"role": "user", "content": [audio]}])


def test_max_tokens_has_a_default_and_room_for_thinking() -> None:
    assert from_chat()[0]["max_tokens"] == 16384
    assert from_chat(model="claude-3-haiku-20240307")[0]["max_tokens"] == 4096
    assert from_chat(model="claude-sonnet-4-5", reasoning_effort="low")[0]["max_tokens"] == 16384 + 2048
    assert from_chat(max_tokens=7)[0]["max_tokens"] == 7
    for limit, budget in ((1025, 1024), (2000, 1600), (50_000, 16_384)):
        body = from_chat(model="claude-sonnet-4-5", max_tokens=limit, reasoning_effort="high")[0]
        assert (body["max_tokens"], body["thinking"]["budget_tokens"]) == (limit, budget)


def test_instructions_alone_are_a_question() -> None:
    body, lost = from_chat(messages=[{"role": "system", "content": "Write a haiku."}])
    assert body["messages"] == [{"role": "user", "content": "Write a haiku."}]
    assert "system" not in body
    assert lost == ()


@pytest.mark.parametrize(
    ("model", "effort", "fields", "lost"),
    [
        ("claude-sonnet-4-5", "low", {"thinking": {"type": "enabled", "budget_tokens": 2048}}, ()),
        ("claude-3-7-sonnet-20250219", "high", {"thinking": {"type": "enabled", "budget_tokens": 16384}}, ()),
        ("claude-sonnet-4-5", "none", {}, ()),
        ("claude-opus-4-6", "minimal", {"thinking": {"type": "adaptive"}, "output_config": {"effort": "low"}}, ()),
        ("claude-opus-4-6", "xhigh", {"thinking": {"type": "adaptive"}, "output_config": {"effort": "max"}}, ()),
        ("claude-opus-4-6", "none", {"thinking": {"type": "disabled"}}, ()),
        (
            "claude-opus-5-5",
            "xhigh",
            {"thinking": {"type": "adaptive", "display": "summarized"}, "output_config": {"effort": "xhigh"}},
            (),
        ),
        ("claude-fable-5", "none", {"output_config": {"effort": "low"}}, ("reasoning_effort",)),
        ("claude-opus-4-6", "max", {"thinking": {"type": "adaptive"}, "output_config": {"effort": "max"}}, ()),
        ("claude-opus-4-1", "max", {"thinking": {"type": "enabled", "budget_tokens": 15616}}, ()),
    ],
)
def test_effort_in_the_terms_of_each_generation(
    model: str, effort: str, fields: dict[str, Any], lost: tuple[str, ...]
) -> None:
    body, dropped = from_chat(model=model, reasoning_effort=effort)
    assert {name: body[name] for name in ("thinking", "output_config") if name in body} == fields
    assert dropped == lost


@pytest.mark.parametrize(
    ("model", "sent", "lost"),
    [
        ("claude-3-5-sonnet-20241022", {"temperature": 0.2, "top_p": 0.9}, ()),
        ("claude-sonnet-4-5", {"temperature": 0.2}, ("top_p",)),
        ("claude-opus-4-7", {}, ("temperature", "top_p")),
        ("claude-haiku-5-5", {}, ("temperature", "top_p")),
        ("claude-next", {}, ("temperature", "top_p")),
        ("kimi-k3", {"temperature": 0.2, "top_p": 0.9}, ()),
    ],
)
def test_samplers_go_to_the_models_that_take_them(model: str, sent: dict[str, float], lost: tuple[str, ...]) -> None:
    body, dropped = from_chat(model=model, temperature=0.2, top_p=0.9)
    assert {name: body[name] for name in ("temperature", "top_p") if name in body} == sent
    assert dropped == lost


def test_thinking_goes_without_samplers_and_forced_tools() -> None:
    tools = [{"type": "function", "function": {"name": "f"}}]
    assert from_chat(model="claude-sonnet-4-5", temperature=0.5, reasoning_effort="low")[1] == ("temperature",)
    body, lost = from_chat(model="claude-sonnet-4-5", reasoning_effort="low", tools=tools, tool_choice="required")
    assert "thinking" not in body
    assert lost == ("reasoning_effort",)
    body, lost = from_chat(reasoning_effort="low", tools=tools, tool_choice="required")
    assert (body["output_config"], "thinking" in body, lost) == ({"effort": "low"}, False, ())


def test_a_structure_that_the_model_cannot_be_held_to_is_named() -> None:
    assert from_chat(response_format={"type": "json_object"})[1] == ("response_format",)
    schema = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object"}}}
    assert from_chat(response_format=schema)[0]["output_config"]["format"]["schema"] == {"type": "object"}
    assert from_chat(model="claude-sonnet-4-0", response_format=schema)[1] == ("response_format",)


@pytest.mark.parametrize(
    ("choice", "parallel", "out"),
    [
        ("auto", None, {"type": "auto"}),
        ("required", True, {"type": "any", "disable_parallel_tool_use": False}),
        ("none", False, {"type": "none"}),
        ({"type": "function", "function": {"name": "f"}}, False,
         {"type": "tool", "name": "f", "disable_parallel_tool_use": True}),
    ],
)  # fmt: skip
def test_tool_choice(choice: Any, parallel: bool | None, out: dict[str, Any]) -> None:
    fields = {} if parallel is None else {"parallel_tool_calls": parallel}
    tools = [{"type": "function", "function": {"name": "f"}}]
    assert from_chat(tools=tools, tool_choice=choice, **fields)[0]["tool_choice"] == out


def test_cache_control_of_openais_clients_is_carried() -> None:
    mark = {"type": "ephemeral"}
    part = {"type": "text", "text": "Long.", "cache_control": mark}
    tool = {"type": "function", "function": {"name": "f"}, "cache_control": mark}
    body, lost = from_chat(messages=[{"role": "user", "content": [part]}], tools=[tool])
    assert body["messages"][0]["content"][0]["cache_control"] == mark
    assert body["tools"][0]["cache_control"] == mark
    assert lost == ()


def test_unsigned_thoughts_of_another_model_are_not_sent() -> None:
    turn = {"role": "assistant", "content": "Hi", "reasoning_content": "Hm."}
    body, lost = from_chat(messages=[{"role": "user", "content": "Hello"}, turn, {"role": "user", "content": "More"}])
    assert body["messages"][1] == {"role": "assistant", "content": [{"type": "text", "text": "Hi"}]}
    assert lost == ("reasoning_content",)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"messages": None}, "messages: Field required"),
        ({"max_tokens": None}, "max_tokens: Field required"),
        ({"messages": []}, "messages: at least one message is required"),
        ({"messages": [{"role": "user"}]}, "messages.0.content: Field required"),
        ({"messages": [{"content": "x"}]}, "messages.0.role: Field required"),
        ({"max_tokens": "9"}, "max_tokens: Input should be a valid integer"),
        ({"stream": 1}, "stream: Input should be a valid boolean"),
        ({"system": 1}, "system: Input should be a valid list"),
        ({"api_key": "x"}, "api_key: Extra inputs are not permitted"),
    ],
)
def test_refusals_are_in_anthropics_words(change: dict[str, Any], words: str) -> None:
    body = {name: value for name, value in (HELLO | change).items() if value is not None}
    with pytest.raises(InvalidRequest) as caught:
        peek(json.dumps(body).encode())
    assert json.loads(render_error(caught.value))["error"] == {"type": "invalid_request_error", "message": words}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([{"type": "text"}], "messages.0.content.0.text: Field required"),
        ([{"text": "x"}], "messages.0.content.0.type: Field required"),
        ([{"type": "image"}], "messages.0.content.0.source: Field required"),
        ([{"type": "tool_use", "id": "a", "name": "b"}], "messages.0.content.0.input: Field required"),
        ([{"type": "tool_result"}], "messages.0.content.0.tool_use_id: Field required"),
        ([{"type": "text", "text": 3}], "messages.0.content.0.text: Input should be a valid string"),
    ],
)
def test_refusals_of_content(content: Any, words: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_request(peek(json.dumps(HELLO | {"messages": [{"role": "user", "content": content}]}).encode()))
    assert json.loads(render_error(caught.value))["error"]["message"] == words


_TOOL = {"name": "f", "input_schema": {"type": "object"}}
_CALL = {"type": "tool_use", "id": "a", "name": "f", "input": {}}


def _said(role: str, *content: Any) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": list(content)}]}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"max_tokens": 0}, "max_tokens: Input should be greater than or equal to 1"),
        ({"max_tokens": -5}, "max_tokens: Input should be greater than or equal to 1"),
        ({"max_tokens": 1.5}, "max_tokens: Input should be a valid integer"),
        ({"temperature": 1.01}, "temperature: Input should be less than or equal to 1"),
        ({"temperature": -0.1}, "temperature: Input should be greater than or equal to 0"),
        ({"top_p": 2}, "top_p: Input should be less than or equal to 1"),
        ({"top_k": -1}, "top_k: Input should be greater than or equal to 0"),
        ({"top_k": 0.5}, "top_k: Input should be a valid integer"),
        ({"stop_sequences": [3]}, "stop_sequences.0: Input should be a valid string"),
        ({"stop_sequences": ["x", " "]}, "stop_sequences: each stop sequence must contain non-whitespace"),
        ({"metadata": {"user_id": 3}}, "metadata.user_id: Input should be a valid string"),
        ({"metadata": []}, "metadata: Input should be an object"),
        ({"system": [3]}, "system.0: Input should be an object"),
        ({"system": [{"type": "text"}]}, "system.0.text: Field required"),
        ({"system": [{"type": "image", "source": {"type": "url", "url": "x"}}]},
         "system.0.type: Input should be 'text'"),
        ({"messages": [{"role": "user", "content": 3}]},
         "messages.0.content: Input should be a valid string or a valid list"),
        ({"messages": ["x"]}, "messages.0: Input should be an object"),
        (_said("user", "x"), "messages.0.content.0: Input should be an object"),
        (_said("user", {"type": "text", "text": "x"}, {"type": "text", "text": 3}),
         "messages.0.content.1.text: Input should be a valid string"),
        (_said("user", {"type": 3}), "messages.0.content.0.type: Input should be a valid string"),
        (_said("user", {"type": "image", "source": "x"}), "messages.0.content.0.source: Input should be an object"),
        (_said("user", {"type": "image", "source": {}}), "messages.0.content.0.source.type: Field required"),
        (_said("user", {"type": "image", "source": {"type": "url"}}),
         "messages.0.content.0.source.url: Field required"),
        (_said("user", {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "?"}}),
         "messages.0.content.0.source.data: The data is not base64"),
        (_said("user", {"type": "image", "source": {"type": "base64", "media_type": "text/html", "data": ""}}),
         "messages.0.content.0.source.media_type: Input should be an image's"),
        (_said("user", {"type": "document", "source": {"type": "text", "data": 3}}),
         "messages.0.content.0.source.data: Input should be a valid string"),
        (_said("user", {"type": "document", "title": 3, "source": {"type": "text", "data": "x"}}),
         "messages.0.content.0.title: Input should be a valid string"),
        (_said("user", {"type": "document", "source": {"type": "content", "content": [{"type": "text"}]}}),
         "messages.0.content.0.source.content.0.text: Field required"),
        (_said("user", {"type": "search_result", "title": "x", "content": []}),
         "messages.0.content.0.source: Field required"),
        (_said("user", {"type": "search_result", "title": "x", "source": "y", "content": "z"}),
         "messages.0.content.0.content: Input should be a valid list"),
        (_said("user", {"type": "tool_result", "tool_use_id": "a", "content": 3}),
         "messages.0.content.0.content: Input should be a valid string or a valid list"),
        (_said("user", {"type": "tool_result", "tool_use_id": "a", "content": [_CALL]}),
         "messages.0.content.0.content.0.type: That type cannot stand here"),
        (_said("user", {"type": "tool_result", "tool_use_id": "a", "is_error": "no"}),
         "messages.0.content.0.is_error: Input should be a valid boolean"),
        (_said("assistant", _CALL | {"input": "x"}), "messages.0.content.0.input: Input should be an object"),
        (_said("user", _CALL), "messages.0.content.0: `tool_use` blocks can only be in `assistant` messages"),
        (_said("assistant", {"type": "tool_result", "tool_use_id": "a"}),
         "messages.0.content.0: `tool_result` blocks can only be in `user` messages"),
        ({"tools": [3]}, "tools.0: Input should be an object"),
        ({"tools": [{"input_schema": {}}]}, "tools.0.name: Field required"),
        ({"tools": [{"name": "f"}]}, "tools.0.input_schema: Field required"),
        ({"tools": [_TOOL, _TOOL | {"input_schema": []}]}, "tools.1.input_schema: Input should be an object"),
        ({"tools": [_TOOL | {"description": 3}]}, "tools.0.description: Input should be a valid string"),
        ({"tools": [_TOOL | {"strict": 1}]}, "tools.0.strict: Input should be a valid boolean"),
        ({"tools": [_TOOL | {"type": 1}]}, "tools.0.type: Input should be a valid string"),
        ({"tool_choice": {}}, "tool_choice.type: Field required"),
        ({"tool_choice": {"type": "some"}}, "tool_choice: Input tag should be one of 'auto', 'any', 'tool', 'none'"),
        ({"tool_choice": {"type": "tool"}}, "tool_choice.name: Field required"),
        ({"tool_choice": {"type": "tool", "name": 3}}, "tool_choice.name: Input should be a valid string"),
        ({"tool_choice": {"type": "auto", "disable_parallel_tool_use": 1}},
         "tool_choice.disable_parallel_tool_use: Input should be a valid boolean"),
        ({"tool_choice": {"type": "tool", "name": "g"}, "tools": [_TOOL]},
         "tool_choice.name: Tool 'g' not found in provided tools"),
        ({"tool_choice": {"type": "tool", "name": "g"}}, "tool_choice.name: Tool 'g' not found in provided tools"),
        ({"tools": [_TOOL, _TOOL]}, "tools: Tool names must be unique."),
        ({"tools": [_TOOL, {"type": "web_search_20250305", "name": _TOOL["name"]}]},
         "tools: Tool names must be unique."),
        ({"max_tokens": 1024, "thinking": {"type": "enabled", "budget_tokens": 1024}},
         "max_tokens: `max_tokens` must be greater than `thinking.budget_tokens`"),
        (_said("user", {"type": "text", "text": "x"}, {"type": "text", "text": ""}),
         "messages.0.content.1.text: text content blocks must be non-empty"),
        ({"system": [{"type": "text", "text": ""}]}, "system.0.text: text content blocks must be non-empty"),
        ({"thinking": {}}, "thinking.type: Field required"),
        ({"thinking": {"type": "some"}},
         "thinking.type: Input should be 'enabled', 'disabled', 'adaptive' or 'between_tools'"),
        ({"thinking": {"type": "enabled"}}, "thinking.budget_tokens: Field required"),
        ({"thinking": {"type": "enabled", "budget_tokens": 1023}},
         "thinking.budget_tokens: Input should be greater than or equal to 1024"),
        ({"thinking": {"type": "enabled", "budget_tokens": "many"}},
         "thinking.budget_tokens: Input should be a valid integer"),
        ({"output_config": {"effort": "some"}},
         "output_config.effort: Input should be 'low', 'medium', 'high', 'xhigh' or 'max'"),
        ({"output_config": {"effort": 3}}, "output_config.effort: Input should be a valid string"),
        ({"output_config": {"format": {"type": "xml"}}}, "output_config.format.type: Input should be 'json_schema'"),
        ({"output_config": {"format": {"type": "json_schema"}}}, "output_config.format.schema: Field required"),
        ({"output_format": {"type": "json_schema", "schema": 3}}, "output_format.schema: Input should be an object"),
        ({"stream": "yes"}, "stream: Input should be a valid boolean"),
        ({"model": 3}, "model: Input should be a valid string"),
    ],
)  # fmt: skip
def test_refusals_name_the_field_where_the_gateway_has_to_read_it(change: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_request(peek(json.dumps(HELLO | change).encode()))
    assert json.loads(render_error(caught.value))["error"] == {"type": "invalid_request_error", "message": words}


def test_a_tool_that_only_the_provider_knows_can_be_chosen() -> None:
    choice = {"type": "tool", "name": "web_search"}
    for tool in (
        {"type": "web_search_20250305", "name": "web_search"},
        {"type": "mcp_toolset", "mcp_server_name": "m"},
    ):
        body = HELLO | {"tools": [tool], "tool_choice": choice}
        assert parse_request(peek(json.dumps(body).encode())).tool_choice == "=web_search"


def test_a_budget_for_thinking_between_tools_may_exceed_one_turns_limit() -> None:
    thinking = {"type": "enabled", "budget_tokens": 2000}
    asked = peek(json.dumps(HELLO | {"max_tokens": 1500, "thinking": thinking}).encode())
    beta = msgspec.structs.replace(asked, headers={"anthropic-beta": "x,interleaved-thinking-2025-05-14"})
    assert parse_request(beta).sampling.max_tokens == 1500
    with pytest.raises(InvalidRequest):
        parse_request(asked)


def test_a_text_may_be_empty_where_it_is_no_block() -> None:
    turns = [{"role": "user", "content": "x"}, {"role": "assistant", "content": ""}]
    assert len(parse_request(peek(json.dumps(HELLO | {"system": "", "messages": turns}).encode())).messages) == 3


def test_what_is_null_is_as_good_as_left_out() -> None:
    names = (
        "system", "temperature", "top_p", "top_k", "stop_sequences", "tools", "tool_choice", "thinking",
        "output_config", "output_format", "metadata", "service_tier", "container", "thread",
    )  # fmt: skip
    nulls = dict.fromkeys(names)
    assert plain(parse_request(peek(json.dumps(HELLO | nulls).encode())), "chat") == plain(
        parse_request(peek(json.dumps(HELLO).encode())), "chat"
    )
    quiet = {"metadata": {"user_id": None}, "output_config": {"effort": None, "format": None}, "tools": []}
    assert plain(parse_request(peek(json.dumps(HELLO | quiet).encode())), "chat")[1] == ()


@pytest.mark.parametrize(
    "thinking",
    [{"type": "adaptive"}, {"type": "disabled"}, {"type": "between_tools"}],
)
def test_thinking_that_names_no_measure_is_named_when_left_out(thinking: dict[str, Any]) -> None:
    body = json.dumps(HELLO | {"thinking": thinking}).encode()
    request, lost = plain(parse_request(peek(body)), "chat")
    assert (request.effort, lost) == (None, ("thinking",))


def test_whatever_only_anthropic_knows_is_named() -> None:
    own = {
        "service_tier": "auto",
        "container": {"id": "c"},
        "context_management": {"edits": [{"type": "clear_thinking_20251015"}]},
        "mcp_servers": [{"type": "url", "url": "https://example.com", "name": "m"}],
        "inference_geo": "eu",
        "speed": "fast",
        "diagnostics": {"previous_message_id": "msg_1"},
        "output_config": {"effort": "low", "novelty": 1},
        "metadata": {"user_id": "u", "novelty": 1},
    }
    request, lost = plain(parse_request(peek(json.dumps(HELLO | own).encode())), "chat")
    assert set(lost) == set(own)
    assert (request.effort, request.user) == ("low", "u")


def test_stops_that_anthropic_takes_none_of_are_named() -> None:
    body, lost = from_chat(stop=["\n", "END"])
    assert (body["stop_sequences"], lost) == (["END"], ("stop",))
    assert "stop_sequences" not in from_chat(stop="\n\n")[0]


def test_files_with_words_are_documents() -> None:
    def file(url: str) -> list[dict[str, Any]]:
        part = {"type": "file", "file": {"file_data": url, "filename": "a.csv"}}
        return [{"role": "user", "content": [part]}]

    body, lost = from_chat(messages=file("data:text/csv;base64,YSxi"))
    [document] = body["messages"][0]["content"]
    source = {"type": "text", "media_type": "text/plain", "data": "a,b"}
    assert document == {"type": "document", "source": source, "title": "a.csv"}
    assert lost == ()
    with pytest.raises(InvalidRequest, match="data URL"):
        from_chat(messages=file("JVBERi0="))


def test_texts_of_white_space_say_nothing() -> None:
    said = [{"type": "text", "text": " "}, {"type": "text", "text": "Hi"}, {"type": "text", "text": ""}]
    turns = [
        {"role": "user", "content": "\n"},
        {"role": "user", "content": said},
        {"role": "assistant", "content": " "},
    ]
    assert from_chat(messages=turns)[0]["messages"] == [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}]


def test_two_texts_in_a_row_stay_two() -> None:
    def texts(*words: str) -> list[dict[str, Any]]:
        return [{"type": "text", "text": word} for word in words]

    turns = [
        {"role": "system", "content": texts("a", "b")},
        {"role": "developer", "content": "c"},
        {"role": "user", "content": texts("d", "e")},
        {"role": "user", "content": "f"},
        {"role": "assistant", "content": texts("g", "h")},
        {"role": "user", "content": "i"},
    ]
    body, lost = from_chat(messages=turns)
    assert body["system"] == texts("a", "b", "c")
    assert body["messages"] == [
        {"role": "user", "content": texts("d", "e", "f")},
        {"role": "assistant", "content": texts("g", "h")},
        {"role": "user", "content": "i"},
    ]
    back = plain(parse_request(peek(json.dumps(body).encode())), "chat")[0]
    assert json.loads(chat.render_request(back, stream=False))["messages"] == [
        {"role": "system", "content": texts("a", "b", "c")},
        {"role": "user", "content": texts("d", "e", "f")},
        {"role": "assistant", "content": texts("g", "h")},
        {"role": "user", "content": "i"},
    ]
    assert lost == ()


def test_pictures_in_tool_results_stay_with_their_tool() -> None:
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
    calls = [{"id": name, "type": "function", "function": {"name": "f", "arguments": "{}"}} for name in "ab"]
    turns = [
        {"role": "user", "content": "x"},
        {"role": "assistant", "content": None, "tool_calls": calls},
        {"role": "tool", "tool_call_id": "a", "content": [{"type": "text", "text": "one"}, picture]},
        {"role": "tool", "tool_call_id": "b", "content": [picture]},
    ]
    body, _ = from_chat(messages=turns)
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}}
    assert body["messages"][2]["content"] == [
        {"type": "tool_result", "tool_use_id": "a", "content": [{"type": "text", "text": "one"}, image]},
        {"type": "tool_result", "tool_use_id": "b", "content": [image]},
    ]


def test_a_pictures_usual_detail_is_nothing_to_lose() -> None:
    for detail, lost in (("auto", ()), ("low", ("detail",))):
        part = {"type": "image_url", "image_url": {"url": "https://example.com/a.png", "detail": detail}}
        assert from_chat(messages=[{"role": "user", "content": [part]}])[1] == lost


def test_a_thread_that_the_provider_would_keep_is_refused_so_that_clients_send_it_all() -> None:
    with pytest.raises(Rejected) as caught:
        parse_request(peek(json.dumps(HELLO | {"thread": {"type": "create"}}).encode()))
    details = json.loads(render_error(caught.value))["error"]["details"]
    assert details == {"error_code": "thread_unsupported_request", "unsupported": ["thread"]}


def test_the_old_place_of_a_structure_is_known() -> None:
    format_ = {"type": "json_schema", "schema": {"type": "object"}}
    request = parse_request(peek(json.dumps(HELLO | {"output_format": format_}).encode()))
    assert request.schema == Schema(name="answer", schema={"type": "object"})


def test_counting_needs_no_max_tokens() -> None:
    assert peek_count(b'{"model":"m","messages":[{"role":"user","content":"x"}]}').model == "m"


def test_only_the_models_name_is_changed_on_the_way_up() -> None:
    body = (
        b'{"model": "mine",  "max_tokens":9, "messages":[{"role":"user","content":"x"}], "new":{"big":1e400, "f":1.50}}'
    )
    envelope = peek(body)
    assert upstream_body(envelope, "mine") == body
    changed = upstream_body(envelope, "theirs")
    assert b'"new":{"big":1e400, "f":1.50}' in changed
    assert json.loads(changed)["model"] == "theirs"


_texts = st.text(st.characters(codec="utf-8"), min_size=1, max_size=8)
_words = st.text("abcdefghijklmnopqrstuvwxyz0123456789_-", min_size=1, max_size=8)
_extra: st.SearchStrategy[dict[str, Any]] = st.just({}) | st.just({"cache_control": {"type": "ephemeral"}})
_text_parts = st.builds(Text, text=_texts, extra=_extra)
_media = st.builds(Media, mime=st.just("image/png"), data=st.binary(max_size=8), extra=_extra) | st.builds(
    Media, mime=st.just("application/pdf"), data=st.binary(max_size=8), name=st.none() | _words
)
_calls = st.builds(
    ToolCall,
    id=_words,
    name=_words,
    arguments=st.dictionaries(_words, _texts).map(lambda d: json.dumps(d)),
    extra=_extra,
)
_results = st.builds(
    ToolResult,
    id=_words,
    parts=st.lists(_text_parts | _media, max_size=2).map(tuple),
    failed=st.booleans(),
    extra=_extra,
)
_thoughts = st.builds(Reasoning, text=_texts, signature=_words) | st.builds(
    Reasoning, text=st.just(""), redacted=_words
)
_messages = st.one_of(
    st.builds(Message, role=st.just("user"), parts=st.lists(_text_parts | _media | _results, min_size=1).map(tuple)),
    st.builds(
        Message, role=st.just("assistant"), parts=st.lists(_text_parts | _thoughts | _calls, min_size=1).map(tuple)
    ),
)
_requests = st.builds(
    TextRequest,
    model=st.just("claude-sonnet-4-0"),
    messages=st.lists(_messages, min_size=1, max_size=4).map(tuple),
    sampling=st.builds(
        Sampling,
        temperature=st.none() | st.floats(0, 1),
        top_k=st.none() | st.integers(0, 99),
        max_tokens=st.integers(50_000, 60_000),
        stop=st.lists(_texts.filter(str.strip), max_size=2).map(tuple),
    ),
    tools=st.lists(
        st.builds(
            Tool, name=_words, parameters=st.just({"type": "object"}), description=st.none() | _texts, extra=_extra
        ),
        min_size=1,
        max_size=2,
        unique_by=lambda tool: tool.name,
    ).map(tuple),
    tool_choice=st.sampled_from([None, "auto", "none"]),
    user=st.none() | _words,
    dialect=st.just("messages"),
)


@given(_requests)
def test_reading_what_was_written_gives_the_same(request: TextRequest) -> None:
    body, lost = render_request(request, stream=False)
    assert lost == ()
    assert parse_request(peek(body)) == request


@given(st.dictionaries(_words, st.recursive(st.none() | st.booleans() | st.integers() | _texts, st.lists), max_size=5))
def test_whatever_the_body_says_the_outcome_is_a_request_or_a_refusal(fields: dict[str, Any]) -> None:
    body = msgspec.json.encode(HELLO | fields)
    try:
        parse_request(peek(body))
    except InvalidRequest:
        return

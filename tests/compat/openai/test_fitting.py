"""What an engine on this machine gets of a request of OpenAI's dialects."""

import json
from typing import Any

import pytest

from compat.canonical.error import InvalidRequest
from compat.openai import chat, completions, embeddings
from compat.openai.fitting import fitted

LOOK: Any = {"type": "function", "function": {"name": "look"}}
TIME: Any = {"type": "function", "function": {"name": "time"}}
RUN: Any = {"type": "custom", "custom": {"name": "run"}}


def asked(**fields: Any) -> Any:
    body = {"model": "m", "messages": [{"role": "user", "content": "x"}], "vendor": 1.50} | fields
    return chat.peek(json.dumps(body).encode())


def sent(capabilities: tuple[str, ...], **fields: Any) -> tuple[dict[str, Any], tuple[str, ...]]:
    envelope, lost = fitted(asked(**fields), capabilities)
    assert json.loads(envelope.body) == {name: json.loads(bytes(raw)) for name, raw in envelope.fields.items()}
    return json.loads(envelope.body), lost


def test_what_fits_is_sent_as_it_came() -> None:
    envelope = asked(tools=[LOOK], tool_choice="auto", seed=1)
    assert fitted(envelope, ("tools",)) == (envelope, ())
    assert fitted(envelope, ("tools",))[0].body is envelope.body


def test_tools_are_taken_out_for_a_model_without() -> None:
    body, lost = sent((), tools=[LOOK], tool_choice="required", parallel_tool_calls=True)
    assert not {"tools", "tool_choice", "parallel_tool_calls"} & set(body)
    assert lost == ("tools", "tool_choice")
    assert sent((), tools=[], tool_choice="auto")[1] == ()


@pytest.mark.parametrize(
    ("fields", "tools", "choice", "lost"),
    [
        ({"tools": [LOOK, RUN]}, [LOOK], None, ("tools.custom",)),
        ({"tools": [RUN], "tool_choice": {"type": "custom", "custom": {"name": "run"}}}, None, None, ("tools.custom",)),
        ({"tools": [LOOK], "tool_choice": LOOK}, [LOOK], LOOK, ()),
        (
            {
                "tools": [LOOK, TIME],
                "tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [TIME]}},
            },
            [TIME],
            "required",
            (),
        ),
    ],
)
def test_an_engine_knows_functions_and_plain_choices(fields: Any, tools: Any, choice: Any, lost: Any) -> None:
    body, named = sent(("tools",), **fields)
    assert (body.get("tools"), body.get("tool_choice"), named) == (tools, choice, lost)


def test_functions_of_before_tools_are_named() -> None:
    body, lost = sent(("tools",), functions=[{"name": "f"}], function_call="auto")
    assert not {"functions", "function_call"} & set(body)
    assert lost == ("functions", "function_call")


def test_a_refusal_is_told_as_text() -> None:
    said = [
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]},
        {"role": "assistant", "content": None, "refusal": "No."},
        {"role": "user", "content": "Why?"},
    ]
    messages = sent((), messages=said)[0]["messages"]
    assert [m["content"] for m in messages] == [[{"type": "text", "text": "No."}], "No.", "Why?"]


def test_what_an_engine_passes_over_is_named() -> None:
    _, lost = sent((), store=True, modalities=["text"], metadata={"a": "b"}, service_tier="auto", verbosity="low")
    assert lost == ("store", "metadata", "verbosity")
    prompt = {"model": "m", "prompt": "x", "echo": True, "suffix": "!", "best_of": 1, "logprobs": 1}
    assert fitted(completions.peek(json.dumps(prompt).encode()), ())[1] == ("echo", "suffix")


def test_pictures_are_for_models_that_see() -> None:
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
    messages = [{"role": "user", "content": [picture]}]
    assert sent(("vision",), messages=messages)[0]["messages"] == messages
    with pytest.raises(InvalidRequest) as wrong:
        sent((), messages=messages)
    assert wrong.value.param == "messages[0].content"


@pytest.mark.parametrize(
    ("peek", "body", "param"),
    [
        (chat.peek, {"messages": [{"role": "user", "content": "x"}], "temperature": 3}, "temperature"),
        (completions.peek, {"prompt": "x", "logprobs": 9}, "logprobs"),
        (embeddings.peek, {"input": "x", "dimensions": 0}, "dimensions"),
    ],
)
def test_openais_limits_are_held(peek: Any, body: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as wrong:
        fitted(peek(json.dumps(body).encode()), ())
    assert wrong.value.param == param

"""The embedded model: its engine is laxer than OpenAI, and fails elsewhere, so it is held to OpenAI's rules."""

from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from tests.http import CHAT, chat, error_of
from tests.process import Gateway

PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}


@pytest.fixture
def http(local_gateway: Gateway) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=local_gateway.url, timeout=90, verify=False) as client:
        yield client


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"temperature": 2.5}, "temperature", "decimal_above_max_value"),
        ({"temperature": -1}, "temperature", "decimal_below_min_value"),
        ({"top_p": 2}, "top_p", "decimal_above_max_value"),
        ({"max_tokens": 0}, "max_tokens", "integer_below_min_value"),
        ({"seed": 1.5}, "seed", "invalid_type"),
        ({"messages": [{"role": "wizard", "content": "x"}]}, "messages[0].role", "invalid_value"),
        ({"messages": [{"role": "user"}]}, "messages[0].content", "missing_required_parameter"),
        ({"messages": [{"role": "user", "content": [PICTURE]}]}, "messages[0].content", "invalid_value"),
        ({"response_format": {}}, "response_format.type", "missing_required_parameter"),
        ({"tools": [{}]}, "tools[0].function", "missing_required_parameter"),
        ({"tool_choice": "perhaps"}, "tool_choice", "invalid_value"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_openai_refuses_is_refused(http: httpx2.Client, fields: dict[str, Any], param: str, code: str) -> None:
    for stream in (False, True):
        answer = http.post(CHAT, json=chat("auto", stream=stream, max_tokens=4) | fields)
        assert answer.status_code == 400, answer.text
        error = error_of(answer)
        assert (error["param"], error["code"]) == (param, code)


def test_what_its_engine_would_fail_at_is_answered_and_named(http: httpx2.Client) -> None:
    custom = {"type": "custom", "custom": {"name": "run"}}
    said = [{"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]}, {"role": "user", "content": "?"}]
    body = chat("auto", max_tokens=4, tools=[custom], store=True) | {"messages": said}
    answer = http.post(CHAT, json=body)
    assert answer.status_code == 200, answer.text
    # The tool is emulated, so nothing of it is lost.
    assert answer.headers["x-gateway-dropped"] == "store"
    strict = http.post(CHAT, json=body, headers={"x-gateway-strict": "true"})
    assert (strict.status_code, error_of(strict)["code"]) == (400, "unsupported_parameter")

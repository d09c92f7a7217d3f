"""What goes wrong becomes the right class of OpenAI's SDK, with its code and param."""

from collections.abc import Callable, Iterator
from typing import Any

import openai
import pytest
from openai import OpenAI

from tests.clients.asking import ask, stream
from tests.process import Gateway, gateway


@pytest.fixture(scope="module")
def strict_gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """Asks for keys; some of its backends fail."""
    config = {
        "auth": {
            "mode": "api_key",
            "keys": [
                {"name": "full", "key": "sk-full-1234567890abcdef", "scopes": ["inference", "models:read"]},
                {"name": "narrow", "key": "sk-narrow-1234567890abcd", "scopes": ["inference"]},
            ],
        },
        "backends": {
            "fake": {"kind": "fake"},
            "busy": {"kind": "fake", "busy": True},
            "dead": {"kind": "openai", "base_url": "http://127.0.0.1:9/v1", "api_key": "sk-provider"},
        },
        "models": {name: {"routes": [f"{name}/any"], "retries": 0} for name in ("fake", "busy", "dead")},
    }
    with gateway(tmp_path_factory.mktemp("strict"), config) as running:
        yield running


@pytest.fixture
def strict_client(strict_gateway: Gateway) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{strict_gateway.url}/v1", api_key="sk-full-1234567890abcdef", max_retries=0) as client:
        yield client


def test_an_unknown_model_is_not_found(client: OpenAI) -> None:
    attempts: list[Callable[[], object]] = [
        lambda: ask(client, model="no-such-model"),
        lambda: stream(client, model="no-such-model"),
        lambda: client.models.retrieve("no-such-model"),
    ]
    for attempt in attempts:
        with pytest.raises(openai.NotFoundError) as caught:
            attempt()
        assert caught.value.code == "model_not_found"
        assert caught.value.type == "invalid_request_error"
        assert caught.value.request_id is not None


@pytest.mark.parametrize(
    ("options", "code", "param"),
    [
        ({"messages": []}, "empty_array", "messages"),
        ({"messages": "hello"}, "invalid_type", "messages"),
        ({"messages": openai.omit}, "missing_required_parameter", "messages"),
        ({"temperature": "hot"}, "invalid_type", "temperature"),
        ({"extra_body": {"api_base": "http://127.0.0.1:9"}}, "unknown_parameter", "api_base"),
        ({"content": "word " * 9000}, "context_length_exceeded", "messages"),
    ],
)
@pytest.mark.parametrize("streams", [False, True])
def test_a_bad_request_names_the_field(
    client: OpenAI, options: dict[str, Any], code: str, param: str, streams: bool
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        (stream if streams else ask)(client, **options)
    assert (caught.value.code, caught.value.param) == (code, param)
    assert caught.value.type == "invalid_request_error"


def test_a_bad_key_is_an_authentication_error(strict_client: OpenAI) -> None:
    with pytest.raises(openai.AuthenticationError) as caught:
        ask(strict_client.with_options(api_key="sk-wrong"), model="fake")
    assert caught.value.code == "invalid_api_key"


def test_a_missing_scope_is_a_permission_error(strict_client: OpenAI) -> None:
    narrow = strict_client.with_options(api_key="sk-narrow-1234567890abcd")
    assert ask(narrow, model="fake").choices[0].message.content
    with pytest.raises(openai.PermissionDeniedError) as caught:
        narrow.models.list()
    assert caught.value.code == "insufficient_scope"


def test_a_busy_backend_is_a_503(strict_client: OpenAI) -> None:
    with pytest.raises(openai.InternalServerError) as caught:
        ask(strict_client, model="busy")
    assert (caught.value.status_code, caught.value.code) == (503, "server_is_overloaded")


def test_the_sdk_does_not_repeat_what_the_gateway_has_tried(strict_client: OpenAI, strict_gateway: Gateway) -> None:
    with pytest.raises(openai.InternalServerError) as caught:
        ask(
            strict_client.with_options(max_retries=2),
            model="dead",
            extra_headers={"x-request-id": "once-only"},
        )
    assert (caught.value.status_code, caught.value.code) == (502, "upstream_unreachable")
    strict_gateway.wait_for("request_finished", request_id="once-only")
    ask(strict_client, model="fake", extra_headers={"x-request-id": "afterwards"})
    strict_gateway.wait_for("request_finished", request_id="afterwards")
    assert sum(line.get("request_id") == "once-only" for line in strict_gateway.log) == 1

"""The bodies of POST /v1/generate."""

import json
from typing import Any

import pytest

from compat import native
from compat.canonical.error import InvalidRequest
from compat.canonical.message import Media, Message, Text
from compat.canonical.request import Sampling, TextRequest


def read(**fields: Any) -> TextRequest:
    request = native.parse_request(native.peek(json.dumps(fields).encode()))
    assert isinstance(request, TextRequest)
    return request


def test_a_prompt_is_one_message_of_the_user() -> None:
    request = read(model="m", input={"prompt": "Hi"})
    assert request.model == "m"
    assert request.messages == (Message(role="user", parts=(Text(text="Hi"),)),)
    assert request.sampling == Sampling()


def test_pictures_go_with_the_prompt_or_the_last_message() -> None:
    picture = Media(mime="image/*", url="https://example.com/a.png")
    assert read(input={"prompt": "What?", "images": [picture.url]}).messages[0].parts == (Text(text="What?"), picture)
    messages = [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]
    request = read(input={"messages": messages, "images": [picture.url]})
    assert request.messages[1].parts == (Text(text="u"), picture)
    assert request.messages[0].parts == (Text(text="s"),)


def test_parameters_are_the_samplers() -> None:
    given: dict[str, Any] = {
        "temperature": 0.5, "top_p": 0.9, "top_k": 40, "max_tokens": 7, "stop": "x", "seed": 1,
        "presence_penalty": 0.1, "frequency_penalty": 0.2,
    }  # fmt: skip
    request = read(input={"prompt": "Hi"}, parameters=given)
    assert request.sampling == Sampling(**(given | {"stop": ("x",)}))
    assert read(input={"prompt": "Hi"}, parameters={"stop": ["a", "b"]}).sampling.stop == ("a", "b")


def test_a_provider_and_a_model_are_backend_slash_model() -> None:
    peeked = native.peek(b'{"input":{"prompt":"x"},"provider":"up","model":"m","stream":true}')
    assert (peeked.model, peeked.stream) == ("up/m", True)
    with pytest.raises(InvalidRequest):
        native.peek(b'{"input":{"prompt":"x"},"provider":"up"}')


@pytest.mark.parametrize("body", [b"{}", b'{"input":7}', b'{"input":{"prompt":7}}', b'{"input":{"prompt":"x"},"x":1}'])
def test_what_is_no_request_is_refused_with_its_field(body: bytes) -> None:
    with pytest.raises(InvalidRequest) as wrong:
        native.peek(body)
    assert wrong.value.param


@pytest.mark.parametrize("role", [{}, [], 7, True])
def test_a_role_that_is_no_word_is_refused_with_its_field(role: object) -> None:
    with pytest.raises(InvalidRequest) as wrong:
        read(input={"messages": [{"role": role, "content": "x"}]})
    assert (wrong.value.param, wrong.value.code) == ("input.messages[0].role", "invalid_type")

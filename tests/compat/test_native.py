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
    assert native.peek(b'{"input":{"prompt":"x"},"provider":"up"}').model == "up/"


def test_what_is_null_is_as_if_left_out() -> None:
    assert read(input={"prompt": "x"}, parameters=None, state=None, modality=None) == read(input={"prompt": "x"})


def test_3d_may_be_written_large() -> None:
    asked = native.peek(b'{"input":{"prompt":"x"},"modality":"3D"}')
    assert (native.modality_of(asked), bytes(asked.fields["modality"])) == ("3d", b'"3d"')


def test_an_error_of_a_backend_names_the_whole_path() -> None:
    error = json.loads(native.Errors().body(InvalidRequest("Invalid value for 'temperature'.", param="temperature")))
    assert error["error"]["param"] == "parameters.temperature"
    assert "'parameters.temperature'" in error["error"]["message"]


def test_an_empty_prompt_is_refused() -> None:
    with pytest.raises(InvalidRequest) as wrong:
        read(input={"prompt": " "})
    assert (wrong.value.param, wrong.value.code) == ("input.prompt", "invalid_value")


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

"""What llama.cpp's servers say went wrong, put on the request where it is at fault."""

import json

import pytest

from compat.openai.llamafault import parse_fault

PYDANTIC = (
    "1 validation error:\n  {'type': 'float_parsing', 'loc': ('body', 'top_p'), 'msg': 'Input should be a valid number'"
    ", 'input': 'hot'}\n\n  File \"app.py\", line 376, in create_chat_completion"
)


def body(message: str) -> bytes:
    return json.dumps({"error": {"code": 500, "message": message, "type": "server_error"}}).encode()


@pytest.mark.parametrize(
    ("message", "param", "told"),
    [
        (
            "Field 'top_k': [json.exception.type_error.302] type must be number, but is string",
            "top_k",
            "Invalid value for 'top_k': type must be number, but is string.",
        ),
        (
            "Field 'n': Value must be between 1 <= value <= 2, but got 5",
            "n",
            "Invalid value for 'n': Value must be between 1 <= value <= 2, but got 5.",
        ),
        (
            "Unable to generate parser for this template. Automatic parser generation failed: JSON schema error at #:"
            " unrecognized type wizard",
            "response_format",
            "Invalid schema for 'response_format': unrecognized type wizard.",
        ),
        (
            "Failed to initialize samplers: failed to parse grammar",
            "grammar",
            "Invalid 'grammar': it is no GBNF that the engine can read.",
        ),
        (
            'invalid type for "enable_thinking" (expected boolean, got string)',
            "chat_template_kwargs",
            "Invalid 'chat_template_kwargs': invalid type for \"enable_thinking\" (expected boolean, got string).",
        ),
        (
            "Prompt contains invalid tokens",
            "prompt",
            "Invalid 'prompt': a prompt is a text, or a list of tokens that this model knows.",
        ),
        (
            '"prompt" elements must be a string, a list of tokens, a JSON object containing a prompt string',
            "prompt",
            "Invalid 'prompt': a prompt is a text, or a list of tokens that this model knows.",
        ),
        (
            "image input is not supported - hint: if this is unexpected, you may need to provide the mmproj",
            "messages",
            "Invalid 'messages': image input is not supported.",
        ),
        (
            "Failed to parse tool call arguments as JSON: [json.exception.parse_error.101] parse error at line 1",
            "messages",
            "Invalid 'messages': Failed to parse tool call arguments as JSON.",
        ),
        ("Unknown reasoning format: x", "reasoning_format", "Invalid 'reasoning_format': Unknown reasoning format: x."),
        (PYDANTIC, "top_p", "Invalid value for 'top_p': Input should be a valid number."),
    ],
)
def test_what_the_request_is_to_blame_for_names_its_field(message: str, param: str, told: str) -> None:
    found = parse_fault(body(message))
    assert (found.blames, found.param, found.code, found.message) == (True, param, "invalid_value", told)


def test_a_context_that_is_too_short_is_told_with_the_numbers_in_openais_words() -> None:
    said = "request (12031 tokens) exceeds the available context size (2048 tokens), try increasing it"
    found = parse_fault(body(said))
    assert (found.blames, found.param, found.code) == (True, "messages", "context_length_exceeded")
    assert "maximum context length is 2048 tokens" in found.message
    assert "12031 tokens" in found.message


@pytest.mark.parametrize("said", [b"", b"not json", b"[]", body("Compute error."), b'{"error": "Internal"}'])
def test_whatever_else_it_says_is_not_put_on_the_request(said: bytes) -> None:
    assert not parse_fault(said).blames


@pytest.mark.parametrize(
    "message",
    [
        "input (513 tokens) is too large to process. increase the physical batch size (current batch size: 512)",
        "input (513 tokens) is larger than the max context size (512 tokens). skipping",
    ],
)
def test_an_input_that_is_too_large_is_told_in_numbers(message: str) -> None:
    found = parse_fault(body(message))
    assert (found.code, found.param) == ("context_length_exceeded", "input")
    assert found.message == "This model reads 512 tokens at once, and an input has 513. Please shorten it."

"""How many tokens a request is taken to have: likely ones for limits, the most for budgets."""

import base64
import os
from typing import Any

import msgspec
import pytest

from compat import native
from compat.anthropic.envelope import peek as peek_messages
from compat.openai import embeddings, images, responses
from gateway.limits.estimate import (
    ANSWER_MOST,
    ANSWER_TOKENS,
    BOUND_MAX,
    DRAWN_MOST,
    KEPT_MOST,
    PICTURE_MOST,
    PICTURE_TOKENS,
    TEMPLATE_TOKENS,
    likely,
    most,
)
from tests.gateway.routing.stage import chat

PICTURE = base64.b64encode(os.urandom(300_000)).decode()


def generate(**parameters: Any) -> Any:
    return native.peek(msgspec.json.encode({"input": {"prompt": "Hi"}, "parameters": parameters}))


@pytest.mark.parametrize("unsaid", [{}, {"max_tokens": None}, {"max_completion_tokens": None}])
def test_an_answer_of_unsaid_length(unsaid: dict[str, None]) -> None:
    envelope = chat(**unsaid)
    assert likely(envelope) == len(envelope.body) / 4 + ANSWER_TOKENS
    assert most(envelope) == (len(envelope.body) + TEMPLATE_TOKENS, ANSWER_MOST)


@pytest.mark.parametrize(
    ("fields", "answer"),
    [
        ({"max_tokens": 5}, 5),
        ({"max_completion_tokens": None, "max_tokens": 5000}, 5000),
        ({"max_completion_tokens": 7, "max_tokens": 5000}, 5000),
        ({"max_tokens": 20, "n": 3}, 60),
        ({"max_tokens": 1e4}, 10_000),
        ({"max_tokens": -5}, 0),
        ({"max_tokens": 10**30}, BOUND_MAX),
    ],
)
def test_a_bound_is_believed_wherever_it_is_said(fields: dict[str, Any], answer: int) -> None:
    assert most(chat(**fields))[1] == answer


def test_the_gateways_own_dialect_bounds_too() -> None:
    assert most(generate(max_tokens=50))[1] == 50
    assert most(generate())[1] == ANSWER_MOST
    assert likely(generate(max_tokens=5000)) > 5000


def test_embeddings_have_no_answer_and_pictures_are_counted() -> None:
    assert most(embeddings.peek(b'{"model": "m", "input": "Hi"}'))[1] == 0
    assert most(images.peek(b'{"model": "m", "prompt": "A cat", "n": 2}'))[1] == 2 * DRAWN_MOST


def test_a_picture_is_a_picture_however_many_bytes_it_has() -> None:
    url = f"data:image/png;base64,{PICTURE}"
    source = {"type": "base64", "media_type": "image/png", "data": PICTURE}
    asked = [
        chat(messages=[{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}]),
        peek_messages(
            msgspec.json.encode(
                {
                    "model": "m",
                    "max_tokens": 10,
                    "messages": [{"role": "user", "content": [{"type": "image", "source": source}]}],
                }
            )
        ),
        responses.peek(
            msgspec.json.encode(
                {"model": "m", "input": [{"role": "user", "content": [{"type": "input_image", "image_url": url}]}]}
            )
        ),
        native.peek(msgspec.json.encode({"input": {"prompt": "What is it?", "images": [url]}})),
    ]
    for envelope in asked:
        assert PICTURE_TOKENS < likely(envelope) < PICTURE_TOKENS + 400
        assert PICTURE_MOST < most(envelope)[0] < PICTURE_MOST + TEMPLATE_TOKENS + 400
    elsewhere = chat(
        messages=[{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://x.example/a.png"}}]}]
    )
    assert most(elsewhere)[0] > PICTURE_MOST


def test_text_that_looks_like_a_picture_is_text() -> None:
    said = f"data:image/png;base64,{PICTURE}"
    asked = [
        chat(messages=[{"role": "user", "content": said}]),
        chat(messages=[{"role": "user", "content": [{"type": "text", "text": said}]}]),
        chat(tools=[{"type": "function", "function": {"name": "f", "parameters": {"url": said}}}]),
        peek_messages(
            msgspec.json.encode(
                {
                    "model": "m",
                    "max_tokens": 10,
                    "messages": [
                        {"role": "assistant", "content": [{"type": "tool_use", "id": "1", "input": {"url": said}}]}
                    ],
                }
            )
        ),
    ]
    for envelope in asked:
        assert most(envelope)[0] > len(PICTURE)


def test_a_file_is_neither_text_nor_a_picture() -> None:
    part = {"type": "file", "file": {"filename": "a.pdf", "file_data": f"data:application/pdf;base64,{PICTURE}"}}
    envelope = chat(messages=[{"role": "user", "content": [part]}])
    assert len(PICTURE) / 20 < likely(envelope) < len(PICTURE) / 8
    assert most(envelope)[0] >= len(PICTURE) * 3 // 4


def test_what_is_kept_elsewhere_is_reckoned_with() -> None:
    assert most(responses.peek(b'{"model": "m", "input": "Hi", "previous_response_id": "resp_1"}'))[0] == KEPT_MOST
    assert most(responses.peek(b'{"model": "m", "input": "Hi", "previous_response_id": null}'))[0] < KEPT_MOST

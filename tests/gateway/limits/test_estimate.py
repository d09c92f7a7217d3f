"""How many tokens a request is taken to have: likely ones for limits, the most for budgets."""

import base64
import os
from time import process_time
from typing import Any

import msgspec
import pytest

from compat import native
from compat.anthropic.envelope import peek as peek_messages
from compat.canonical.request import Envelope
from compat.openai import completions, embeddings, images, rerank, responses
from compat.openai.chat import peek as chat_peek
from gateway.limits import estimate
from gateway.limits.estimate import (
    ANSWER_MOST,
    ANSWER_TOKENS,
    BOUND_MAX,
    CHOICES_MAX,
    DRAWN_MOST,
    KEPT_MOST,
    PICTURE_MOST,
    PICTURE_TOKENS,
    STRUCTURE_MAX,
    TEMPLATE_TOKENS,
    likely,
    most,
)
from tests.gateway.routing.stage import chat, messages

PICTURE = base64.b64encode(b"\x89PNG\r\n\x1a\n" + os.urandom(300_000)).decode()
FILE = base64.b64encode(b"%PDF-1.7" + os.urandom(300_000)).decode()


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
        ({"max_tokens": -5}, ANSWER_MOST),
        ({"max_tokens": 0}, ANSWER_MOST),
        ({"max_tokens": 0.0}, ANSWER_MOST),
        ({"max_tokens": 10**30}, BOUND_MAX),
        ({"max_tokens": msgspec.Raw(b"1e999999999")}, BOUND_MAX),
        ({"max_tokens": msgspec.Raw(b"-1e999999999")}, ANSWER_MOST),
        ({"max_tokens": 20, "n": msgspec.Raw(b"1e999999999")}, 20 * CHOICES_MAX),
    ],
)
def test_a_bound_is_believed_wherever_it_is_said(fields: dict[str, Any], answer: int) -> None:
    assert most(chat(**fields))[1] == answer


def test_a_query_is_read_with_each_document() -> None:
    body = msgspec.json.encode({"query": "q" * 98, "documents": ["a"] * 20})
    assert most(rerank.peek(body)) == (len(body) + 20 * 100 + TEMPLATE_TOKENS, 0)


def test_the_gateways_own_dialect_bounds_too() -> None:
    assert most(generate(max_tokens=50))[1] == 50
    assert most(generate())[1] == most(generate(max_tokens=0))[1] == ANSWER_MOST
    assert likely(generate(max_tokens=5000)) > 5000


def test_embeddings_have_no_answer_and_pictures_are_counted() -> None:
    assert most(embeddings.peek(b'{"model": "m", "input": "Hi"}'))[1] == 0
    assert most(images.peek(b'{"model": "m", "prompt": "A cat", "n": 2}'))[1] == 2 * DRAWN_MOST


@pytest.mark.parametrize(
    ("prompt", "answers"),
    [
        ("Hi", 1),
        ([1, 2, 3], 1),
        ([], 1),
        (["Hi"], 1),
        (['He said "[a, b]".', "\\", "Hi"], 3),
        ([[1, 2], [3]], 2),
        (["Hi"] * 5000, CHOICES_MAX),
        ([[1]] * 5000, CHOICES_MAX),
    ],
)
def test_each_prompt_has_an_answer(prompt: Any, answers: int) -> None:
    for body in (
        {"model": "m", "prompt": prompt, "max_tokens": 7, "n": 2},
        {"model": "m", "n": 2, "max_tokens": 7, "prompt": prompt},
    ):
        written = msgspec.json.format(msgspec.json.encode(body), indent=200)
        assert most(completions.peek(written))[1] == 14 * answers


def long(asked: Envelope) -> Envelope:
    """The same request after a talk of very many parts."""
    name = "input" if asked.dialect in ("responses", "native") else "messages"
    fields = msgspec.json.decode(asked.body)
    talk = [{"role": "user", "content": "Hi"}] * STRUCTURE_MAX
    if asked.dialect == "native":
        fields["input"] = {"messages": talk, "images": fields["input"]["images"]}
    else:
        fields[name] = talk + fields[name]
    peek = {"responses": responses.peek, "messages": peek_messages, "native": native.peek, "chat": chat_peek}
    return peek[asked.dialect](msgspec.json.encode(fields))


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
        many = long(envelope)
        text = len(many.body) - len(PICTURE)
        assert PICTURE_TOKENS < likely(many) - text / 4 < PICTURE_TOKENS + 400
        assert PICTURE_MOST < most(many)[0] - text < PICTURE_MOST + TEMPLATE_TOKENS + 400
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
    for envelope in asked[:2]:
        assert most(long(envelope))[0] > len(long(envelope).body)


DOCUMENT = {"type": "base64", "media_type": "application/pdf", "data": FILE}
SOUND = {"type": "input_audio", "input_audio": {"data": FILE, "format": "mp3"}}


@pytest.mark.parametrize(
    "envelope",
    [
        chat(
            messages=[
                {
                    "role": "user",
                    "content": [{"type": "file", "file": {"file_data": f"data:application/pdf;base64,{FILE}"}}],
                }
            ]
        ),
        chat(messages=[{"role": "user", "content": [SOUND]}]),
        messages(messages=[{"role": "user", "content": [{"type": "document", "source": DOCUMENT}]}], max_tokens=5),
        responses.peek(msgspec.json.encode({"model": "m", "input": [{"role": "user", "content": [SOUND]}]})),
    ],
    ids=["data URL", "sound", "Anthropic's", "sound in responses"],
)
def test_a_file_is_neither_text_nor_a_picture(envelope: Envelope) -> None:
    for asked in (envelope, long(envelope)):
        text = len(asked.body) - len(FILE)
        assert len(FILE) / 20 < likely(asked) - text / 4 < len(FILE) / 8
        assert len(FILE) * 3 // 4 <= most(asked)[0] - text <= len(FILE) * 3 // 4 + TEMPLATE_TOKENS + 100


def test_what_cannot_be_read_is_text() -> None:
    part = b'{"type": "image_url", "n": 1e999999999, "url": "data:image/png;base64,AAAA"}'
    envelope = chat_peek(b'{"model": "m", "messages": [{"role": "user", "content": [%b]}]}' % part)
    assert likely(envelope) == len(envelope.body) / 4 + PICTURE_TOKENS + ANSWER_TOKENS
    assert most(envelope)[0] == len(envelope.body) + PICTURE_MOST + TEMPLATE_TOKENS


def test_a_body_of_very_many_parts_holds_nobody_up() -> None:
    part = b'{"role":"user","content":[{"type":"text"}]}'
    bodies = [
        b'{"model":"m","messages":[{"role":"user","content":"base64"},' + b",".join([part] * 66_000) + b"]}",
        # Nearly what is searched for, over and over.
        *(
            b'{"model":"base64","messages":[' + b",".join([b'{"role":"user",%b}' % nearly] * 30_000) + b"]}"
            for nearly in (b'"data":"data:image/%b"' % (b"A" * 190), b'"data"%b:1' % (b" " * 200))
        ),
    ]
    for body in bodies:
        envelope = chat_peek(body)
        began = process_time()
        likely(envelope)
        most(envelope)
        assert process_time() - began < 0.5


def test_what_was_looked_up_is_forgotten_with_its_request() -> None:
    envelope = chat(messages=[{"role": "user", "content": "base64"}])
    before = len(estimate._known)
    likely(envelope)
    most(envelope)
    assert len(estimate._known) == before + 1
    del envelope
    assert len(estimate._known) == before


def test_what_is_kept_elsewhere_is_reckoned_with() -> None:
    assert most(responses.peek(b'{"model": "m", "input": "Hi", "previous_response_id": "resp_1"}'))[0] == KEPT_MOST
    assert most(responses.peek(b'{"model": "m", "input": "Hi", "previous_response_id": null}'))[0] < KEPT_MOST

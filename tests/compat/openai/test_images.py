"""Requests for pictures are read, pictures written, and what a provider sends is watched."""

import base64
import json
from collections.abc import AsyncGenerator
from typing import Any

import httpx2
import pytest
from openai.types import (
    ImageEditCompletedEvent,
    ImageGenCompletedEvent,
    ImageGenPartialImageEvent,
    ImagesResponse,
)

from compat.canonical.error import InvalidRequest
from compat.canonical.event import Event, Finished, Metered, Produced, Started, Usage, fold
from compat.canonical.message import Media, Stored
from compat.canonical.request import Envelope, ImageRequest
from compat.openai.envelope import upstream_body
from compat.openai.images import parse_edit, parse_request, peek, peek_edit, peek_edit_form, wants_url
from compat.openai.picture import ImagesTap, render_events, render_result
from compat.sse import Cutter, split
from tests.wire import dump, fixture

PNG = b"\x89PNG\r\n\x1a\n the rest"


def generation(**fields: Any) -> Envelope:
    return peek(dump({"model": "m", "prompt": "a heron", **fields}))


def edit_form(files: list[Any]) -> Envelope:
    request = httpx2.Request("POST", "http://x/", files=files)
    return peek_edit_form(request.read(), request.headers["content-type"])


PROMPT = ("prompt", (None, "a hat"))
IMAGE = ("image", ("a.png", PNG, "image/png"))


def test_a_request_is_read() -> None:
    asked = generation(
        n=2, size="1024x1024", user="u", quality="high", background="auto", response_format="b64_json", seed=None
    )
    assert parse_request(asked) == ImageRequest(
        model="m", prompt="a heron", count=2, size="1024x1024", user="u", extra={"quality": "high"}
    )


def test_what_only_the_backend_can_keep_is_left_for_it_to_name() -> None:
    assert parse_request(generation(response_format="url", style="vivid")).extra == {"style": "vivid"}


def test_a_size_of_auto_is_the_backends_own() -> None:
    assert parse_request(generation(size="auto")).size is None


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"prompt": None}, "prompt", "missing_required_parameter"),
        ({"prompt": 5}, "prompt", "invalid_type"),
        ({"n": "2"}, "n", "invalid_type"),
        ({"stream": "yes"}, "stream", "invalid_type"),
        ({"api_base": "http://x"}, "api_base", "unknown_parameter"),
    ],
)
def test_a_wrong_request_is_refused_by_the_field(fields: dict[str, Any], param: str, code: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        generation(**fields)
    assert (refused.value.param, refused.value.code) == (param, code)


@pytest.mark.parametrize("fields", [{"prompt": ""}, {"prompt": " \n"}, {"size": ""}])
def test_what_is_empty_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest, match="it is empty") as refused:
        parse_request(generation(**fields))
    assert refused.value.param == next(iter(fields))


@pytest.mark.parametrize("name", ["image", "mask"])
def test_a_text_where_a_file_is_due_is_refused_with_the_cure(name: str) -> None:
    files = [PROMPT, IMAGE] if name == "mask" else [PROMPT]
    with pytest.raises(InvalidRequest, match=f"expected a file.*-F {name}=@FILE") as refused:
        parse_edit(edit_form([*files, (name, (None, "notafile"))]))
    assert refused.value.param == name
    nameless = edit_form([PROMPT, ("image", (None, PNG, "image/png"))])
    assert parse_edit(nameless).images[0].data == PNG, "what is a picture needs no name"


@pytest.mark.parametrize("n", [0, 11, 1.5])
def test_a_translated_request_asks_for_a_sound_number_of_pictures(n: float) -> None:
    with pytest.raises(InvalidRequest) as refused:
        parse_request(generation(n=n))
    assert refused.value.param == "n"


def test_a_stream_is_not_asked_for_usage() -> None:
    asked = generation(stream=True, partial_images=2)
    assert asked.stream
    assert json.loads(upstream_body(asked, "other")) == {
        "model": "other",
        "prompt": "a heron",
        "stream": True,
        "partial_images": 2,
    }


def test_an_edit_in_a_form_is_read() -> None:
    files = [
        PROMPT,
        ("model", (None, "m")),
        ("n", (None, "3")),
        ("size", (None, "auto")),
        ("input_fidelity", (None, "high")),
        ("image[]", ("a.png", PNG, "image/png")),
        ("image[]", ("b", b"\xff\xd8\xff..", "application/octet-stream")),
        ("mask", ("m.png", PNG, "image/png")),
        ("markup", ("k.png", PNG, "image/png")),
    ]
    asked = edit_form(files)
    assert (asked.model, asked.stream, asked.dialect) == ("m", False, "image_edits")
    assert parse_edit(asked) == ImageRequest(
        model="m",
        prompt="a hat",
        count=3,
        images=(
            Media(mime="image/png", data=PNG, name="a.png"),
            Media(mime="image/jpeg", data=b"\xff\xd8\xff..", name="b"),
        ),
        mask=Media(mime="image/png", data=PNG, name="m.png"),
        extra={"input_fidelity": "high", "markup": "k.png"},
    )


@pytest.mark.parametrize("said", ["true", "True", "1"])
def test_a_form_may_ask_for_a_stream(said: str) -> None:
    assert edit_form([PROMPT, IMAGE, ("stream", (None, said))]).stream


def test_only_the_model_of_a_form_changes_on_the_way_up() -> None:
    asked = edit_form([("model", (None, "one")), PROMPT, IMAGE, ("vendor[field]", (None, "kept"))])
    assert upstream_body(asked, "one") is asked.body
    assert upstream_body(asked, "another") == asked.body.replace(b"\r\n\r\none\r\n", b"\r\n\r\nanother\r\n")


@pytest.mark.parametrize(
    ("files", "param", "code"),
    [
        ([PROMPT], "image", "missing_required_parameter"),
        ([IMAGE], "prompt", "missing_required_parameter"),
        ([PROMPT, IMAGE, PROMPT], "prompt", "invalid_value"),
        ([PROMPT, IMAGE, ("model", (None, "a")), ("model", (None, "b"))], "model", "invalid_value"),
        ([("prompt", (None, b"\xff")), IMAGE], "prompt", "invalid_multipart"),
        ([PROMPT, IMAGE, ("base_url", (None, "http://x"))], "base_url", "unknown_parameter"),
    ],
)
def test_a_wrong_form_is_refused_by_the_field(files: list[Any], param: str, code: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        edit_form(files)
    assert (refused.value.param, refused.value.code) == (param, code)


@pytest.mark.parametrize(
    ("n", "code"),
    [("two", "invalid_type"), ("0", "invalid_value"), ("11", "invalid_value"), ("9" * 5000, "invalid_value")],
)
def test_a_number_in_a_form_must_be_one(n: str, code: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        parse_edit(edit_form([PROMPT, IMAGE, ("n", (None, n))]))
    assert (refused.value.param, refused.value.code) == ("n", code)


def test_an_edit_in_json_is_read() -> None:
    url = "data:image/png;base64," + base64.b64encode(PNG).decode()
    asked = peek_edit(dump({"prompt": "a hat", "images": [{"image_url": url}], "mask": {"image_url": url}}))
    request = parse_edit(asked)
    assert request.images == (Media(mime="image/png", data=PNG),)
    assert request.mask == Media(mime="image/png", data=PNG)


@pytest.mark.parametrize(
    ("fields", "param"),
    [({}, "images"), ({"images": []}, "images"), ({"images": [{"file_id": "file-1"}]}, "images[0]")],
)
def test_an_edit_in_json_needs_pictures_that_are_there(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        parse_edit(peek_edit(dump({"prompt": "a hat", **fields})))
    assert refused.value.param == param


async def events(*pictures: Produced, usage: Usage | None = None) -> AsyncGenerator[Event, None]:
    yield Started(id="x", model="m", created=1760000000)
    for picture in pictures:
        yield picture
    yield Finished(reason="stop")
    if usage is not None:
        yield Metered(usage=usage)


FIRST = Produced(media=Media(mime="image/webp", data=PNG), revised_prompt="a grey heron")
SECOND = Produced(media=Media(mime="image/webp", data=b"2"), index=1)


async def test_pictures_are_written_whole() -> None:
    body = render_result(await fold(events(FIRST, SECOND, usage=Usage(input_tokens=3, output_tokens=5))))
    answer = ImagesResponse.model_validate_json(body, strict=True)
    assert answer.data is not None
    assert [(one.b64_json, one.revised_prompt, one.url) for one in answer.data] == [
        (base64.b64encode(PNG).decode(), "a grey heron", None),
        ("Mg==", None, None),
    ]
    assert (answer.created, answer.output_format) == (1760000000, "webp")
    assert answer.usage is not None
    assert (answer.usage.input_tokens, answer.usage.output_tokens, answer.usage.total_tokens) == (3, 5, 8)


async def test_usage_that_nobody_said_is_not_made_up() -> None:
    assert "usage" not in json.loads(render_result(await fold(events(FIRST))))


async def test_pictures_are_written_as_a_stream() -> None:
    asked = generation(stream=True, size="512x512")
    stream = render_events(events(FIRST, SECOND, usage=Usage(input_tokens=3, output_tokens=5)), asked)
    frames = [frame async for frame in stream]
    assert [frame.partition(b"\n")[0] for frame in frames] == [b"event: image_generation.completed"] * 2
    read = [ImageGenCompletedEvent.model_validate_json(f.partition(b"data: ")[2], strict=True) for f in frames]
    assert [one.b64_json for one in read] == [base64.b64encode(PNG).decode(), "Mg=="]
    assert [one.usage.total_tokens for one in read] == [0, 8]
    assert (read[0].size, read[0].output_format) == ("512x512", "webp")


async def test_no_picture_of_a_stream_waits_for_the_next() -> None:
    asked = generation(stream=True, n=2)
    seen: list[str] = []

    async def made() -> AsyncGenerator[Event, None]:
        for event in (Started(id="x", model="m", created=1), FIRST, SECOND):
            yield event
            seen.append(type(event).__name__)
        yield Metered(usage=Usage(input_tokens=3, output_tokens=5))

    frames = render_events(made(), asked)
    first = await anext(frames)
    assert base64.b64encode(PNG) in first
    assert seen == ["Started"], "the first is told before the second is asked for"
    assert [b'"total_tokens":8' in frame async for frame in frames] == [True]


async def test_pictures_are_written_as_urls_where_that_is_asked_for() -> None:
    assert wants_url(generation(response_format="url"))
    assert not wants_url(generation(response_format="b64_json"))
    elsewhere = Produced(media=Media(mime="image/webp", url="https://x/y.webp"))
    answer = json.loads(render_result(await fold(events(elsewhere)), urls=True))
    assert [one["url"] for one in answer["data"]] == ["https://x/y.webp"]
    answer = json.loads(render_result(await fold(events(FIRST)), urls=True))
    assert answer["data"][0]["url"] == "data:image/webp;base64," + base64.b64encode(PNG).decode()
    stored = Stored(id="art_1", url="https://g/x?s", expires_at=0.0, size_bytes=4, sha256="ab")
    kept = Produced(media=Media(mime="image/webp", data=PNG, extra={"stored": stored}))
    answer = json.loads(render_result(await fold(events(kept)), urls=True))
    assert answer["data"] == [{"url": "https://g/x?s"}]


async def test_previews_are_events_before_their_picture() -> None:
    asked = generation(stream=True, partial_images=2)
    assert parse_request(asked).previews == 2
    assert parse_request(generation(partial_images=2)).previews == 0, "nobody would see them"
    looks = [Produced(media=Media(mime="image/png", data=b"%d" % n), partial=n) for n in range(2)]
    stream = render_events(events(*looks, FIRST, SECOND, usage=Usage(input_tokens=3, output_tokens=5)), asked)
    frames = [frame.partition(b"data: ")[2] async for frame in stream]
    previews = [ImageGenPartialImageEvent.model_validate_json(frame, strict=True) for frame in frames[:2]]
    assert [(one.partial_image_index, one.b64_json) for one in previews] == [(0, "MA=="), (1, "MQ==")]
    whole = [ImageGenCompletedEvent.model_validate_json(frame, strict=True) for frame in frames[2:]]
    assert [one.usage.total_tokens for one in whole] == [0, 8]


@pytest.mark.parametrize("previews", [-1, 4])
def test_more_previews_than_openai_gives_are_refused(previews: int) -> None:
    with pytest.raises(InvalidRequest) as refused:
        parse_request(generation(stream=True, partial_images=previews))
    assert (refused.value.param, refused.value.code) == ("partial_images", "invalid_value")
    with pytest.raises(InvalidRequest) as refused:
        parse_edit(edit_form([PROMPT, IMAGE, ("partial_images", (None, str(previews)))]))
    assert refused.value.param == "partial_images"


async def test_an_edits_stream_has_events_of_its_own() -> None:
    asked = edit_form([PROMPT, IMAGE, ("stream", (None, "true"))])
    frames = [frame async for frame in render_events(events(FIRST), asked)]
    assert frames[0].startswith(b"event: image_edit.completed\n")
    ImageEditCompletedEvent.model_validate_json(frames[0].partition(b"data: ")[2], strict=True)


def test_a_whole_answer_passes_untouched_and_is_metered() -> None:
    tap = ImagesTap(generation())
    body = fixture("images.json")
    assert tap.whole(body) is body
    assert tap.usage == Usage(input_tokens=50, output_tokens=272)
    assert tap.finished


@pytest.mark.parametrize("body", [b"<html>", b"[]", b"{}", b'{"data": 5}', b"\xff"])
def test_what_is_not_an_answer_is_none(body: bytes) -> None:
    assert ImagesTap(generation()).whole(body) is None


def test_an_error_inside_an_answer_is_found() -> None:
    tap = ImagesTap(generation())
    tap.whole(dump({"error": {"message": "no", "code": "moderation_blocked"}}))
    assert tap.failure is not None
    assert tap.failure.code == "moderation_blocked"


@pytest.mark.parametrize("name", ["images.sse", "image_edits.sse"])
def test_a_stream_passes_untouched_however_it_is_cut(name: str) -> None:
    body = fixture(name)
    for size in (1, 7, len(body)):
        tap, cutter = ImagesTap(generation()), Cutter()
        pieces = [cutter.feed(body[at : at + size]) for at in range(0, len(body), size)]
        assert b"".join(tap.feed(piece) for piece in pieces) == body
        assert tap.finished
        assert tap.done
        assert tap.usage == Usage(input_tokens=50, output_tokens=272)


def test_a_stream_that_ends_early_has_not_finished() -> None:
    frames = split(fixture("images.sse"))
    tap = ImagesTap(generation())
    tap.feed(frames[0] + b"\n\n")
    assert tap.began
    assert not tap.finished


def test_a_stream_of_two_pictures_ends_with_the_second() -> None:
    completed = split(fixture("images.sse"))[-1] + b"\n\n"
    tap = ImagesTap(generation(n=2))
    assert tap.feed(completed) == completed
    assert not tap.finished
    tap.feed(completed)
    assert tap.finished


def test_done_ends_a_stream_but_makes_nothing_whole() -> None:
    frames = split(fixture("images.sse"))
    tap = ImagesTap(generation())
    assert tap.feed(frames[0] + b"\n\ndata: [DONE]\n\n") == frames[0] + b"\n\n"
    assert tap.done
    assert not tap.finished


@pytest.mark.parametrize(
    "event",
    [
        b'event: error\ndata: {"error": {"message": "no", "code": "server_error"}}\n\n',
        b'event: error\ndata: {"type": "error", "message": "no", "code": "server_error"}\n\n',
    ],
)
def test_an_error_in_a_stream_is_found_and_held_back(event: bytes) -> None:
    tap = ImagesTap(generation())
    assert tap.feed(event) == b""
    assert tap.failure is not None
    assert tap.failure.code == "server_error"

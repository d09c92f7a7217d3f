"""Pictures from Hugging Face's inference providers, however they come."""

import base64
import json
from typing import Any

import pytest

from compat.canonical.error import BadResponse, InvalidRequest
from compat.canonical.event import fold
from compat.canonical.message import Media
from compat.canonical.request import ImageRequest
from tests.backends.contract import call
from tests.backends.hub import DRAW, HUB, JPEG, PNG, TOKEN, Hub, Make


def prompt(**fields: Any) -> ImageRequest:
    return ImageRequest(model="org/painter", prompt="a heron", **fields)


@pytest.fixture
def painter(hub: Hub) -> Hub:
    hub.serve("org/painter", "text-to-image")
    hub.answer(DRAW, JPEG, content_type="image/jpeg")
    return hub


async def test_a_prompt_becomes_pictures(make_hf: Make, painter: Hub) -> None:
    asking = call()
    extra = {"seed": 7, "quality": "high", "response_format": "url"}
    result = await fold(make_hf().run(prompt(count=2, size="640x480", extra=extra), asking))
    assert [(one.index, one.media) for one in result.produced] == [
        (n, Media(mime="image/jpeg", data=JPEG)) for n in range(2)
    ]
    assert asking.dropped == ["quality", "response_format"]
    sent = painter.asked(DRAW)
    assert len(sent) == 2
    assert sent[0].json == {"inputs": "a heron", "parameters": {"seed": 7, "width": 640, "height": 480}}
    assert sent[0].headers["accept"] == "image/png"


@pytest.mark.parametrize(
    "answer",
    [
        {"data": [{"b64_json": base64.b64encode(PNG).decode()}]},
        {"images": [{"url": "data:image/png;base64," + base64.b64encode(PNG).decode()}]},
        {"images": [{"url": "{root}/cdn/a.png"}]},
        {"output": ["{root}/cdn/a.png"]},
        {"output": "{root}/cdn/a.png"},
    ],
)
async def test_a_picture_may_come_in_many_ways(make_hf: Make, painter: Hub, answer: dict[str, Any]) -> None:
    root = painter.upstream.url.removesuffix("/v1")
    painter.answer(DRAW, json.dumps(answer).replace("{root}", root).encode())
    painter.answer("/cdn/a.png", PNG)
    result = await fold(make_hf().run(prompt(), call()))
    assert result.produced[0].media == Media(mime="image/png", data=PNG)
    for fetched in painter.asked("/cdn/a.png"):
        assert TOKEN not in fetched.head.decode()


@pytest.mark.parametrize(
    "answer",
    [
        b"<html>",
        b"{}",
        b'{"images":[]}',
        b'{"output":["http://169.254.169.254/x"]}',
        b'{"output":["file:///etc/passwd"]}',
        b'{"data":[{"b64_json":"AAAA"}]}',
    ],
)
async def test_what_is_not_a_picture_is_an_error(make_hf: Make, painter: Hub, answer: bytes) -> None:
    painter.answer(DRAW, answer)
    with pytest.raises(BadResponse):
        await fold(make_hf().run(prompt(), call()))


async def test_a_picture_is_changed(make_hf: Make, hub: Hub) -> None:
    hub.serve("org/painter", "image-to-image")
    hub.answer(DRAW, PNG)
    big = PNG + bytes(2_000_000)
    result = await fold(make_hf().run(prompt(images=(Media(mime="image/png", data=big),), size="64x32"), call()))
    assert result.produced[0].media.data == PNG
    sent = hub.asked(DRAW)[0].json
    assert base64.b64decode(sent["inputs"]) == big
    assert sent["parameters"] == {"prompt": "a heron", "target_size": {"width": 64, "height": 32}}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"mask": Media(mime="image/png", data=PNG), "images": (Media(mime="image/png", data=PNG),)}, "mask"),
        ({"images": (Media(mime="image/png", data=PNG),) * 2}, "image"),
        ({"images": (Media(mime="image/*", url="https://x/y.png"),)}, "image"),
    ],
)
async def test_an_edit_nobody_there_can_make_is_refused(
    make_hf: Make, hub: Hub, fields: dict[str, Any], param: str
) -> None:
    with pytest.raises(InvalidRequest) as refused:
        await fold(make_hf().run(prompt(**fields), call()))
    assert refused.value.param == param
    assert hub.upstream.seen == []


async def test_a_provider_that_only_queues_is_not_asked(make_hf: Make, hub: Hub) -> None:
    hub.serve("org/painter", "image-to-image", "fal-ai")
    with pytest.raises(InvalidRequest):
        await fold(make_hf().run(prompt(images=(Media(mime="image/png", data=PNG),)), call()))
    assert [x.path.partition("?")[0] for x in hub.upstream.seen] == [HUB + "org/painter"]

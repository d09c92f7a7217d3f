"""/v1/images/generations and /v1/images/edits: bytes kept both ways, forms included; pictures translated."""

import base64
import json
import time
from typing import Any

import httpx2
import openai
import pytest

from tests import wire
from tests.exchange import Exchange
from tests.gateway.conftest import APP_KEY, BODY_LIMIT
from tests.http import error_of, fetched, in_band_error, usage_row
from tests.process import Gateway
from tests.provider import Provider

GENERATIONS, EDITS = "/v1/images/generations", "/v1/images/edits"
PNG = b"\x89PNG\r\n\x1a\n\x00\xff--\r\n picture"
STREAM = wire.fixture("images.sse")


async def draw(x: Exchange, *ends: str) -> None:
    """A picture, or its stream; with an argument, that many of the stream's bytes."""
    if not x.streams:
        x.answer(wire.fixture("images.json"))
        return
    x.begin()
    body = wire.fixture("image_edits.sse" if x.path.endswith("edits") else "images.sse")
    for at in range(0, len(body), 100):
        if ends and at >= int(ends[0]):
            break
        x.send(body[at : at + 100])
    x.end()


@pytest.fixture(autouse=True)
def painter(upstream: Provider) -> None:
    upstream.scripts["draw"] = draw
    upstream.scripts["draw:500"] = draw


def picture(model: str = "up/draw", **fields: Any) -> dict[str, Any]:
    return {"model": model, "prompt": "a heron", **fields}


def test_a_request_goes_up_and_its_answer_comes_down_unchanged(client: httpx2.Client, upstream: Provider) -> None:
    asked = b'{ "prompt": "a h\\u00e9ron", "vendor": {"big": 12345678901234567890123}, "model": "up/draw", "n":1 }'
    answer = client.post(GENERATIONS, content=asked, headers={"content-type": "application/json"})
    assert answer.content == wire.fixture("images.json")
    sent = upstream.asked()
    assert sent.path == "/v1/images/generations"
    assert json.loads(sent.body) == json.loads(asked) | {"model": "draw"}
    assert b"12345678901234567890123" in sent.body


def test_a_stream_comes_down_byte_for_byte(client: httpx2.Client, upstream: Provider) -> None:
    answer = client.post(GENERATIONS, json=picture(stream=True, partial_images=2))
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.content == STREAM
    assert upstream.asked().json == picture("draw", stream=True, partial_images=2)


def test_pictures_are_metered(house: Gateway, client: httpx2.Client) -> None:
    for stream in (False, True):
        answer = client.post(GENERATIONS, json=picture(stream=stream))
        row = usage_row(house.folder, answer.headers["x-request-id"])
        assert (row["input_tokens"], row["output_tokens"]) == (50, 272)


def test_a_stream_cut_short_ends_with_an_error(client: httpx2.Client) -> None:
    answer = client.post(GENERATIONS, json=picture("once-draw:500", stream=True))
    assert answer.content.startswith(b"event: image_generation.partial_image\n")
    assert in_band_error(answer.content)["code"] == "upstream_bad_response"


def test_the_sdk_makes_pictures(sdk: openai.OpenAI) -> None:
    answer = sdk.images.generate(model="up/draw", prompt="a heron", size="1024x1024", quality="high")
    assert answer.data is not None
    assert base64.b64decode(answer.data[0].b64_json or "").startswith(b"\x89PNG")
    assert answer.usage is not None
    assert answer.usage.total_tokens == 322
    stream = sdk.images.generate(model="up/draw", prompt="a heron", stream=True, partial_images=2)
    assert [e.type for e in stream] == ["image_generation.partial_image"] * 2 + ["image_generation.completed"]


async def test_the_async_sdk_makes_and_edits_pictures(house: Gateway) -> None:
    http = httpx2.AsyncClient(verify=False, timeout=30)
    async with openai.AsyncOpenAI(base_url=f"{house.url}/v1", api_key=APP_KEY, http_client=http) as sdk:
        made = await sdk.images.generate(model="up/draw", prompt="a heron")
        edited = await sdk.images.edit(model="up/draw", prompt="a hat", image=PNG)
        assert made == edited
        stream = await sdk.images.edit(model="up/draw", prompt="a hat", image=PNG, stream=True)
        assert [e.type async for e in stream] == ["image_edit.partial_image"] * 2 + ["image_edit.completed"]


def test_the_sdks_edit_reaches_the_provider_part_by_part(sdk: openai.OpenAI, upstream: Provider) -> None:
    answer = sdk.images.edit(
        model="up/draw",
        prompt="a h\u00e9ron",
        image=[("first.png", PNG, "image/png"), ("second.webp", b"RIFF....WEBP", "image/webp")],
        mask=("mask.png", PNG[::-1], "image/png"),
        n=2,
        extra_body={"vendor_field": "kept", "svg": {"model": "s"}},
    )
    assert answer.usage is not None
    sent = upstream.asked()
    assert sent.path == "/v1/images/edits"
    files = [(p.name, p.filename, p.content_type, p.raw) for p in sent.form if p.filename]
    assert sorted(files) == [
        ("image[]", "first.png", "image/png", PNG),
        ("image[]", "second.webp", "image/webp", b"RIFF....WEBP"),
        ("mask", "mask.png", "image/png", PNG[::-1]),
    ]
    assert sent.json == {
        "prompt": "a h\u00e9ron",
        "model": "draw",
        "n": "2",
        "vendor_field": "kept",
        "svg[model]": "s",
    }


def test_a_form_goes_up_byte_for_byte_but_for_the_model(client: httpx2.Client, upstream: Provider) -> None:
    lines = [
        b"--x-Y-z",
        b'content-disposition: form-data; name="image"; filename="\xc3\xa9 a.png"',
        b"Content-Type: image/png",
        b"X-Odd: 1",
        b"",
        PNG,
        b"--x-Y-z",
        b'Content-Disposition: form-data; name="model"',
        b"",
        b"up/draw",
        b"--x-Y-z",
        b'Content-Disposition: form-data; name="prompt"',
        b"",
        b"a hat",
        b"--x-Y-z--",
        b"epilogue",
    ]
    asked = b"\r\n".join(lines)
    answer = client.post(EDITS, content=asked, headers={"content-type": 'multipart/form-data; boundary="x-Y-z"'})
    assert answer.content == wire.fixture("images.json")
    sent = upstream.asked()
    assert sent.headers["content-type"] == 'multipart/form-data; boundary="x-Y-z"'
    assert sent.body == asked.replace(b"up/draw", b"draw")


def test_an_edit_in_json_is_relayed_too(client: httpx2.Client, upstream: Provider) -> None:
    fields: dict[str, Any] = {"images": [{"file_id": "file-1"}, {"image_url": "https://x/y.png"}], "vendor": 1.5}
    assert client.post(EDITS, json=picture(**fields)).content == wire.fixture("images.json")
    assert upstream.asked().json == picture("draw", **fields)


def test_a_form_without_a_model_is_answered_by_auto(client: httpx2.Client) -> None:
    answer = client.post(EDITS, data={"prompt": "a hat"}, files={"image": ("a.png", PNG)})
    assert answer.headers["x-gateway-model"] == "fake/fake"
    assert answer.json()["data"][0]["b64_json"]


def test_a_form_on_another_route_gets_that_routes_model(client: httpx2.Client, upstream: Provider) -> None:
    upstream.scripts["answer"] = draw
    answer = client.post(EDITS, data={"prompt": "p", "model": "after-status:500"}, files={"image": ("a.png", PNG)})
    assert answer.content == wire.fixture("images.json")
    assert upstream.asked(count=2).json["model"] == "answer"


@pytest.mark.parametrize(
    ("body", "content_type", "status", "param", "code"),
    [
        (b"hello", "text/plain", 415, None, "unsupported_media_type"),
        (b"a=b", "application/x-www-form-urlencoded", 415, None, "unsupported_media_type"),
        (b"--b\r\n", "multipart/form-data", 400, None, "invalid_multipart"),
        (b"hello", "multipart/form-data; boundary=b", 400, None, "invalid_multipart"),
        (
            b'--b\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\nxyz',
            "multipart/form-data; boundary=b",
            400,
            "image",
            "invalid_multipart",
        ),
        (
            b'--b\r\nContent-Disposition: form-data; name="prompt"\r\n\r\nxyz\r\n--b--',
            "multipart/form-data; boundary=b",
            400,
            "image",
            "missing_required_parameter",
        ),
        (b'{"prompt": "p"}', "application/json", 400, "images", "missing_required_parameter"),
    ],
)
def test_a_body_that_is_no_edit_is_refused(
    client: httpx2.Client,
    upstream: Provider,
    body: bytes,
    content_type: str,
    status: int,
    param: str | None,
    code: str,
) -> None:
    answer = client.post(EDITS, content=body, headers={"content-type": content_type})
    error = error_of(answer)
    assert (answer.status_code, error["param"], error["code"]) == (status, param, code)
    assert upstream.seen == []


def test_forms_are_for_edits_only(client: httpx2.Client) -> None:
    answer = client.post(GENERATIONS, data={"prompt": "p"}, files={"image": ("a.png", PNG)})
    assert answer.status_code == 415


def test_a_form_beyond_the_body_limit_is_refused(client: httpx2.Client, upstream: Provider) -> None:
    files = {"image": ("a.png", b"x" * BODY_LIMIT)}
    answer = client.post(EDITS, data={"prompt": "p", "model": "up/draw"}, files=files)
    assert (answer.status_code, error_of(answer)["code"]) == (413, "request_too_large")
    assert upstream.seen == []


def test_a_provider_is_left_when_the_client_leaves(client: httpx2.Client, upstream: Provider) -> None:
    fields = {"prompt": "p", "model": "up/silent"}
    form: dict[str, Any] = {"data": fields, "files": {"image": ("a.png", PNG)}}
    for path, asked in ((GENERATIONS, {"json": fields}), (EDITS, form)):
        upstream.forget()
        with pytest.raises(httpx2.ReadTimeout):
            client.post(path, **asked, timeout=0.5)
        assert upstream.asked().left_within(1.0, time.monotonic())


def test_a_provider_that_refuses_the_prompt_is_quoted(client: httpx2.Client, upstream: Provider) -> None:
    async def blocked(x: Exchange) -> None:
        body = wire.error("Your request was rejected by the safety system.", "user_error", "moderation_blocked")
        x.answer(body, "400 Bad Request")

    upstream.scripts["blocked"] = blocked
    answer = client.post(GENERATIONS, json=picture("up/blocked"))
    error = error_of(answer)
    assert (answer.status_code, error["code"]) == (400, "moderation_blocked")
    assert error["message"] == "Your request was rejected by the safety system."


def test_a_page_instead_of_a_picture_is_an_error(client: httpx2.Client) -> None:
    for stream in (False, True):
        answer = client.post(GENERATIONS, json=picture("once-html", stream=stream))
        assert (answer.status_code, error_of(answer)["code"]) == (502, "upstream_bad_response")


def test_an_answer_of_megabytes_arrives_whole(client: httpx2.Client, upstream: Provider) -> None:
    big = b'{"created":1,"data":[{"b64_json":"' + base64.b64encode(bytes(3_000_000)) + b'"}]}'

    async def large(x: Exchange) -> None:
        x.answer(big)

    upstream.scripts["large"] = large
    assert client.post(GENERATIONS, json=picture("up/large")).content == big


def test_a_translated_picture_is_openais(sdk: openai.OpenAI) -> None:
    answer = sdk.images.with_raw_response.generate(
        model="fake/fake", prompt="a heron", n=2, response_format="b64_json", background="auto"
    )
    assert "x-gateway-dropped" not in answer.headers
    pictures = answer.parse().data
    assert pictures is not None
    assert [base64.b64decode(one.b64_json or "")[:4] for one in pictures] == [b"\x89PNG"] * 2
    events = list(sdk.images.generate(model="fake/fake", prompt="a heron", n=2, stream=True))
    assert [event.type for event in events] == ["image_generation.completed"] * 2
    assert [event.b64_json for event in events] == [one.b64_json for one in pictures]


def test_what_could_not_be_kept_is_named_or_refused(client: httpx2.Client) -> None:
    body = picture("fake/fake", response_format="url", style="vivid")
    answer = client.post(GENERATIONS, json=body)
    assert answer.headers["x-gateway-dropped"] == "style"
    [made] = answer.json()["data"]
    assert list(made) == ["url"], "the body is OpenAI's"
    assert fetched(made["url"]).startswith(b"\x89PNG")
    strict = client.post(GENERATIONS, json=body, headers={"x-gateway-strict": "true"})
    assert (strict.status_code, error_of(strict)["param"]) == (400, "style")


def test_text_backends_do_no_pictures(local_gateway: Gateway) -> None:
    answer = httpx2.post(
        local_gateway.url + GENERATIONS, json=picture("local/smollm2-135m-instruct"), timeout=30, verify=False
    )
    assert (answer.status_code, error_of(answer)["param"]) == (400, "model")

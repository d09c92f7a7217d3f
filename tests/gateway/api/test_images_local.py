"""Pictures by the embedded model, as an unchanged OpenAI client asks for them."""

import base64
import io
import time
from typing import Any

import httpx2
import openai
import pytest
from PIL import Image

from tests.http import error_of, fetched
from tests.process import Gateway

MODEL = "local/tiny-shapes"


@pytest.fixture(scope="module")
def client(local_gateway: Gateway) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{local_gateway.url}/v1", api_key="local", max_retries=0)


def opened(encoded: str | None) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(encoded or "")))


def disc() -> io.BytesIO:
    out = io.BytesIO()
    Image.new("RGB", (128, 64), "white").save(out, "PNG")
    out.seek(0)
    return out


def test_auto_draws(client: openai.OpenAI) -> None:
    answer = client.images.with_raw_response.generate(model="auto", prompt="a red circle on a white background")
    assert answer.headers["x-gateway-model"] == MODEL
    pictures = answer.parse().data
    assert pictures is not None
    assert opened(pictures[0].b64_json).size == (512, 512)


def test_every_word_of_a_request_counts_or_is_named(client: openai.OpenAI) -> None:
    answer = client.images.with_raw_response.generate(
        model=MODEL,
        prompt="a red circle",
        n=2,
        size="1024x1024",
        quality="high",
        style="vivid",
        background="transparent",
        output_format="webp",
        output_compression=30,
        response_format="url",
        user="somebody",
        extra_body={"seed": 5, "steps": 3, "guidance": 4.5, "negative_prompt": "blue"},
    )
    assert sorted(answer.headers["x-gateway-dropped"].split(", ")) == ["background", "quality", "style", "user"]
    made = answer.parse()
    assert made.output_format == "webp"
    assert made.data is not None
    urls = [one.url or "" for one in made.data]
    pictures = [Image.open(io.BytesIO(fetched(url))) for url in urls]
    assert [(one.format, one.size) for one in pictures] == [("WEBP", (1024, 1024))] * 2
    assert urls[0] != urls[1]


def test_a_picture_takes_shape_before_the_clients_eyes(client: openai.OpenAI) -> None:
    stream = client.images.generate(
        model=MODEL, prompt="a red circle", n=2, stream=True, partial_images=3, extra_body={"steps": 8}
    )
    assert [event.type.partition(".")[2] for event in stream] == (["partial_image"] * 3 + ["completed"]) * 2


def test_a_picture_is_changed_in_a_form_whose_numbers_are_text(client: openai.OpenAI) -> None:
    asked: dict[str, Any] = {"model": MODEL, "prompt": "a red circle", "extra_body": {"seed": 5, "steps": 3}}
    first, second = (client.images.edit(image=("a.png", disc()), **asked) for _ in range(2))
    assert first.data is not None
    assert second.data is not None
    assert first.data[0].b64_json == second.data[0].b64_json
    assert opened(first.data[0].b64_json).size == (128, 64)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"size": "1000x1001"}, "size"),
        ({"n": 11}, "n"),
        ({"output_format": "gif"}, "output_format"),
        ({"response_format": "file"}, "response_format"),
        ({"stream": True, "partial_images": 4}, "partial_images"),
        ({"extra_body": {"steps": 0}}, "steps"),
    ],
)
def test_what_cannot_be_made_is_refused_by_the_field(client: openai.OpenAI, fields: dict[str, Any], param: str) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.images.generate(model=MODEL, prompt="a red circle", **fields)
    assert refused.value.param == param


def test_a_client_that_leaves_frees_the_model_within_a_second(client: openai.OpenAI) -> None:
    quick: dict[str, Any] = {"model": MODEL, "prompt": "x", "size": "64x64", "extra_body": {"steps": 1}}
    client.images.generate(**quick)
    with pytest.raises(openai.APITimeoutError):
        client.images.generate(model=MODEL, prompt="x", n=10, extra_body={"steps": 500}, timeout=1.0)
    began = time.monotonic()
    client.images.generate(**quick)
    assert time.monotonic() - began < 1.0


def test_an_edit_in_json_names_its_own_fields(local_gateway: Gateway) -> None:
    broken = f"data:image/png;base64,{base64.b64encode(b'no picture').decode()}"
    for count, param in ((1, "images[0].image_url"), (2, "images")):
        asked: dict[str, Any] = {"model": MODEL, "prompt": "red", "images": [{"image_url": broken}] * count}
        answer = httpx2.post(f"{local_gateway.url}/v1/images/edits", json=asked, timeout=30)
        assert (answer.status_code, error_of(answer)["param"]) == (400, param), answer.text
        assert "'image'" not in error_of(answer)["message"]
    picture = f"data:image/bmp;base64,{base64.b64encode(b'BM' + bytes(2_000_001)).decode()}"
    asked = {"model": MODEL, "modality": "image", "input": {"prompt": "red", "images": [picture]}}
    answer = httpx2.post(f"{local_gateway.url}/v1/generate", json=asked, timeout=30)
    assert answer.status_code == 400, "a large one arrives as it is, and is none"
    assert str(error_of(answer)["param"]).startswith("input.images")

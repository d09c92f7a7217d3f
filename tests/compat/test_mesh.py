"""The bodies of POST /v1/3d/generations."""

import base64
import hashlib
import json
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import pytest
from msgspec.structs import replace

from compat import mesh
from compat.canonical.error import BadResponse, InvalidRequest
from compat.canonical.event import Event, Finished, Produced, Progress, Started
from compat.canonical.message import Media, Stored
from compat.canonical.request import Envelope, MeshRequest
from compat.sse import data_of, name_of, split

PNG = b"\x89PNG\r\n\x1a\n" + b"0" * 8
FACTS = mesh.Facts(vertices=4, faces=4, bounds=((-1.0, 0.0, -1.0), (1.0, 2.0, 1.0)), watertight=True)


def peeked(**fields: Any) -> Envelope:
    return mesh.peek(json.dumps(fields).encode())


def url(data: bytes, mime: str = "image/png") -> str:
    return f"data:{mime};base64,{base64.b64encode(data).decode()}"


def test_a_prompt_and_the_engines_own_parameters() -> None:
    asked = peeked(model="m", prompt="a chair", seed=7, steps=4, output_formats=["stl", "glb", "stl"], user="u")
    assert (asked.dialect, asked.model) == ("3d", "m")
    assert mesh.parse_request(asked) == MeshRequest(model="m", prompt="a chair", seed=7, user="u", extra={"steps": 4})
    assert mesh.formats(asked) == ("stl", "glb")
    assert mesh.formats(peeked(prompt="x")) == ("glb",)


def test_a_picture_is_told_by_its_bytes() -> None:
    request = mesh.parse_request(peeked(image=url(PNG, "image/webp")))
    assert request.image == Media(mime="image/png", data=PNG)
    assert mesh.parse_request(peeked(image="https://x.test/a.png")).image == Media(
        mime="image/*", url="https://x.test/a.png"
    )


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({}, "prompt", "missing_required_parameter"),
        ({"prompt": None, "image": None}, "prompt", "missing_required_parameter"),
        ({"prompt": "x", "image": url(PNG)}, "image", "invalid_value"),
        ({"prompt": 7}, "prompt", "invalid_type"),
        ({"prompt": "  "}, "prompt", "invalid_value"),
        ({"image": url(b"text")}, "image", "invalid_value"),
        ({"image": "data:image/png,raw"}, "image", "invalid_value"),
        ({"image": "/etc/passwd"}, "image", "invalid_value"),
        ({"prompt": "x", "seed": -1}, "seed", "invalid_value"),
        ({"prompt": "x", "seed": 1.5}, "seed", "invalid_type"),
        ({"prompt": "x", "output_formats": []}, "output_formats", "invalid_value"),
        ({"prompt": "x", "output_formats": ["fbx"]}, "output_formats[0]", "invalid_value"),
        ({"prompt": "x", "output_formats": "glb"}, "output_formats", "invalid_type"),
        ({"prompt": "x", "response_format": "file"}, "response_format", "invalid_value"),
        ({"prompt": "x", "api_base": "http://x"}, "api_base", "unknown_parameter"),
    ],
)
def test_a_wrong_field_is_named(fields: dict[str, Any], param: str, code: str) -> None:
    def read() -> None:
        asked = peeked(**fields)
        mesh.formats(asked)
        mesh.parse_request(asked)

    with pytest.raises(InvalidRequest) as wrong:
        read()
    assert (wrong.value.param, wrong.value.code) == (param, code)


async def told(events: Sequence[Event]) -> AsyncGenerator[Event, None]:
    for event in events:
        yield event


STARTED, END = Started(id="x", model="m", created=9), Finished(reason="stop")
FILES = (
    Produced(media=mesh.made("glb", b"glTF", FACTS, PNG)),
    Produced(media=mesh.made("obj", b"v 0 0 0", FACTS, PNG), index=1),
)


@pytest.mark.parametrize(("wanted", "field"), [(None, "url"), ("url", "url"), ("b64_json", "b64_json")])
async def test_an_answer_has_one_entry_for_each_format(wanted: str | None, field: str) -> None:
    asked = peeked(prompt="x", **({"response_format": wanted} if wanted else {}))
    events: list[Event] = [STARTED, Progress(step=1, of=2), *FILES, END]
    frames = [frame async for piece in mesh.render_events(told(events), asked) for frame in split(piece)]
    assert [name_of(frame) for frame in frames] == ["progress", "completed"]
    assert json.loads(data_of(frames[0])) == {"step": 1, "of": 2, "stage": "generating"}
    answer = json.loads(data_of(frames[1]))
    assert answer["created"] == 9
    glb, obj = answer["data"]
    plain = base64.b64encode(b"glTF").decode()
    assert glb == {
        field: plain if field == "b64_json" else f"data:model/gltf-binary;base64,{plain}",
        "format": "glb",
        "bytes": 4,
        "sha256": hashlib.sha256(b"glTF").hexdigest(),
        "mesh": {"vertices": 4, "faces": 4, "bounds": [[-1, 0, -1], [1, 2, 1]], "watertight": True},
        "poster_url": url(PNG),
    }
    assert (obj["format"], obj["bytes"]) == ("obj", 7)


async def test_a_file_that_is_kept_is_told_by_its_artifact() -> None:
    stored = Stored(
        id="art_1", url="https://g/x?s", expires_at=0.0, size_bytes=4, sha256="ab", poster_url="https://g/p?s"
    )
    glb, _ = FILES
    media = replace(glb.media, extra=glb.media.extra | {"stored": stored})
    [frame] = [f async for f in mesh.render_events(told([STARTED, Produced(media=media), END]), peeked(prompt="x"))]
    [file] = json.loads(data_of(split(frame)[0]))["data"]
    told_of = ("id", "url", "expires_at", "bytes", "sha256", "poster_url")
    assert [file[name] for name in told_of] == [
        "art_1", "https://g/x?s", "1970-01-01T00:00:00Z", 4, "ab", "https://g/p?s",
    ]  # fmt: skip


async def test_a_stream_that_ends_too_early_is_no_success() -> None:
    with pytest.raises(BadResponse):
        async for _ in mesh.render_events(told([STARTED, *FILES]), peeked(prompt="x")):
            pass

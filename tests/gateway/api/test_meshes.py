"""POST /v1/3d/generations, and meshes, pictures and embeddings by POST /v1/generate, before the fake backend."""

import base64
import hashlib
import io
import json
from datetime import UTC, datetime
from typing import Any

import httpx2
import pytest
import trimesh

from tests.http import error_of, fetched, metric, until
from tests.process import Gateway

PATH, NATIVE = "/v1/3d/generations", "/v1/generate"
EVENTS = {"accept": "text/event-stream"}


def events(answer: httpx2.Response) -> list[tuple[str, dict[str, Any]]]:
    assert answer.headers["content-type"].startswith("text/event-stream")
    found = []
    for event in answer.text.split("\n\n"):
        lines = dict(line.partition(": ")[::2] for line in event.split("\n") if ": " in line)
        if "event" in lines:
            found.append((lines["event"], json.loads(lines["data"])))
    return found


def test_a_mesh_comes_in_the_formats_that_were_asked_for(client: httpx2.Client) -> None:
    answer = client.post(PATH, json={"model": "fake/fake", "prompt": "a thing", "output_formats": ["glb", "stl"]})
    assert answer.status_code == 200
    assert answer.headers["x-gateway-model"] == "fake/fake"
    assert list(answer.json()) == ["created", "data"]
    glb, stl = answer.json()["data"]
    assert [glb["format"], stl["format"]] == ["glb", "stl"]
    for file in (glb, stl):
        assert_it_may_be_fetched_for_a_while(file)
        data = fetched(file["url"])
        assert (len(data), hashlib.sha256(data).hexdigest()) == (file["bytes"], file["sha256"])
        mesh = trimesh.load_mesh(io.BytesIO(data), file_type=file["format"])
        assert mesh.volume == pytest.approx(8 / 3)
    assert glb["mesh"] == {"vertices": 4, "faces": 4, "bounds": [[-1, 0, -1], [1, 2, 1]], "watertight": True}
    assert fetched(glb["poster_url"]).startswith(b"\x89PNG")


def test_base64_on_request(client: httpx2.Client) -> None:
    answer = client.post(PATH, json={"model": "fake/fake", "prompt": "a thing", "response_format": "b64_json"})
    [file] = answer.json()["data"]
    assert base64.b64decode(file["b64_json"]).startswith(b"glTF")
    assert not {"id", "url", "expires_at"} & {*file}, "it is kept nowhere"
    assert file["poster_url"].startswith("data:image/png;base64,")


def test_progress_is_for_those_who_say_that_they_take_it(client: httpx2.Client) -> None:
    asked = {"model": "fake/fake", "prompt": "a thing", "stream": True}
    assert client.post(PATH, json=asked).headers["content-type"] == "application/json"
    got = events(client.post(PATH, json=asked, headers=EVENTS))
    assert [name for name, _ in got] == ["progress", "progress", "progress", "completed"]
    assert [data["stage"] for _, data in got[:-1]] == ["generating", "generating", "finishing"]
    assert got[-1][1]["data"][0]["format"] == "glb"
    assert client.post(PATH, json=asked | {"stream": False}, headers=EVENTS).json()["data"]


def test_a_mesh_that_is_finished_too_late_is_504(client: httpx2.Client) -> None:
    late = client.post(PATH, json={"model": "fake/fake", "prompt": "a thing"}, headers={"x-request-timeout": "0.2"})
    assert (late.status_code, error_of(late)["code"]) == (504, "upstream_timeout")


def test_what_is_left_out_is_named_or_refused(client: httpx2.Client) -> None:
    asked = {"model": "fake/fake", "prompt": "a thing", "steps": 9}
    assert client.post(PATH, json=asked).headers["x-gateway-dropped"] == "steps"
    strict = client.post(PATH, json=asked, headers={"x-gateway-strict": "true"})
    assert (strict.status_code, error_of(strict)["param"]) == (400, "steps")


@pytest.mark.parametrize(
    ("fields", "param"),
    [({"output_formats": ["fbx"]}, "output_formats[0]"), ({"prompt": None}, "prompt"), ({"seed": "x"}, "seed")],
)
def test_a_wrong_field_is_400_and_named(client: httpx2.Client, fields: dict[str, Any], param: str) -> None:
    answer = client.post(PATH, json={"model": "fake/fake", "prompt": "a thing"} | fields)
    assert (answer.status_code, error_of(answer)["param"]) == (400, param)


def test_a_provider_of_text_makes_no_meshes(client: httpx2.Client) -> None:
    answer = client.post(PATH, json={"model": "up/answer", "prompt": "a thing"})
    assert (answer.status_code, error_of(answer)["code"]) == (400, "unsupported_value")


def test_it_is_counted_like_any_request(client: httpx2.Client, house: Gateway) -> None:
    before = metric(house.url, "pluggably_attempts_total", backend="fake", outcome="ok")
    client.post(PATH, json={"model": "fake/fake", "prompt": "a thing"}).raise_for_status()
    until(lambda: metric(house.url, "pluggably_attempts_total", backend="fake", outcome="ok") == before + 1)


def assert_it_may_be_fetched_for_a_while(file: dict[str, Any]) -> None:
    assert file["id"].startswith("art_")
    assert f"/v1/artifacts/{file['id']}/content?" in file["url"]
    left = datetime.fromisoformat(file["expires_at"]) - datetime.now(UTC)
    assert 800 < left.total_seconds() <= 901


def native(**fields: Any) -> dict[str, Any]:
    return {"model": "fake/fake", "input": {"prompt": "a thing"}, **fields}


def test_a_native_mesh_is_an_artifact(client: httpx2.Client) -> None:
    asked = native(modality="3d", parameters={"seed": 1, "output_formats": ["ply", "glb"]})
    answer = client.post(NATIVE, json=asked).json()
    assert answer["modality"] == "3d"
    assert answer["output"]["text"] == ""
    ply, glb = answer["output"]["artifacts"]
    assert (ply["mime"], glb["mime"]) == ("model/ply", "model/gltf-binary")
    data = fetched(glb["url"])
    assert_it_may_be_fetched_for_a_while(glb)
    assert (glb["bytes"], glb["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())
    assert glb["mesh"]["faces"] == 4
    assert fetched(glb["poster_url"]).startswith(b"\x89PNG")


def test_a_native_mesh_streams_progress_artifact_and_all(client: httpx2.Client) -> None:
    asked = native(modality="3d", stream=True)
    assert client.post(NATIVE, json=asked).json()["object"] == "generation"
    got = events(client.post(NATIVE, json=asked, headers=EVENTS))
    names = [name for name, _ in got]
    assert names == ["generation.started", "progress", "progress", "progress", "artifact", "generation.completed"]
    assert got[-1][1]["output"]["artifacts"] == [got[-2][1]]


def test_native_pictures_are_artifacts(client: httpx2.Client) -> None:
    answer = client.post(NATIVE, json=native(modality="image", parameters={"n": 2, "seed": 3})).json()
    assert answer["modality"] == "image"
    assert [one["mime"] for one in answer["output"]["artifacts"]] == ["image/png"] * 2
    for one in answer["output"]["artifacts"]:
        assert "mesh" not in one
        assert_it_may_be_fetched_for_a_while(one)
        data = fetched(one["url"])
        assert data.startswith(b"\x89PNG")
        assert (one["bytes"], one["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())


def test_a_native_embedding_is_one_list(client: httpx2.Client) -> None:
    answer = client.post(NATIVE, json=native(modality="embedding", parameters={"dimensions": 3})).json()
    assert len(answer["output"]["embedding"]) == 3
    assert (answer["modality"], answer["usage"]["output_tokens"]) == ("embedding", None)


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"modality": "3d", "parameters": {"temperature": 1}}, "parameters.temperature", "unknown_parameter"),
        ({"modality": "image", "parameters": {"resolution": 9}}, "parameters.resolution", "unknown_parameter"),
        ({"parameters": {"steps": 9}}, "parameters.steps", "unknown_parameter"),
        ({"modality": "image", "parameters": {"n": 99}}, "parameters.n", "invalid_value"),
        ({"modality": "3d", "parameters": {"seed": -1}}, "parameters.seed", "invalid_value"),
        ({"modality": "3d", "parameters": {"output_formats": []}}, "parameters.output_formats", "invalid_value"),
        ({"modality": "3d", "input": {"images": ["data:image/png;base64,AAAA"]}}, "input.images[0]", "invalid_value"),
        ({"modality": "3d", "input": {"prompt": "x", "images": ["https://x.test/a"]}}, "input.images", "invalid_value"),
        ({"modality": "3d", "input": {"messages": [{"role": "user", "content": "x"}]}}, "input.messages", None),
        ({"modality": "embedding", "input": {"prompt": "x", "images": ["https://x.test/a"]}}, "input.images", None),
        ({"input": {"images": ["https://x.test/a.png"]}}, "input.prompt", "missing_required_parameter"),
    ],
)
def test_a_wrong_native_field_is_400_and_named(
    client: httpx2.Client, fields: dict[str, Any], param: str, code: str | None
) -> None:
    answer = client.post(NATIVE, json=native() | fields)
    error = error_of(answer)
    assert (answer.status_code, error["param"]) == (400, param)
    assert error["code"] == (code or "invalid_value")

"""POST /v1/generate, field by field: what may be said, and what every answer has, for every modality."""

import json
import re
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import httpx2
import pytest

from tests.gateway.conftest import config, speaking
from tests.http import error_of
from tests.process import Gateway, gateway
from tests.provider import Provider

PATH = "/v1/generate"
EVENTS = {"accept": "text/event-stream"}
EXAMPLE: dict[str, Any] = {
    "model": "smart",
    "provider": None,
    "modality": None,
    "input": {"prompt": "A hat", "messages": [], "images": []},
    "parameters": {},
    "stream": False,
    "session_id": None,
    "state": {},
    "selection_mode": "auto",
}
"""Every field there is."""
FIELDS = [
    "id", "object", "created_at", "model", "backend", "modality", "output", "finish_reason", "usage", "selection",
    "session_id", "state", "timing",
]  # fmt: skip
MODALITIES = ("text", "image", "3d", "embedding")
PARAMETERS: dict[str, dict[str, Any]] = {
    "text": {"temperature": 0.2, "max_tokens": 200, "top_p": 1, "stop": ["."], "seed": 1},
    "image": {"n": 2, "size": "64x64", "seed": 1, "quality": "high"},
    "3d": {"output_formats": ["glb", "stl"], "seed": 1},
    "embedding": {"dimensions": 4},
}
BETWEEN = {
    "text": {"text.delta"},
    "image": {"artifact"},
    "3d": {"progress", "artifact"},
    "embedding": set[str](),
}
"""The events between the first and the last."""
_time = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z").fullmatch


@pytest.fixture(scope="module")
def running(running_provider: Provider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    tree = config(running_provider.url)
    tree["models"] |= {"smart": {"routes": ["fake/fake"]}, "breaking": {"routes": ["up/tear"], "retries": 0}}
    with gateway(tmp_path_factory.mktemp("contract"), tree) as found:
        yield found


@pytest.fixture
def anybody(running: Gateway, upstream: Provider) -> Iterator[httpx2.Client]:
    with speaking(running) as http:
        yield http


def events(answer: httpx2.Response) -> list[tuple[str, dict[str, Any]]]:
    assert answer.headers["content-type"].startswith("text/event-stream")
    found = []
    for event in answer.text.split("\n\n"):
        lines = dict(line.partition(": ")[::2] for line in event.split("\n") if ": " in line)
        if "event" in lines:
            found.append((lines["event"], json.loads(lines["data"])))
    return found


def check(answer: dict[str, Any], modality: str) -> None:
    """Every field is there, in its order, and of its kind."""
    assert list(answer) == FIELDS
    assert re.fullmatch(r"gen_[0-9a-f]+", answer["id"])
    assert (answer["object"], answer["model"], answer["backend"]) == ("generation", "fake", "fake")
    assert _time(answer["created_at"])
    assert answer["modality"] == modality
    assert answer["finish_reason"] == "stop"
    assert list(answer["usage"]) == ["input_tokens", "output_tokens", "cached_tokens", "reasoning_tokens"]
    assert all(n is None or isinstance(n, int) for n in answer["usage"].values())
    assert list(answer["selection"]) == ["requested", "reason", "fallback", "attempts"]
    assert (answer["selection"]["requested"], answer["selection"]["attempts"]) == ("smart", 1)
    assert answer["selection"]["reason"]
    assert answer["selection"]["fallback"] is False
    assert (answer["session_id"], answer["state"]) == (None, {"k": [1, None]})
    assert list(answer["timing"]) == ["queue_s", "load_s", "first_token_s", "total_s"]
    assert all(isinstance(s, int | float) and s >= 0 for s in answer["timing"].values())
    output = answer["output"]
    assert bool(output["text"]) == (modality == "text")
    assert len(output["artifacts"]) == {"text": 0, "image": 2, "3d": 2, "embedding": 0}[modality]
    assert (output["embedding"] is not None) == (modality == "embedding")
    for artifact in output["artifacts"]:
        assert {"id", "url", "expires_at", "mime", "bytes", "sha256"} <= {*artifact}
        assert re.fullmatch(r"art_[0-9a-f]+", artifact["id"])
        assert artifact["url"].startswith("http")
        assert _time(artifact["expires_at"])
        assert datetime.fromisoformat(artifact["expires_at"]) > datetime.fromisoformat(answer["created_at"])
        assert artifact["mime"].partition("/")[0] == {"image": "image", "3d": "model"}[modality]
        assert artifact["bytes"] > 0
        assert re.fullmatch(r"[0-9a-f]{64}", artifact["sha256"])
        if modality == "3d":
            assert {"vertices", "faces", "bounds", "watertight"} == {*artifact["mesh"]}
            assert artifact["poster_url"].startswith("http")


@pytest.mark.parametrize("modality", MODALITIES)
@pytest.mark.parametrize(("stream", "accepts"), [(False, False), (True, False), (True, True), (False, True)])
def test_every_modality_answers_in_the_same_fields(
    anybody: httpx2.Client, modality: str, stream: bool, accepts: bool
) -> None:
    asked = EXAMPLE | {"modality": modality, "parameters": PARAMETERS[modality], "stream": stream}
    answer = anybody.post(PATH, json=asked | {"state": {"k": [1, None]}}, headers=EVENTS if accepts else {})
    assert answer.status_code == 200, answer.text
    if not stream or (modality != "text" and not accepts):
        assert answer.headers["content-type"] == "application/json"
        check(answer.json(), modality)
        return
    (first, begun), *between, (last, whole) = events(answer)
    assert (first, last) == ("generation.started", "generation.completed")
    assert list(begun) == ["id", "object", "model", "backend"]
    assert begun.items() <= whole.items()
    assert {name for name, _ in between} == BETWEEN[modality]
    check(whole, modality)
    assert "".join(data["delta"] for name, data in between if name == "text.delta") == whole["output"]["text"]
    assert [data for name, data in between if name == "artifact"] == whole["output"]["artifacts"]
    assert all(list(data) == ["step", "of", "stage"] for name, data in between if name == "progress")


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"model": None, "provider": "fake"},
        {"model": "fake", "provider": "fake"},
        {"model": "fake/fake"},
        {"model": None},
        {"input": {"messages": [{"role": "user", "content": "x"}]}},
        {"input": {"prompt": None, "messages": [{"role": "user", "content": "x"}], "images": None}},
        {"input": {"prompt": "x", "messages": None, "images": None}},
        {"modality": "3D"},
        {"parameters": None},
        {"parameters": {"temperature": None, "stop": None, "output_formats": None}},
        {"stream": None},
        {"state": None},
        {"selection_mode": None},
        {"selection_mode": "free_only"},
    ],
    ids=str,
)
def test_every_way_to_say_it_is_taken(anybody: httpx2.Client, change: dict[str, Any]) -> None:
    answer = anybody.post(PATH, json=EXAMPLE | change)
    assert answer.status_code == 200, answer.text
    assert list(answer.json()) == FIELDS
    if change.get("state", {}) is None:
        assert answer.json()["state"] == {}


@pytest.mark.parametrize("field", [name for name in EXAMPLE if name != "input"])
def test_all_but_the_input_may_be_left_out(anybody: httpx2.Client, field: str) -> None:
    asked = {name: value for name, value in EXAMPLE.items() if name != field}
    assert anybody.post(PATH, json=asked).status_code == 200


def test_only_the_input_is_required(anybody: httpx2.Client) -> None:
    assert anybody.post(PATH, json={"input": {"prompt": "x"}}).json()["selection"]["requested"] == "auto"
    answer = anybody.post(PATH, json={name: value for name, value in EXAMPLE.items() if name != "input"})
    assert (answer.status_code, error_of(answer)["param"]) == (400, "input")


@pytest.mark.parametrize("mode", ["local_only", "commercial_only"])
def test_a_selection_that_leaves_no_route_is_told(anybody: httpx2.Client, mode: str) -> None:
    answer = anybody.post(PATH, json=EXAMPLE | {"selection_mode": mode})
    assert (answer.status_code, error_of(answer)["param"]) == (400, "selection_mode")


def test_an_error_in_a_stream_is_its_last_event(anybody: httpx2.Client) -> None:
    got = events(anybody.post(PATH, json=EXAMPLE | {"model": "breaking", "stream": True}))
    assert [name for name, _ in got if name != "text.delta"] == ["generation.started", "error"]
    assert set(got[-1][1]["error"]) == {"message", "type", "param", "code"}

"""What requests name instead of holding it, and what they carry along: pictures, artifacts, state, long texts."""

import asyncio
import base64
import hashlib
import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import pytest

from backends.fake import _picture
from tests.claude import Claude, fixture, frames, tell
from tests.exchange import Exchange
from tests.gateway.conftest import config, speaking
from tests.http import error_of, fetched
from tests.process import Gateway, gateway
from tests.provider import Provider

PATH = "/v1/generate"
EVENTS = {"accept": "text/event-stream"}
PNG = _picture("a hat")
DATA_URL = f"data:image/png;base64,{base64.b64encode(PNG).decode()}"
CLAUDE = "claude/claude-opus-4-6"
LONG = 64
"""Bytes of what is a long text there."""


@pytest.fixture(scope="module")
def running(
    running_provider: Provider, running_anthropic: Claude, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    tree = config(running_provider.url)
    tree["backends"] |= {
        "claude": {"kind": "anthropic", "base_url": running_anthropic.url, "api_key": "k"},
        "wordy": {"kind": "fake", "words": ["A long text, ", "and it goes on. "] * 8},
    }
    origin = running_provider.url.removesuffix("/v1")
    tree["fetch"] = {"allow": [f"{origin}/pictures"], "count_max": 3, "timeout_s": 5}
    tree["artifacts"] = {"text_bytes": LONG}
    tree["auth"] = {
        "mode": "api_key",
        "keys": [
            {"name": name, "key": f"{name}-key-canary-11", "tenant": name, "scopes": ["inference", "sessions"]}
            for name in ("acme", "rival")
        ],
    }
    with gateway(tmp_path_factory.mktemp("inputs"), tree) as found:
        yield found


@pytest.fixture
def acme(running: Gateway, upstream: Provider, anthropics: Claude) -> Iterator[httpx2.Client]:
    with speaking(running, {"authorization": "Bearer acme-key-canary-11"}) as http:
        yield http


@pytest.fixture
def rival(running: Gateway, upstream: Provider) -> Iterator[httpx2.Client]:
    with speaking(running, {"authorization": "Bearer rival-key-canary-11"}) as http:
        yield http


async def show(exchange: Exchange) -> None:
    exchange.answer(PNG, content_type="image/png")


@pytest.fixture
def picture(upstream: Provider) -> str:
    upstream.scripts["/pictures/hat.png"] = show
    return f"{upstream.url.removesuffix('/v1')}/pictures/hat.png"


def shown(upstream: Provider) -> list[str]:
    """The pictures that were fetched."""
    return [x.path for x in upstream.seen if x.path.startswith("/pictures")]


def events(answer: httpx2.Response) -> list[tuple[str, dict[str, Any]]]:
    found = []
    for event in answer.text.split("\n\n"):
        lines = dict(line.partition(": ")[::2] for line in event.split("\n") if ": " in line)
        if "event" in lines:
            found.append((lines["event"], json.loads(lines["data"])))
    return found


def made(client: httpx2.Client, modality: str = "image") -> dict[str, Any]:
    asked = {"model": "fake/fake", "modality": modality, "input": {"prompt": "a hat"}}
    answer = client.post(PATH, json=asked)
    assert answer.status_code == 200, answer.text
    artifact: dict[str, Any] = answer.json()["output"]["artifacts"][0]
    return artifact


def seen(upstream: Provider) -> list[str]:
    """The pictures that the provider was sent, by their URLs."""
    content = upstream.asked("messages").json["messages"][-1]["content"]
    return [part["image_url"]["url"] for part in content if part["type"] == "image_url"]


# --- pictures by URL


def test_a_picture_by_url_reaches_a_provider_as_its_bytes(
    acme: httpx2.Client, upstream: Provider, picture: str
) -> None:
    named = {"type": "image_url", "image_url": {"url": picture, "detail": "low"}}
    for given in (
        {"prompt": "What is it?", "images": [picture, DATA_URL, picture]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "What is it?"}, named]}]},
        {"messages": [{"role": "user", "content": "What is it?"}], "images": [picture]},
        # A name is spelled in many ways in JSON.
        json.loads('{"prompt": "x", "im\\u0061ges": ["PICTURE"]}'.replace("PICTURE", picture)),
    ):
        upstream.seen.clear()
        answer = acme.post(PATH, json={"model": "up/answer", "input": given})
        assert answer.status_code == 200, answer.text
        assert set(seen(upstream)) == {DATA_URL}
        assert shown(upstream) == ["/pictures/hat.png"], "once, however often it is named"


@pytest.mark.parametrize(
    ("path", "asked"),
    [
        (PATH, {"modality": "image", "input": {"prompt": "red", "images": ["PICTURE"]}}),
        (PATH, {"modality": "3d", "input": {"images": ["PICTURE"]}}),
        ("/v1/3d/generations", {"image": "PICTURE"}),
        ("/v1/images/edits", {"prompt": "red", "images": [{"image_url": "PICTURE"}], "mask": {"image_url": "PICTURE"}}),
    ],
    ids=["image", "3d", "meshes", "edits"],
)
def test_every_kind_of_work_takes_one(
    acme: httpx2.Client, upstream: Provider, picture: str, path: str, asked: dict[str, Any]
) -> None:
    asked = json.loads(json.dumps({"model": "fake/fake", **asked}).replace("PICTURE", picture))
    answer = acme.post(path, json=asked)
    assert answer.status_code == 200, answer.text
    assert shown(upstream) == ["/pictures/hat.png"]
    wrong = json.loads(json.dumps(asked).replace("hat.png", "none.png"))
    answer = acme.post(path, json=wrong)
    assert (answer.status_code, error_of(answer)["code"]) == (400, "invalid_image_url")
    assert error_of(answer)["param"] in ("input.images[0]", "image", "images[0].image_url")


def test_a_provider_of_ones_own_dialect_fetches_by_itself(acme: httpx2.Client, upstream: Provider) -> None:
    there = "https://169.254.169.254/a.png"
    content = [{"type": "image_url", "image_url": {"url": there}}]
    acme.post("/v1/chat/completions", json={"model": "up/answer", "messages": [{"role": "user", "content": content}]})
    assert seen(upstream) == [there], "untouched"


@pytest.mark.parametrize(
    ("given", "param"),
    [
        ({"prompt": "x", "images": ["https://127.0.0.1/a.png"]}, "input.images[0]"),
        ({"prompt": "x", "images": [DATA_URL, "http://169.254.169.254/latest"]}, "input.images[1]"),
        ({"prompt": "x", "images": ["PICTURE/../../admin"]}, "input.images[0]"),
        ({"prompt": "x", "images": ["a.png"]}, "input.images[0]"),
        ({"prompt": "x", "images": [""]}, "input.images[0]"),
        ({"prompt": "x", "images": [f"PICTURE?{n}" for n in range(4)]}, "input.images[3]"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "file:///etc/passwd"}]}]},
            "input.messages[0].content[0].image_url",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://[::1]/"}}]}]},
            "input.messages[0].content[0].image_url.url",
        ),
    ],
)  # fmt: skip
def test_what_is_not_fetched_is_400_and_named(
    acme: httpx2.Client, upstream: Provider, picture: str, given: dict[str, Any], param: str
) -> None:
    given = json.loads(json.dumps(given).replace("PICTURE", picture))
    for stream in (False, True):
        answer = acme.post(PATH, json={"model": "up/answer", "input": given, "stream": stream})
        assert answer.status_code == 400, answer.text
        assert (error_of(answer)["param"], error_of(answer)["code"]) == (param, "invalid_image_url")
    assert not [x for x in upstream.seen if x.path.endswith("completions")]


def test_nothing_is_fetched_for_what_is_wrong_anyhow(acme: httpx2.Client, upstream: Provider, picture: str) -> None:
    for asked in (
        {"modality": "3d", "input": {"prompt": "x", "images": [picture]}},
        {"modality": "3d", "input": {"images": [picture, DATA_URL]}},
        {"modality": "embedding", "input": {"prompt": "x", "images": [picture]}},
        {"modality": "image", "input": {"images": [picture]}},
        {"input": {"messages": [{"role": "wizard", "content": "x"}], "images": [picture]}},
    ):
        assert acme.post(PATH, json={"model": "fake/fake", **asked}).status_code == 400
    assert shown(upstream) == []


def test_who_leaves_while_it_is_fetched_ends_the_fetching(
    running: Gateway, acme: httpx2.Client, upstream: Provider
) -> None:
    async def never(_: Exchange) -> None:
        await asyncio.Event().wait()

    upstream.scripts["/pictures/slow.png"] = never
    there = f"{upstream.url.removesuffix('/v1')}/pictures/slow.png"
    with pytest.raises(httpx2.TimeoutException):
        acme.post(PATH, json={"model": "up/answer", "input": {"prompt": "x", "images": [there]}}, timeout=0.5)
    left = time.monotonic()
    fetching = next(x for x in upstream.seen if x.path == "/pictures/slow.png")
    assert fetching.over.wait(2)
    assert fetching.left_at is not None
    assert fetching.left_at - left < 1


# --- artifacts


def test_a_picture_that_was_made_here_is_named_by_its_id_or_its_url(acme: httpx2.Client, upstream: Provider) -> None:
    artifact = made(acme)
    for name in (artifact["id"], artifact["url"]):
        upstream.seen.clear()
        given = {"prompt": "What is it?", "images": [name]}
        answer = acme.post(PATH, json={"model": "up/answer", "input": given})
        assert answer.status_code == 200, answer.text
        [url] = seen(upstream)
        data = base64.b64decode(url.removeprefix("data:image/png;base64,"))
        assert hashlib.sha256(data).hexdigest() == artifact["sha256"]


def test_an_artifact_may_be_changed_and_made_a_mesh(acme: httpx2.Client) -> None:
    artifact = made(acme)
    for path, asked in (
        (PATH, {"modality": "image", "input": {"prompt": "red", "images": [artifact["id"]]}}),
        (PATH, {"modality": "3d", "input": {"images": [artifact["id"]]}}),
        ("/v1/3d/generations", {"image": artifact["id"]}),
        ("/v1/images/edits", {"prompt": "red", "images": [{"image_url": artifact["id"]}]}),
    ):
        answer = acme.post(path, json={"model": "fake/fake", **asked})
        assert answer.status_code == 200, answer.text


def test_somebody_elses_artifact_is_as_absent_as_none(acme: httpx2.Client, rival: httpx2.Client) -> None:
    artifact = made(acme)
    absent = artifact["id"][:-4] + "0000"
    told = []
    for name in (artifact["id"], absent):
        answer = rival.post(PATH, json={"model": "fake/fake", "input": {"prompt": "x", "images": [name]}})
        assert (answer.status_code, error_of(answer)["param"]) == (404, "input.images[0]")
        told.append(answer.content)
    assert told[0] == told[1]
    url = artifact["url"]
    for name in (url, url.partition("?")[0], url.replace("http", "HTTP", 1) + "#there"):
        answer = rival.post(PATH, json={"model": "fake/fake", "input": {"prompt": "x", "images": [name]}})
        assert (answer.status_code, error_of(answer)["code"]) == (404, "artifact_not_found"), "it is not fetched"
        assert answer.content == told[0]


def test_a_request_names_so_many_pictures(acme: httpx2.Client) -> None:
    id_ = made(acme)["id"]
    for count, status in ((64, 200), (65, 400)):
        asked = {"model": "fake/fake", "input": {"prompt": "x", "images": [id_] * count}}
        answer = acme.post(PATH, json=asked)
        assert answer.status_code == status, answer.text
    assert error_of(answer)["param"] == "input.images[64]"


def test_who_has_no_time_for_the_fetching_is_told_so(acme: httpx2.Client, upstream: Provider) -> None:
    async def never(_: Exchange) -> None:
        await asyncio.Event().wait()

    upstream.scripts["/pictures/slow.png"] = never
    there = f"{upstream.url.removesuffix('/v1')}/pictures/slow.png"
    asked = {"model": "fake/fake", "input": {"prompt": "x", "images": [there]}}
    answer = acme.post(PATH, json=asked, headers={"x-request-timeout": "0.3"})
    assert answer.status_code == 504, answer.text


def test_a_mesh_is_no_picture(acme: httpx2.Client) -> None:
    answer = acme.post(PATH, json={"model": "fake/fake", "input": {"prompt": "x", "images": [made(acme, "3d")["id"]]}})
    assert (answer.status_code, error_of(answer)["param"]) == (400, "input.images[0]")
    assert error_of(answer)["code"] == "invalid_value"


# --- state


def contained(id_: str = "container_01", minutes: float = 20) -> dict[str, Any]:
    return {"id": id_, "expires_at": (datetime.now(UTC) + timedelta(minutes=minutes)).isoformat()}


@pytest.mark.parametrize("stream", [False, True])
def test_what_a_provider_gives_comes_back_and_goes_to_it_again(
    acme: httpx2.Client, anthropics: Claude, stream: bool
) -> None:
    given = contained()

    async def run_code(exchange: Exchange) -> None:
        if exchange.streams:
            said = json.dumps(given).encode()
            await tell(
                exchange,
                [
                    f.replace(b'"container":null},"usage"', b'"container":%s},"usage"' % said)
                    for f in frames("text.sse")
                ],
            )
        else:
            exchange.answer(json.dumps(json.loads(fixture("text.json")) | {"container": given}).encode())

    anthropics.scripts["claude-opus-4-6"] = run_code

    def ask(state: dict[str, Any] | None) -> dict[str, Any]:
        asked = {"model": CLAUDE, "input": {"prompt": "x"}, "state": state, "stream": stream}
        answer = acme.post(PATH, json=asked, headers={"x-gateway-strict": "true"})
        assert answer.status_code == 200, answer.text
        assert "x-gateway-dropped" not in answer.headers
        whole: dict[str, Any] = events(answer)[-1][1] if stream else answer.json()
        return whole

    first = ask({"mine": [1, {"a": None}], "prompt_cache_key": "k"})
    assert first["state"] == {"mine": [1, {"a": None}], "prompt_cache_key": "k", "container": given}
    assert not {"mine", "container", "prompt_cache_key", "state"} & {*anthropics.asked().json}
    given = contained("container_02")
    second = ask(first["state"])
    sent = anthropics.asked(count=2).json
    assert sent["container"] == "container_01"
    assert not {"mine", "prompt_cache_key", "state"} & {*sent}
    assert second["state"] == first["state"] | {"container": given}, "the provider's own is the newer one"
    for state, goes in (
        ({"container": "container_03"}, "container_03"),
        ({"container": contained(minutes=-1)}, None),
        ({"container": {"id": "c", "skills": [{"type": "anthropic", "skill_id": "pptx"}]}}, "with skills"),
        ({"container": None}, None),
        (None, None),
    ):
        anthropics.seen.clear()
        ask(state)
        went = anthropics.asked().json.get("container")
        if goes == "with skills":
            assert went == state["container"] if state else False
        else:
            assert went == goes


def test_openais_tokens_are_fields_of_its_own(acme: httpx2.Client, upstream: Provider) -> None:
    state = {"prompt_cache_key": "key-1", "safety_identifier": "u-1", "container": "c", "x": 1}
    answer = acme.post(PATH, json={"model": "up/answer", "input": {"prompt": "x"}, "state": state})
    sent = upstream.asked().json
    assert (sent["prompt_cache_key"], sent["safety_identifier"]) == ("key-1", "u-1")
    assert not {"container", "x", "state"} & {*sent}
    assert answer.json()["state"] == state
    assert "x-gateway-dropped" not in answer.headers


@pytest.mark.parametrize(
    ("model", "state", "param"),
    [
        ("up/answer", {"prompt_cache_key": 1}, "state.prompt_cache_key"),
        (CLAUDE, {"container": 1}, "state.container"),
        (CLAUDE, {"container": {"name": "x"}}, "state.container"),
        ("fake/fake", [], "state"),
    ],
)
def test_a_token_of_another_kind_is_400(acme: httpx2.Client, model: str, state: Any, param: str) -> None:
    answer = acme.post(PATH, json={"model": model, "input": {"prompt": "x"}, "state": state})
    assert (answer.status_code, error_of(answer)["param"]) == (400, param)


def test_who_has_no_such_token_is_not_sent_it(acme: httpx2.Client) -> None:
    state = {"prompt_cache_key": 1, "container": 1}
    for modality in ("text", "image", "3d", "embedding"):
        asked = {"model": "fake/fake", "modality": modality, "input": {"prompt": "x"}, "state": state}
        answer = acme.post(PATH, json=asked, headers={"x-gateway-strict": "true"})
        assert answer.status_code == 200, answer.text
        assert answer.json()["state"] == state


# --- long texts


@pytest.mark.parametrize("stream", [False, True])
def test_a_long_text_is_an_artifact_as_well(acme: httpx2.Client, stream: bool) -> None:
    answer = acme.post(PATH, json={"model": "wordy/fake", "input": {"prompt": "x"}, "stream": stream})
    whole = events(answer)[-1][1] if stream else answer.json()
    text = whole["output"]["text"]
    assert text == "A long text, and it goes on. " * 8
    [artifact] = whole["output"]["artifacts"]
    assert artifact["id"].startswith("art_")
    assert artifact["mime"] == "text/plain; charset=utf-8"
    assert (artifact["bytes"], artifact["sha256"]) == (len(text), hashlib.sha256(text.encode()).hexdigest())
    assert fetched(artifact["url"]).decode() == text
    if stream:
        names = [name for name, _ in events(answer)]
        assert names[-2:] == ["artifact", "generation.completed"]


def test_a_short_one_is_not(acme: httpx2.Client) -> None:
    assert acme.post(PATH, json={"model": "fake/fake", "input": {"prompt": "x"}}).json()["output"]["artifacts"] == []


def test_in_a_session_all_of_it_is_the_same(acme: httpx2.Client, upstream: Provider, picture: str) -> None:
    session = acme.post("/v1/sessions", json={}).json()["id"]
    turn = f"/v1/sessions/{session}/generate"
    asked = {"model": "up/answer", "input": {"prompt": "What is it?", "images": [picture]}, "state": {"mine": 1}}
    answer = acme.post(turn, json=asked)
    assert answer.status_code == 200, answer.text
    assert seen(upstream) == [DATA_URL]
    assert answer.json()["state"] == {"mine": 1}
    answer = acme.post(turn, json={"model": "wordy/fake", "input": {"prompt": "Go on."}})
    assert answer.json()["state"] == {"mine": 1}, "a session remembers it"
    assert [one["mime"] for one in answer.json()["output"]["artifacts"]] == ["text/plain; charset=utf-8"]
    answer = acme.post(turn, json={"model": "fake/fake", "input": {"prompt": "x", "images": ["https://127.0.0.1/"]}})
    assert (answer.status_code, error_of(answer)["param"]) == (400, "input.images[0]")

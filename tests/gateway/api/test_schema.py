"""GET /v1/schema: what it says of a parameter is what a real request for it meets with."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import httpx2
import pytest

from gateway.api.spelling import nodes, plain
from gateway.schema.bodies import BODIES, Body, word
from gateway.schema.carriage import asking
from tests.claude import Claude
from tests.exchange import Exchange
from tests.gateway.conftest import config, speaking
from tests.process import Gateway, gateway
from tests.provider import Provider

PNG = b"\x89PNG\r\n\x1a\n picture"
NARROW_KEY, WIDE_KEY = "schema-narrow-canary-19", "schema-wide-canary-20"
AUTH = {
    "mode": "api_key",
    "keys": [
        {"name": "wide", "key": WIDE_KEY, "scopes": ["inference", "models:read"]},
        {"name": "narrow", "key": NARROW_KEY, "scopes": ["models:read"], "models": ["up/*"], "tenant": "acme"},
    ],
}

Json = dict[str, Any]


@pytest.fixture(scope="module")
def running(
    running_provider: Provider, running_anthropic: Claude, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    url = running_provider.url
    tree = config(url) | {"auth": AUTH}
    tree["backends"] |= {
        "claude": {"kind": "anthropic", "base_url": running_anthropic.url, "api_key": "k"},
        "groq": {"kind": "openai", "preset": "groq", "base_url": url, "api_key": "k"},
        "hf": {"kind": "huggingface", "base_url": url, "api_key": "k"},
        "drawing": {"kind": "huggingface", "base_url": url, "api_key": "k", "provider": "hf-inference"},
    }
    tree["models"] |= {
        "smart": {"routes": ["claude/claude-opus-4-6", "up/answer"]},
        "auto": {"routes": {"text": ["fake/fake"], "image": ["drawing/org/painter"]}},
    }
    with gateway(tmp_path_factory.mktemp("schema"), tree) as house:
        yield house


@pytest.fixture
def http(running: Gateway, upstream: Provider, anthropics: Claude) -> Iterator[httpx2.Client]:
    with speaking(running, {"authorization": f"Bearer {WIDE_KEY}"}) as client:
        yield client


@pytest.fixture
def narrow(running: Gateway) -> Iterator[httpx2.Client]:
    with speaking(running, {"authorization": f"Bearer {NARROW_KEY}"}) as client:
        yield client


def schema(client: httpx2.Client, **query: str) -> Json:
    answer = client.get("/v1/schema", params=query)
    assert answer.status_code == 200, answer.text
    found: Json = answer.json()
    return found


def parameter(found: Json, name: str, path: str) -> Json:
    (one,) = [p for p in found["parameters"] if p["name"] == name and path in p["endpoints"]]
    return dict(one)


def body_of(path: str, modality: str) -> Body:
    return next(body for body in BODIES if body.path == path and body.modality == modality)


def values(one: Json) -> list[Any]:
    said = [*one["examples"], *one.get("enum", ()), one.get("maximum")]
    return [v for v in said if v is not None and not (isinstance(v, (int, float)) and v > 1000)]


def proved(
    client: httpx2.Client, model: str, body: Body, more: Json | None = None, *, quick: bool = False
) -> list[str]:
    """Send a real request for each value of each parameter and hold what it meets with against the schema.

    quick: for each parameter one, and not strictly.
    """
    more = more or {}
    found = schema(client, model=model, endpoint=body.path, modality=body.modality)
    (route,) = found["routes"]

    def sent(asked: Json, **headers: str) -> tuple[int, set[str], Json]:
        answer = client.post(body.path, json={**more, **asked, "model": model}, headers=headers)
        dropped = answer.headers.get("x-gateway-dropped", "")
        said = answer.json() if answer.headers["content-type"].startswith("application/json") else {}
        return answer.status_code, set(filter(None, dropped.split(", "))), said

    tried = []
    for one in found["parameters"]:
        name, about = one["name"], word(body, one["name"])
        if about.by == "gateway":
            continue
        base = sent({**body.start, **about.beside})[1] if about.beside else set()
        loss = one.get("not_carried", {}).get(route["name"])
        for value in values(one)[: 1 if quick else None]:
            asked = asking(body, name, value)
            status, dropped, said = sent(asked)
            case = (body.path, name, value, status, dropped, said, loss)
            if loss is None or value not in loss.get("values", [value]):
                assert one["carried"][route["name"]] is not False, case
                assert status == 200, case
                assert dropped <= base, case
            elif loss["outcome"] == "refused":  # some of it is refused before any route is asked, in other words
                assert 400 <= status < 500, case
                assert (said["error"].get("param") or name).startswith(name.partition(".")[0]), case
            else:
                assert status == 200, case
                assert loss["named"] in dropped, case
                strictly = None if quick else sent(asked, **{"x-gateway-strict": "true"})[0]
                assert quick or strictly == (400 if loss["strict"] == "refused" or base else 200), case
            tried.append(name)
    return tried


@pytest.mark.parametrize("path", ["chat/completions", "completions", "responses", "messages", "generate"])
def test_what_a_route_to_claude_carries_is_what_it_carries(http: httpx2.Client, path: str) -> None:
    assert len(proved(http, "claude/claude-opus-4-6:text", body_of(f"/v1/{path}", "text"))) > 8


@pytest.mark.parametrize("backend", ["up", "groq"])
@pytest.mark.parametrize("path", ["chat/completions", "responses", "messages", "generate"])
def test_what_a_route_to_an_openai_like_provider_carries(http: httpx2.Client, backend: str, path: str) -> None:
    assert len(proved(http, f"{backend}/answer", body_of(f"/v1/{path}", "text"))) > 8


@pytest.mark.parametrize("path", ["chat/completions", "responses", "messages"])
def test_what_a_route_to_hugging_face_carries(http: httpx2.Client, path: str) -> None:
    assert len(proved(http, "hf/answer", body_of(f"/v1/{path}", "text"))) > 8


@pytest.mark.parametrize("path", ["images/generations", "images/edits", "generate"])
def test_what_pictures_by_hugging_face_are_told(http: httpx2.Client, upstream: Provider, path: str) -> None:
    async def drawn(x: Exchange) -> None:
        x.answer(PNG, **{"content-type": "image/png"})

    upstream.scripts["/hf-inference/models/org/painter"] = drawn
    assert len(proved(http, "drawing/org/painter", body_of(f"/v1/{path}", "image"))) > 8


@pytest.mark.parametrize("path", ["chat/completions", "completions"])
def test_what_a_local_model_of_text_is_told(local_gateway: Gateway, path: str) -> None:
    body = body_of(f"/v1/{path}", "text")
    with speaking(local_gateway) as client:
        assert len(proved(client, "local/smollm2-135m-instruct", body, {"max_tokens": 1}, quick=True)) > 8


@pytest.mark.parametrize("path", ["images/generations", "images/edits"])
def test_what_a_local_model_of_pictures_is_told(local_gateway: Gateway, path: str) -> None:
    with speaking(local_gateway) as client:
        small = {"size": "64x64", "steps": 1}
        assert len(proved(client, "local/tiny-shapes", body_of(f"/v1/{path}", "image"), small, quick=True)) > 8


@pytest.mark.parametrize("path", ["embeddings", "rerank"])
def test_what_a_local_model_of_vectors_is_told(local_gateway: Gateway, path: str) -> None:
    body = body_of(f"/v1/{path}", "embedding" if path == "embeddings" else "rerank")
    with speaking(local_gateway) as client:
        assert proved(client, "local/all-minilm-l6-v2", body)


def test_tools_of_a_model_that_knows_none_are_emulated(local_gateway: Gateway) -> None:
    with speaking(local_gateway) as client:
        found = schema(client, model="local/smollm2-135m-instruct")
    for path in ("/v1/chat/completions", "/v1/messages", "/v1/responses"):
        assert set(parameter(found, "tools", path)["carried"].values()) == {"emulated"}


def _refused_beyond(client: httpx2.Client, text: Json, names: tuple[str, ...]) -> None:
    """A whole number a little beyond what the schema says, and one that is none, are told of by name."""
    asked = {"model": "local/smollm2-135m-instruct", "messages": [{"role": "user", "content": "x"}], "max_tokens": 1}
    for name in names:
        one = parameter(text, name, "/v1/chat/completions")
        assert one["type"] == "integer", name
        for value in (one["maximum"] + 1, one["minimum"] - 1, 1.5, 10**400):
            answer = client.post("/v1/chat/completions", json=asked | {name: value})
            assert (answer.status_code, answer.json()["error"]["param"]) == (400, name), (name, value, answer.text)
    assert client.post(
        "/v1/chat/completions", json=asked | {"n": parameter(text, "n", "/v1/chat/completions")["maximum"]}
    ).is_success


def test_limits_and_defaults_are_the_models_own(local_gateway: Gateway) -> None:
    with speaking(local_gateway) as client:
        text = schema(client, model="local/smollm2-135m-instruct")
        tokens = parameter(text, "max_tokens", "/v1/chat/completions")
        # What is too long is cut off, not refused: the route says how long its context is.
        assert tokens["maximum"] > text["routes"][0]["context_length"] > 0
        _refused_beyond(client, text, ("n", "seed", "max_completion_tokens", "repeat_last_n", "mirostat"))
        assert parameter(text, "temperature", "/v1/chat/completions")["default"] == 0.2
        picture = schema(client, model="local/tiny-shapes")
        size = parameter(picture, "size", "/v1/images/generations")
        assert size["default"] == "512x512"
        beyond = f"{size['side_maximum'] + size['side_multiple_of']}x64"
        asked = {"model": "local/tiny-shapes", "prompt": "a disc", "size": beyond}
        assert client.post("/v1/images/generations", json=asked).status_code == 400
        vectors = schema(client, model="local/all-minilm-l6-v2")
        width = parameter(vectors, "dimensions", "/v1/embeddings")["maximum"]
        made = client.post("/v1/embeddings", json={"model": "local/all-minilm-l6-v2", "input": "x"}).json()
        assert len(made["data"][0]["embedding"]) == width


def as_documented(parameter: dict[str, Any]) -> dict[str, Any]:
    """The document says the same in the words that generators know."""
    written = deepcopy(parameter)
    for node in nodes(written):
        plain(node)
    return written


def test_the_document_says_the_same_parameter_by_parameter(http: httpx2.Client) -> None:
    known = http.get("/openapi.json").json()["components"]["schemas"]
    found = schema(http)
    for path, endpoint in found["endpoints"].items():
        whole = known[endpoint["body"]["$ref"].rpartition("/")[2]]
        assert endpoint["required"] == whole["required"], path
        properties = dict(whole["properties"])
        if path == "/v1/generate":
            for part in ("input", "parameters"):
                inner = known[f"Generate{part.title()}"]["properties"]
                properties |= {f"{part}.{name}": one for name, one in inner.items()}
                del properties[part]
        assert set(endpoint["parameters"]) == set(properties), path
        for name in endpoint["parameters"]:
            one, said = parameter(found, name, path), properties[name]
            for key in ("minimum", "maximum", "description", "default", "items"):
                told = one if "anyOf" in one else as_documented(one)
                assert told.get(key) == said.get(key), (path, name, key)
            assert one["examples"] == said.get("examples", [])
            words = next((kind["enum"] for kind in (said, *said.get("anyOf", ())) if "enum" in kind), None)
            assert one.get("enum") == (words and [w for w in words if w is not None])
            types = [one["type"]] if isinstance(one["type"], str) else one["type"]
            assert all(kind in json.dumps(said) or kind in ("string", "object") for kind in types)


def test_it_can_be_narrowed(http: httpx2.Client) -> None:
    found = schema(http, endpoint="/v1/embeddings")
    assert list(found["endpoints"]) == ["/v1/embeddings"]
    assert all(p["endpoints"] == ["/v1/embeddings"] for p in found["parameters"])
    pictures = schema(http, modality="image")
    assert set(pictures["endpoints"]) == {"/v1/images/generations", "/v1/images/edits", "/v1/generate"}
    assert "parameters.temperature" not in pictures["endpoints"]["/v1/generate"]["parameters"]
    assert {one["modality"] for one in pictures["guidance"]} == {"image"}


def test_auto_is_described_by_what_it_makes(http: httpx2.Client) -> None:
    assert [one["name"] for one in schema(http, model="auto")["routes"]] == ["fake/fake", "drawing/org/painter"]
    found = schema(http, model="auto", modality="image")
    assert [one["name"] for one in found["routes"]] == ["drawing/org/painter"]
    assert "/v1/chat/completions" not in found["endpoints"]


def test_a_configured_name_tells_its_routes_apart(http: httpx2.Client) -> None:
    seed = parameter(schema(http, model="smart"), "seed", "/v1/chat/completions")
    assert seed["carried"] == {"claude/claude-opus-4-6": False, "up/answer": True}


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ({"modality": "smell"}, "modality"),
        ({"endpoint": "/v1/nowhere"}, "endpoint"),
        ({"version": "abc"}, "version"),
        ({"model": ""}, "model"),
        ({"model": "a\u0000b"}, "model"),
        ({"model": "x" * 301}, "model"),
    ],
)
def test_what_cannot_be_asked_is_named(http: httpx2.Client, query: dict[str, str], param: str) -> None:
    answer = http.get("/v1/schema", params=query)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


def test_an_unknown_model_is_unknown_here_as_elsewhere(http: httpx2.Client) -> None:
    answer, chat = (
        http.get("/v1/schema", params={"model": "no-such-model"}),
        http.post(
            "/v1/chat/completions", json={"model": "no-such-model", "messages": [{"role": "user", "content": "x"}]}
        ),
    )
    assert (answer.status_code, answer.json()) == (404, chat.json())


def test_a_key_is_told_of_what_it_may_use_only(narrow: httpx2.Client, http: httpx2.Client) -> None:
    assert narrow.get("/v1/schema", params={"model": "claude/claude-opus-4-6"}).status_code == 403
    found = narrow.get("/v1/schema", params={"model": "smart"})
    assert [one["name"] for one in found.json()["routes"]] == ["up/answer"]
    assert "claude" not in found.text
    whole = schema(http, model="smart")["version"]
    assert kept(http, "smart", whole)
    assert narrow.get("/v1/schema", params={"model": "smart", "version": whole}).status_code == 404
    models = [one["model"] for one in schema(narrow)["guidance"]]
    assert all(model is None or model.startswith("up/") for model in models)


def test_who_has_it_already_is_told_so(http: httpx2.Client) -> None:
    for query in ({}, {"model": "smart"}):
        first = http.get("/v1/schema", params=query)
        again = http.get("/v1/schema", params=query, headers={"if-none-match": first.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        other = http.get("/v1/schema", params=query, headers={"if-none-match": '"something-else"'})
        assert other.status_code == 200


def kept(client: httpx2.Client, model: str, version: str) -> Json:
    """A version that is kept; it is written behind the answer."""
    end = time.monotonic() + 5
    while True:
        answer = client.get("/v1/schema", params={"model": model, "version": version})
        if answer.status_code == 200 or time.monotonic() > end:
            assert answer.status_code == 200, answer.text
            found: Json = answer.json()
            return found
        time.sleep(0.02)


def test_an_old_version_can_be_had_after_a_change(
    running_provider: Provider, upstream: Provider, tmp_path: Path
) -> None:
    tree = config(running_provider.url)
    tree["models"] = {"mine": {"routes": ["up/answer"]}}
    with gateway(tmp_path, tree) as house, speaking(house) as client:
        old = schema(client, model="mine")
        assert schema(client, model="mine")["version"] == old["version"]
        kept(client, "mine", old["version"])
    tree["models"] = {"mine": {"routes": [{"to": "up/answer", "context_length": 1000}]}}
    with gateway(tmp_path, tree) as house, speaking(house) as client:
        new = schema(client, model="mine")
        assert new["version"] != old["version"]
        assert new["routes"][0]["context_length"] == 1000
        was = kept(client, "mine", old["version"])
        assert was["since"].endswith("Z")
        for key in ("version", "parameters", "endpoints", "model"):
            assert was[key] == old[key]
        absent = client.get("/v1/schema", params={"model": "mine", "version": "0" * 16})
        assert absent.status_code == 404
        assert old["version"] in absent.json()["error"]["message"]


def test_advice_is_of_models_that_there_are(local_gateway: Gateway) -> None:
    with speaking(local_gateway) as client:
        ids = {one["id"] for one in client.get("/v1/models").json()["data"]}
        advice = schema(client)["guidance"]
    assert {one["modality"] for one in advice} == {"text", "embedding", "rerank", "image", "3d"}
    for one in advice:
        assert one["model"] is None or one["model"] in ids
        assert one["why"]
    cheapest = {one["modality"]: one["model"] for one in advice if one["criterion"] == "cheapest"}
    assert cheapest["image"] == "local/tiny-shapes"
    assert any(one["model"] is None for one in advice)


def test_the_example_builds_a_form(running: Gateway, upstream: Provider) -> None:
    done = subprocess.run(
        [sys.executable, "examples/schema.py", "--model", "up/answer", "--set", "temperature=0.5", "--set", "top_p="],
        env={"PATH": "/usr/bin", "PLUGGABLY_URL": running.url, "PLUGGABLY_KEY": WIDE_KEY},
        input="",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "temperature" in done.stdout
    assert upstream.asked("0.5")

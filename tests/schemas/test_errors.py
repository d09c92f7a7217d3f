"""Errors of both dialects, on every endpoint and from every layer: the door, the parser, routing, the provider."""

from typing import Any

import pytest

from tests.schemas.conftest import BODY_LIMIT, READER
from tests.schemas.held import Held, Json

HELLO = [{"role": "user", "content": "Say hello."}]
OPENAI: dict[str, Json] = {
    "/v1/chat/completions": {"messages": HELLO},
    "/v1/completions": {"prompt": "Say hello."},
    "/v1/embeddings": {"input": "one"},
    "/v1/images/generations": {"prompt": "a heron"},
    "/v1/responses": {"input": "Say hello."},
}
ANTHROPIC: dict[str, Json] = {
    "/v1/messages": {"messages": HELLO, "max_tokens": 9},
    "/v1/messages/count_tokens": {"messages": HELLO},
}
PATHS = [*OPENAI, *ANTHROPIC]
JSON = {"content-type": "application/json"}
WRONG: dict[str, Json] = {
    "nothing": {"model": "auto", **dict.fromkeys(("messages", "prompt", "input"))},
    "model": {"model": 5},
    "stream": {"stream": "yes"},
    "a credential": {"api_base": "http://elsewhere"},
}
FAILING = {
    "once-status:429": 429,
    "once-status:500": 502,
    "once-status:503": 503,
    "once-status:401": 502,
    "once-quota": 503,
    "once-context": 400,
    "once-html": 502,
    "once-error_in_200": 502,
    "once-reset": 502,
    "claude-429": 429,
    "claude-400": 400,
    "claude-529": 503,
    "dead": 502,
    "slow": 504,
}
"""Model → the status that its failure comes as."""


@pytest.fixture
def by_path(openai: Held, anthropic: Held) -> dict[str, tuple[Held, Json]]:
    """Path → who asks there, and what."""
    asked = {path: (openai, {"model": "auto"} | body) for path, body in OPENAI.items()}
    return asked | {path: (anthropic, {"model": "auto"} | body) for path, body in ANTHROPIC.items()}


By = dict[str, tuple[Held, Json]]


@pytest.mark.parametrize(("path", "what"), [
    (path, what) for path in PATHS for what in WRONG if (path, what) != ("/v1/embeddings", "stream")
])  # fmt: skip
def test_a_wrong_request(by_path: By, path: str, what: str) -> None:
    held, body = by_path[path]
    held.refused(400, "POST", path, json=body | WRONG[what])


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "body", [b"{", b"", b"[]", b'"\xff"', b"[" * 200], ids=["cut", "empty", "list", "bytes", "deep"]
)
def test_a_body_that_is_no_request(by_path: By, path: str, body: bytes) -> None:
    by_path[path][0].refused(400, "POST", path, content=body, headers=JSON)


@pytest.mark.parametrize("path", PATHS)
def test_what_the_door_turns_away(by_path: By, path: str) -> None:
    held, body = by_path[path]
    held.refused(401, "POST", path, json=body, headers={"authorization": "Bearer wrong"})
    held.refused(403, "POST", path, json=body, headers={"authorization": f"Bearer {READER}"})
    held.refused(404, "POST", path, json=body | {"model": "nobody/knows"})
    held.refused(405, "PATCH", path)
    held.refused(413, "POST", path, json=body | {"user": "x" * BODY_LIMIT})
    held.refused(415, "POST", path, content=b"hello", headers={"content-type": "text/plain"})
    held.refused(404, "POST", path + "/nowhere/at/all", json=body)


@pytest.mark.parametrize("path", PATHS[:-1])
@pytest.mark.parametrize("model", FAILING)
def test_a_provider_that_fails(by_path: By, path: str, model: str) -> None:
    held, body = by_path[path]
    foreign = model.startswith("claude-") and path in ("/v1/embeddings", "/v1/images/generations")
    status = 400 if foreign else FAILING[model]  # Anthropic has neither
    held.refused(status, "POST", path, json=body | {"model": model})
    if path != "/v1/embeddings":
        held.refused(status, "POST", path, json=body | {"model": model, "stream": True})


@pytest.mark.parametrize("model", ["once-error_event:2", "once-cut:2", "stalling"])
@pytest.mark.parametrize("operation", ["/chat/completions", "/v1/messages"])
def test_a_stream_that_breaks(openai: Held, anthropic: Held, operation: str, model: str) -> None:
    held = anthropic if operation == "/v1/messages" else openai
    body: Any = {"model": model, "messages": HELLO, "max_tokens": 9, "stream": True}
    events = held.stream(operation, json=body)
    assert "error" in events[-1]
    assert "error" not in events[-2]


def test_edited_images(openai: Held) -> None:
    path, form = "/v1/images/edits", {"model": "up/play:images", "prompt": "a hat"}
    image = {"image": ("a.png", b"\x89PNG\r\n\x1a\n", "image/png")}
    openai.refused(400, "POST", path, json={})
    openai.refused(400, "POST", path, data={"model": "up/play:images"}, files=image)
    openai.refused(404, "POST", path, data=form | {"model": "nobody/knows"}, files=image)
    openai.refused(401, "POST", path, data=form, files=image, headers={"authorization": "Bearer wrong"})
    openai.refused(429, "POST", path, data=form | {"model": "once-status:429"}, files=image)
    openai.refused(400, "POST", path, data=form | {"model": "claude/claude-opus-4-6:text"}, files=image)


@pytest.mark.parametrize("part", ["", "/input_items", "/cancel"])
def test_a_response_that_is_not_there(openai: Held, part: str) -> None:
    method = "POST" if part == "/cancel" else "GET"
    openai.refused(404, method, f"/v1/responses/resp_none{part}")
    openai.refused(405, "PUT", f"/v1/responses/resp_none{part}")
    if not part:
        openai.refused(404, "DELETE", "/v1/responses/resp_none")


def test_a_turn_before_that_is_not_there(openai: Held) -> None:
    asked = {"model": "auto", "input": "x", "previous_response_id": "resp_none"}
    openai.refused(400, "POST", "/v1/responses", json=asked)


def test_models(openai: Held, anthropic: Held) -> None:
    openai.refused(404, "GET", "/v1/models/nobody")
    openai.refused(401, "GET", "/v1/models", headers={"authorization": "Bearer wrong"})
    openai.refused(405, "PUT", "/v1/models")
    version = {"anthropic-version": "2023-06-01"}
    anthropic.refused(404, "GET", "/v1/models/nobody", headers=version)
    anthropic.refused(400, "GET", "/v1/models?limit=none", headers=version)
    anthropic.refused(401, "GET", "/v1/models", headers=version | {"authorization": "Bearer wrong"})


def test_paths_that_are_not_there(openai: Held) -> None:
    for path in ("/", "/v1", "/v1/nowhere", "/v2/chat/completions"):
        openai.refused(404, "POST", path, json={})

"""GET /v1/models to Anthropic's clients, who name a version of its API."""

from collections.abc import Iterator
from typing import Any

import anthropic
import httpx2
import pytest

from tests.gateway.conftest import APP_KEY
from tests.http import error_of
from tests.process import Gateway

VERSION = {"anthropic-version": "2023-06-01", "x-api-key": APP_KEY}


@pytest.fixture
def claudes_client(house: Gateway, sdk_http: httpx2.Client) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=house.url, api_key=APP_KEY, max_retries=0, http_client=sdk_http)


@pytest.fixture
def raw(house: Gateway) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=house.url, headers=VERSION, timeout=30, verify=False) as http:
        yield http


def test_the_sdk_turns_the_pages(claudes_client: anthropic.Anthropic, client: httpx2.Client) -> None:
    ids = [model["id"] for model in client.get("/v1/models").json()["data"]]
    assert len(ids) > 4
    assert [model.id for model in claudes_client.models.list(limit=2)] == ids
    first = claudes_client.models.list(limit=3)
    assert [model.id for model in first.data] == ids[:3]
    assert first.has_more
    assert (first.first_id, first.last_id) == (ids[0], ids[2])
    back = claudes_client.models.list(limit=2, before_id=ids[3])
    assert [model.id for model in back] == [*ids[1:3], ids[0]], "page by page, each in its own order"
    assert claudes_client.models.list(after_id=ids[-1]).data == []


async def test_the_async_sdk_turns_them_too(house: Gateway) -> None:
    async with (
        httpx2.AsyncClient(verify=False, timeout=30) as http,
        anthropic.AsyncAnthropic(base_url=house.url, api_key=APP_KEY, max_retries=0, http_client=http) as client,
    ):
        ids = [model.id async for model in client.models.list(limit=2)]
    assert {"auto", "up/answer", "fake/fake"} <= set(ids)
    assert len(ids) == len(set(ids))


def test_a_model_is_retrieved(claudes_client: anthropic.Anthropic) -> None:
    for id_, name in (("up/answer", "answer"), ("auto", "auto")):
        model = claudes_client.models.retrieve(id_)
        assert (model.id, model.type, model.display_name, model.lifecycle) == (id_, "model", name, "active")
        assert model.created_at.tzinfo is not None
        assert claudes_client.beta.models.retrieve(id_).id == id_
    assert model._request_id


def test_a_model_that_is_not_there_is_not_found(claudes_client: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.NotFoundError) as caught:
        claudes_client.models.retrieve("up/nothing")
    assert caught.value.type == "not_found_error"
    assert caught.value.request_id


@pytest.mark.parametrize(
    ("path", "headers", "status", "kind"),
    [
        ("/v1/models?limit=0", {}, 400, "invalid_request_error"),
        ("/v1/models?limit=" + "9" * 5000, {}, 400, "invalid_request_error"),
        ("/v1/models?after_id=gone", {}, 400, "invalid_request_error"),
        ("/v1/models/nothing", {}, 404, "not_found_error"),
        ("/v1/models", {"x-api-key": "wrong"}, 401, "authentication_error"),
        ("/v1/files", {}, 404, "not_found_error"),
    ],
)
def test_errors_are_in_the_clients_shape(
    raw: httpx2.Client, path: str, headers: dict[str, str], status: int, kind: str
) -> None:
    answer = raw.get(path, headers=headers)
    body: dict[str, Any] = answer.json()
    assert (answer.status_code, set(body), body["error"]["type"]) == (status, {"type", "error", "request_id"}, kind)
    assert body["type"] == "error"
    assert body["request_id"] == answer.headers["request-id"] == answer.headers["x-request-id"]


def test_others_see_openais_list_and_errors(client: httpx2.Client) -> None:
    answer = client.get("/v1/models?limit=1")
    assert answer.json()["object"] == "list"
    assert "request-id" not in answer.headers
    assert error_of(client.get("/v1/models/nothing"))["code"] == "model_not_found"


def test_a_chat_is_a_chat_whatever_version_is_named(raw: httpx2.Client) -> None:
    body = {"model": "fake/fake", "messages": [{"role": "user", "content": "x"}]}
    assert raw.post("/v1/chat/completions", json=body).json()["object"] == "chat.completion"
    assert error_of(raw.post("/v1/chat/completions", json={}))["code"] == "missing_required_parameter"

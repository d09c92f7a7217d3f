"""GET /v1/models and /v1/models/{id}."""

import httpx2
import pytest

from tests import wire
from tests.gateway.conftest import ADMIN_KEY, APP_KEY, speaking
from tests.http import CHAT, chat, error_of, raw_answer
from tests.process import Gateway

FIELDS = {
    "id", "object", "created", "owned_by", "backend", "modality", "capabilities", "context_length", "status",
    "size_bytes", "quantization", "source", "license", "version", "parameters", "memory_bytes", "gated", "price",
    "aliases", "tags", "summary",
}  # fmt: skip


def test_the_list_is_openais_with_more_fields(client: httpx2.Client) -> None:
    answer = client.get("/v1/models").json()
    assert set(answer) == {"object", "data", "next_cursor"}
    assert answer["object"] == "list"
    ids = [model["id"] for model in answer["data"]]
    assert len(ids) == len(set(ids))
    assert {"auto", "up/answer", f"up/{wire.MODEL}", "fake/fake"} <= set(ids)
    assert not [id_ for id_ in ids if "*" in id_], "a pattern is no model"
    for model in answer["data"]:
        assert set(model) >= FIELDS
        assert model["object"] == "model"


def test_a_backend_that_is_down_does_not_empty_the_list(client: httpx2.Client) -> None:
    """The backend `dead` cannot be asked."""
    assert client.get("/v1/models").status_code == 200


def test_filters_narrow_the_list(client: httpx2.Client) -> None:
    by_backend = client.get("/v1/models", params={"backend": "fake"}).json()["data"]
    assert {model["backend"] for model in by_backend} == {"fake"}
    assert client.get("/v1/models", params={"modality": "text"}).json()["data"]
    assert client.get("/v1/models", params={"modality": "3d"}).json()["data"] == []
    assert client.get("/v1/models", params={"status": "missing", "backend": "up"}).json()["data"] == []


@pytest.mark.parametrize(
    ("name", "given", "valid"),
    [("modality", "banana", "rerank"), ("status", "bogus", "downloading"), ("backend", "nobody", "slow")],
)
def test_a_filter_that_nothing_can_fit_is_refused_with_what_there_is(
    client: httpx2.Client, name: str, given: str, valid: str
) -> None:
    answer = client.get("/v1/models", params={name: given})
    error = error_of(answer)
    assert (answer.status_code, error["param"], error["code"]) == (400, name, "invalid_value")
    assert valid in error["message"]
    assert client.get("/v1/models", params={"nonsense": "1"}).status_code == 200, "as with OpenAI"


def test_a_providers_model_can_be_removed_and_brought_back(house: Gateway, client: httpx2.Client) -> None:
    id_ = f"up/{wire.MODEL}"

    def ids() -> set[str]:
        return {model["id"] for model in client.get("/v1/models").json()["data"]}

    def asked(name: str) -> int:
        return client.post(CHAT, json=chat(name)).status_code

    with speaking(house, {"x-api-key": ADMIN_KEY}) as root:
        refused = root.delete(f"/v1/models/{id_}", params={"foo": "1"})
        assert (refused.status_code, error_of(refused)["param"]) == (400, "foo")
        assert id_ in ids()
        for _ in range(2):
            assert root.delete(f"/v1/models/{id_}").json()["deleted"] is True
            assert id_ not in ids()
            assert [asked(id_), asked(wire.MODEL), client.get(f"/v1/models/{id_}").status_code] == [404] * 3
        assert root.post("/v1/models", json={"id": id_}).status_code == 201
        assert id_ in ids()
        assert asked(id_) == 200


def test_a_configured_name_has_no_aliases_of_its_routes(house: Gateway, client: httpx2.Client) -> None:
    with speaking(house, {"x-api-key": ADMIN_KEY}) as root:
        assert root.patch("/v1/models/up/answer", json={"aliases": ["replied"]}).status_code == 200
        listed = {model["id"]: model["aliases"] for model in client.get("/v1/models").json()["data"]}
        assert [id_ for id_, aliases in listed.items() if "replied" in aliases] == ["up/answer"]
        root.delete("/v1/models/up/answer")
        root.post("/v1/models", json={"id": "up/answer"})


@pytest.mark.parametrize("path", ["up/answer", "up%2Fanswer", "auto"])
def test_a_model_is_got_by_its_id_plain_or_encoded(house: Gateway, path: str) -> None:
    request = f"GET /v1/models/{path} HTTP/1.1\r\nhost: localhost\r\nx-api-key: {APP_KEY}\r\n\r\n"
    status, body = raw_answer(house.port, request.encode())
    assert status == 200
    assert b'"id":"' + path.replace("%2F", "/").encode() + b'"' in body.replace(b'": ', b'":')


@pytest.mark.parametrize("path", ["nothing", "up/nothing", "a" * 500, "%00", "..%2F..%2Fetc"])
def test_an_unknown_id_is_404(client: httpx2.Client, path: str) -> None:
    answer = client.get(f"/v1/models/{path}")
    assert answer.status_code == 404
    error = error_of(answer)
    assert (error["code"], error["param"]) == ("model_not_found", None)


def test_a_bare_name_finds_the_backend_that_lists_it(client: httpx2.Client) -> None:
    answer = client.post(
        "/v1/chat/completions", json={"model": wire.MODEL, "messages": [{"role": "user", "content": "x"}]}
    )
    assert answer.status_code == 200
    assert answer.headers["x-gateway-model"] == f"up/{wire.MODEL}"

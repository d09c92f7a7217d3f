"""The front door: foreign hosts and origins, giant headers."""

import json

import httpx2
import pytest

from tests.gateway.conftest import APP_KEY
from tests.http import CHAT, chat, error_of, post, raw_answer, shaped
from tests.process import Gateway

BODY = json.dumps(chat("fake/fake")).encode()
JSON = "content-type: application/json"


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:80", "", "a b", "[::1"]
)
def test_a_foreign_host_is_refused_where_no_key_is_needed(open_house: Gateway, host: str) -> None:
    status, body = raw_answer(open_house.port, post(CHAT, BODY, JSON, host=host))
    assert status == 403
    assert shaped(json.loads(body))["code"] == "host_not_allowed"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "LOCALHOST:8080", "[::1]:8080", "127.0.0.1:1"])
def test_loopback_goes_by_all_its_names(open_house: Gateway, host: str) -> None:
    status, _ = raw_answer(open_house.port, post(CHAT, BODY, JSON, host=host))
    assert status == 200


def test_with_keys_any_host_name_will_do(house: Gateway) -> None:
    status, _ = raw_answer(house.port, post(CHAT, BODY, JSON, f"authorization: Bearer {APP_KEY}", host="gw.example"))
    assert status == 200


def test_two_hosts_are_refused(open_house: Gateway) -> None:
    status, body = raw_answer(open_house.port, post(CHAT, BODY, JSON, "host: evil.example"))
    assert status == 400
    shaped(json.loads(body))


@pytest.mark.parametrize("header", ["x-big: " + "x" * 40_000, "\r\n".join(f"x-{n}: {'y' * 80}" for n in range(500))])
def test_giant_headers_are_431(house: Gateway, header: str) -> None:
    status, body = raw_answer(house.port, post(CHAT, BODY, JSON, header))
    assert status == 431
    assert shaped(json.loads(body))["code"] == "headers_too_large"


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://localhost:1", "http://[", "http://]"])
def test_a_foreign_page_cannot_post(open_client: httpx2.Client, origin: str) -> None:
    for path in (CHAT, "/v1/generate"):
        answer = open_client.post(path, json=chat("fake/fake"), headers={"origin": origin})
        assert answer.status_code == 403
        assert error_of(answer)["code"] == "origin_not_allowed"
        assert "access-control-allow-origin" not in answer.headers


def test_the_gateways_own_page_can_post(open_client: httpx2.Client, open_house: Gateway) -> None:
    assert open_client.post(CHAT, json=chat("fake/fake"), headers={"origin": open_house.url}).status_code == 200


def test_every_answer_has_a_request_id(anonymous: httpx2.Client) -> None:
    ids = {anonymous.get(path).headers["x-request-id"] for path in ("/health", "/nothing", "/v1/models", "/docs")}
    assert len(ids) == 4
    assert all(id_.startswith("req_") for id_ in ids)


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/messages/count_tokens", "/v1/messages/nothing"])
def test_anthropics_clients_find_the_id_of_what_the_door_refused(anonymous: httpx2.Client, path: str) -> None:
    refusals = [
        anonymous.post(path, json={}, headers={"origin": "https://evil.example"}),
        anonymous.post(path, json={}, headers={"x-big": "x" * 40_000}),
        anonymous.post(path, json={}),
    ]
    assert [answer.status_code for answer in refusals] in ([403, 431, 401], [403, 431, 404])
    for answer in refusals:
        assert answer.headers.get_list("request-id") == [answer.headers["x-request-id"]]
        assert answer.json()["request_id"] == answer.headers["request-id"]
    assert "request-id" not in anonymous.post(CHAT, json={}, headers={"origin": "https://evil.example"}).headers


def test_forwarded_headers_of_a_client_are_not_believed(open_client: httpx2.Client) -> None:
    forged = {"x-forwarded-host": "evil.example", "x-forwarded-for": "10.0.0.1", "x-forwarded-proto": "https"}
    assert open_client.post(CHAT, json=chat("fake/fake"), headers=forged).status_code == 200

"""Keys over HTTP: given out, used by unchanged clients, changed, rotated, revoked; and who did what."""

import base64
import json
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest

from tests.gateway.conftest import ADMIN_KEY, APP_KEY, AUTH, config, speaking
from tests.http import CHAT, chat, error_of, post, raw_answer, until
from tests.process import Gateway, gateway
from tests.provider import Provider

_USUAL = ["inference", "models:read"]
KEYS, AUDIT = "/v1/keys", "/v1/audit"
PRELUDE = "import gateway.app, gateway.auth.issued as issued; gateway.app.RELOAD_S = 0.05; issued.FLUSH_S = 0.05"


@pytest.fixture(scope="module")
def issuing(running_provider: Provider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    tree = config(running_provider.url) | {"auth": AUTH, "limits": {"keys": {"app": {"concurrent": 50}}}}
    with gateway(tmp_path_factory.mktemp("issuing"), tree, prelude=PRELUDE) as running:
        yield running


@pytest.fixture(scope="module")
def admin(issuing: Gateway) -> Iterator[httpx2.Client]:
    with speaking(issuing, {"authorization": f"Bearer {ADMIN_KEY}"}) as http:
        yield http


@pytest.fixture(scope="module")
def nobody(issuing: Gateway) -> Iterator[httpx2.Client]:
    with speaking(issuing) as http:
        yield http


def created(admin: httpx2.Client, **fields: Any) -> dict[str, Any]:
    answer = admin.post(KEYS, json={"name": "app", **fields})
    assert answer.status_code == 201, answer.text
    body: dict[str, Any] = answer.json()
    return body


def bearer(key: dict[str, Any] | str) -> dict[str, str]:
    return {"authorization": f"Bearer {key if isinstance(key, str) else key['key']}"}


def status(nobody: httpx2.Client, key: dict[str, Any] | str, model: str = "fake/fake") -> int:
    return nobody.post(CHAT, json=chat(model), headers=bearer(key)).status_code


def soon(seconds: float) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()


def test_a_new_key_is_shown_once_and_works_at_once(
    admin: httpx2.Client, issuing: Gateway, nobody: httpx2.Client, sdk_http: httpx2.Client
) -> None:
    key = created(admin, name="My app", tags={"team": "search"}, limits={"requests_per_minute": 500})
    text = key.pop("key")
    assert text.startswith(f"sk-gw-{key['prefix']}_")
    assert set(key) == {
        "id", "object", "source", "name", "prefix", "tenant", "owner", "scopes", "models", "backends", "tags",
        "limits", "status", "created_at", "created_by", "expires_at", "revoked_at", "last_used_at", "rotated",
    }  # fmt: skip
    assert (key["object"], key["source"], key["status"]) == ("api_key", "issued", "active")
    assert (key["name"], key["owner"], key["tenant"], key["scopes"]) == ("My app", "My app", "default", _USUAL)
    assert (key["tags"], key["limits"]["requests_per_minute"]) == ({"team": "search"}, 500)
    assert key["created_by"] == "root"
    assert key["created_at"].endswith("Z")
    client = openai.OpenAI(base_url=f"{issuing.url}/v1", api_key=text, max_retries=0, http_client=sdk_http)
    assert "fake/fake" in [model.id for model in client.models.list()]
    for _ in range(3):
        answer = client.chat.completions.create(model="fake/fake", messages=[{"role": "user", "content": "x"}])
        assert answer.choices[0].message.content
    shown = [
        admin.get(f"{KEYS}/{key['id']}").text,
        admin.get(KEYS).text,
        admin.patch(f"{KEYS}/{key['id']}", json={"name": "b"}).text,
        admin.get(AUDIT).text,
        admin.delete(f"{KEYS}/{key['id']}").text,
        "".join(issuing.lines),
    ]
    for said in shown:
        assert text.rpartition("_")[2] not in said


@pytest.mark.parametrize("form", ["authorization", "x-api-key", "api-key"])
def test_an_issued_key_is_taken_in_each_form(admin: httpx2.Client, nobody: httpx2.Client, form: str) -> None:
    text = created(admin)["key"]
    headers = {form: f"Bearer {text}" if form == "authorization" else text}
    assert nobody.post(CHAT, json=chat("fake/fake"), headers=headers).status_code == 200


def test_a_key_can_do_what_its_scopes_say_and_no_more(admin: httpx2.Client, nobody: httpx2.Client) -> None:
    reader = created(admin, scopes=["models:read"])
    assert status(nobody, reader) == 403
    assert nobody.get("/v1/models", headers=bearer(reader)).status_code == 200
    refused = nobody.post(KEYS, json={"name": "x", "scopes": ["admin"]}, headers=bearer(reader))
    assert (refused.status_code, error_of(refused)["code"]) == (403, "insufficient_scope")
    for method, path in (("GET", KEYS), ("GET", AUDIT), ("DELETE", f"{KEYS}/x"), ("POST", f"{KEYS}/x/rotate")):
        assert nobody.request(method, path, headers=bearer(reader)).status_code == 403
        assert nobody.request(method, path).status_code == 401
    root = created(admin, scopes=["admin"])
    assert nobody.get(KEYS, headers=bearer(root)).status_code == 200
    assert status(nobody, root) == 200


def test_a_key_reaches_its_models_and_backends_only(admin: httpx2.Client, nobody: httpx2.Client) -> None:
    by_model = created(admin, models=["fake/*"])
    by_backend = created(admin, backends=["fake"])
    for key in (by_model, by_backend):
        assert status(nobody, key) == 200
        assert status(nobody, key, "up/answer") in (403, 404)
    many = created(admin, models=[f"some-{n:02}" for n in range(12)], backends=["fake"])
    for key, cure in (
        (by_model, "; it may use models 'fake/*'."),
        (by_backend, "; it may use backends 'fake'."),
        (many, "'some-08', 'some-09' and 2 more of backends 'fake'."),
    ):
        refused = nobody.post(CHAT, json=chat("up/answer"), headers=bearer(key))
        assert error_of(refused)["message"] == error_of(refused)["message"].removesuffix(cure) + cure
        assert error_of(refused)["message"].startswith("This API key may not use the model 'up/answer'; it may use ")


def test_revoking_is_immediate_final_and_repeatable(admin: httpx2.Client, nobody: httpx2.Client) -> None:
    key = created(admin)
    path = f"{KEYS}/{key['id']}"
    for _ in range(3):
        assert status(nobody, key) == 200
    for _ in range(2):
        answer = admin.delete(path)
        assert (answer.status_code, answer.json()) == (200, {"id": key["id"], "object": "api_key", "revoked": True})
        assert status(nobody, key) == 401
    shown = admin.get(path).json()
    assert shown["status"] == "revoked"
    assert shown["revoked_at"].endswith("Z")
    for answer in (admin.patch(path, json={"name": "again"}), admin.post(f"{path}/rotate", json={})):
        assert (answer.status_code, error_of(answer)["code"]) == (409, "conflict")
    assert key["id"] not in [one["id"] for one in admin.get(KEYS, params={"limit": 500}).json()["data"]]
    everything = admin.get(KEYS, params={"limit": 500, "include_revoked": "true"}).json()["data"]
    assert key["id"] in [one["id"] for one in everything]


def test_a_key_that_has_ended_looks_like_one_that_never_was(admin: httpx2.Client, nobody: httpx2.Client) -> None:
    revoked, expired = created(admin), created(admin, expires_in_s=1)
    admin.delete(f"{KEYS}/{revoked['id']}")
    until(lambda: status(nobody, expired) == 401)
    wrong = created(admin)["key"][:-4] + "0000"
    unknown = f"sk-gw-{'0' * 12}_{'0' * 64}"
    answers = [nobody.post(CHAT, json=chat("fake/fake"), headers=bearer(k)) for k in (revoked, expired, wrong, unknown)]
    assert {answer.status_code for answer in answers} == {401}
    assert len({answer.text for answer in answers}) == 1
    assert admin.get(f"{KEYS}/{expired['id']}").json()["status"] == "expired"


def test_an_expired_key_can_be_given_more_time(admin: httpx2.Client, nobody: httpx2.Client) -> None:
    key = created(admin, expires_in_s=1)
    path = f"{KEYS}/{key['id']}"
    until(lambda: status(nobody, key) == 401)
    assert admin.post(f"{path}/rotate").status_code == 409
    assert admin.patch(path, json={"expires_at": soon(3600)}).json()["status"] == "active"
    assert status(nobody, key) == 200
    assert admin.patch(path, json={"expires_at": None}).json()["expires_at"] is None


def test_a_change_is_in_force_at_once(admin: httpx2.Client, nobody: httpx2.Client) -> None:
    key = created(admin, scopes=["inference"], models=["fake/*"])
    path = f"{KEYS}/{key['id']}"
    assert status(nobody, key) == 200
    assert admin.patch(path, json={"scopes": ["models:read"]}).json()["models"] == ["fake/*"], "what is left out stays"
    assert status(nobody, key) == 403
    admin.patch(path, json={"scopes": ["inference"], "models": ["nothing"]})
    assert status(nobody, key) in (403, 404)
    changed = admin.patch(path, json={"models": None, "limits": {"concurrent": 3}, "tags": {"a": ""}, "name": " n "})
    assert (changed.json()["name"], changed.json()["tags"]) == ("n", {"a": ""})
    assert status(nobody, key) == 200
    assert admin.patch(path, json={}).json() == admin.get(path).json()


def test_a_rotated_key_has_an_overlap_and_then_ends(admin: httpx2.Client, nobody: httpx2.Client) -> None:
    first = created(admin)
    path = f"{KEYS}/{first['id']}/rotate"
    assert status(nobody, first) == 200
    second = admin.post(path, json={"overlap_s": 600}).json()
    assert second["id"] == first["id"]
    assert second["key"] != first["key"]
    assert second["rotated"]["prefix"] == first["prefix"]
    assert second["rotated"]["expires_at"] > second["created_at"]
    assert [status(nobody, key) for key in (first, second)] == [200, 200]
    third = admin.post(path, json={"overlap_s": 1}).json()
    assert [status(nobody, key) for key in (first, third)] == [401, 200], "the oldest ends with a second rotation"
    until(lambda: status(nobody, second) == 401)
    assert admin.get(f"{KEYS}/{first['id']}").json()["rotated"] is None
    fourth = admin.post(path, json={"overlap_s": 0}).json()
    assert fourth["rotated"] is None
    assert [status(nobody, key) for key in (third, fourth)] == [401, 200]
    fifth = admin.post(path).json()
    day = datetime.fromisoformat(fifth["rotated"]["expires_at"]).timestamp() - time.time()
    assert day == pytest.approx(86_400, abs=120)
    admin.delete(f"{KEYS}/{first['id']}")
    assert [status(nobody, key) for key in (fourth, fifth)] == [401, 401], "an overlap ends with its key"


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ({"name": ""}, "name", "empty"),
        ({"name": "x" * 101}, "name", "100"),
        ({"name": "a\x00b"}, "name", "control"),
        ({"name": "a\nb"}, "name", "control"),
        ({"name": 5}, "name", "str"),
        ({"name": None}, "name", "str"),
        ({"name": "x" * 65}, "owner", "64"),
        ({"owner": "a\x00"}, "owner", "control"),
        ({"owner": "o" * 65}, "owner", "64"),
        ({"tenant": "a b"}, "tenant", "letters"),
        ({"tenant": ""}, "tenant", "letters"),
        ({"scopes": ["inference", "everything"]}, "scopes[1]", "admin, inference, models:read, models:write, sessions"),
        ({"scopes": []}, "scopes", "at least one"),
        ({"scopes": "admin"}, "scopes", "array"),
        ({"backends": ["fakke"]}, "backends[0]", "did you mean 'fake'"),
        ({"backends": []}, "backends", "null is any"),
        ({"models": [""]}, "models[0]", "empty"),
        ({"models": ["x" * 301]}, "models[0]", "300"),
        ({"models": ["a"] * 101}, "models", "100"),
        ({"tags": {"a": 1}}, "tags[...]", "str"),
        ({"tags": {"a": "\x00"}}, "tags.a", "control"),
        ({"tags": {"": "x"}}, "tags", "empty"),
        ({"limits": {"requests_per_minute": 0}}, "limits.requests_per_minute", ">= 1"),
        ({"limits": {"requests_per_minute": 10**30}}, "limits.requests_per_minute", "<= 1000000000000"),
        ({"limits": {"rpm": 5}}, "limits.rpm", "Unknown"),
        ({"expires_at": "2001-01-01T00:00:00Z"}, "expires_at", "future"),
        ({"expires_at": "9999-12-31T23:59:59Z"}, "expires_at", "hundred"),
        ({"expires_at": "2101-01-01T00:00:00"}, "expires_at", "timezone component, like 2026-11-22T08:00:00Z."),
        ({"expires_at": "tomorrow"}, "expires_at", "RFC3339 encoded datetime, like 2026-11-22T08:00:00Z."),
        ({"expires_in_s": 0}, "expires_in_s", ">= 1"),
        ({"expires_in_s": 60, "expires_at": "2090-01-01T00:00:00Z"}, "expires_in_s", "one of the two"),
        ({"key": "sk-mine"}, "key", "Unknown"),
        ({"api_key": "sk-mine"}, "api_key", "Unrecognized"),
    ],
)  # fmt: skip
def test_what_a_key_cannot_be_is_refused_with_field_and_cure(
    admin: httpx2.Client, fields: dict[str, Any], param: str, words: str
) -> None:
    answer = admin.post(
        KEYS, content=json.dumps({"name": "app"} | fields), headers={"content-type": "application/json"}
    )
    assert answer.status_code == 400, answer.text
    error = error_of(answer)
    assert error["param"] == param
    assert words in error["message"]
    assert "\x00" not in answer.text


def test_a_change_is_held_to_the_same_rules(admin: httpx2.Client) -> None:
    path = f"{KEYS}/{created(admin)['id']}"
    for body, param in [
        ({"scopes": ["x"]}, "scopes[0]"),
        ({"name": None}, "name"),
        ({"expires_at": "2001-01-01T00:00:00Z"}, "expires_at"),
        ({"tenant": "other"}, "tenant"),
        ({"owner": "other"}, "owner"),
    ]:
        answer = admin.patch(path, json=body)
        assert (answer.status_code, error_of(answer)["param"]) == (400, param)
    for overlap in (-1, 30 * 86_400 + 1, "x", 1.5):
        answer = admin.post(f"{path}/rotate", json={"overlap_s": overlap})
        assert (answer.status_code, error_of(answer)["param"]) == (400, "overlap_s")
    assert error_of(admin.post(KEYS, json={}))["code"] == "missing_required_parameter"


@pytest.mark.parametrize("id_", ["key_" + "0" * 32, "nothing", "key_%00", "x'; DROP TABLE keys; --", "é", "a" * 500])
def test_an_absent_key_is_404(admin: httpx2.Client, id_: str) -> None:
    path = f"{KEYS}/{id_}"
    for answer in (
        admin.get(path),
        admin.delete(path),
        admin.patch(path, json={"name": "x"}),
        admin.post(f"{path}/rotate"),
    ):
        assert answer.status_code == 404
        error_of(answer)


def test_keys_are_listed_page_by_page_and_filtered(admin: httpx2.Client) -> None:
    ids = [created(admin, tenant="pages", owner=f"user{n % 2}")["id"] for n in range(5)]
    seen: list[str] = []
    query: dict[str, Any] = {"tenant": "pages", "limit": 2}
    while True:
        body = admin.get(KEYS, params=query).json()
        assert body["object"] == "list"
        seen += [one["id"] for one in body["data"]]
        if body["next_cursor"] is None:
            break
        assert len(body["data"]) == 2
        query["cursor"] = body["next_cursor"]
    assert seen == ids[::-1]
    owned = admin.get(KEYS, params={"tenant": "pages", "owner": "user1"}).json()["data"]
    assert [one["id"] for one in owned] == [ids[3], ids[1]]
    assert admin.get(KEYS, params={"tenant": "nobody's"}).json()["data"] == []


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ({"limit": "0"}, "limit"),
        ({"limit": "501"}, "limit"),
        ({"limit": "-1"}, "limit"),
        ({"cursor": "\x00"}, "cursor"),
        ({"cursor": "ÿÿ"}, "cursor"),
        ({"cursor": "AAAA"}, "cursor"),
        ({"cursor": "a"}, "cursor"),
        ({"tenant": "a\x00"}, "tenant"),
        ({"owner": "x" * 301}, "owner"),
        ({"include_revoked": "yes"}, "include_revoked"),
    ],
)
def test_a_wrong_filter_is_400(admin: httpx2.Client, query: dict[str, str], param: str) -> None:
    answer = admin.get(KEYS, params=query)
    assert (answer.status_code, error_of(answer)["param"]) == (400, param)


@pytest.mark.parametrize("place", ["", "config:", "config:-1", "config:" + "9" * 30, "config:²", "' OR 1=1 --", "é"])
def test_any_other_cursor_is_a_place_in_the_list(admin: httpx2.Client, place: str) -> None:
    cursor = base64.urlsafe_b64encode(place.encode()).decode()
    for path in (KEYS, AUDIT):
        assert admin.get(path, params={"cursor": cursor}).status_code == 200


def test_configured_keys_are_listed_but_stay_as_the_file_has_them(admin: httpx2.Client, nobody: httpx2.Client) -> None:
    pages: list[dict[str, Any]] = []
    query: dict[str, Any] = {"limit": 2}
    while True:
        body = admin.get(KEYS, params=query).json()
        pages += body["data"]
        if body["next_cursor"] is None:
            break
        query["cursor"] = body["next_cursor"]
    ids = [one["id"] for one in pages]
    assert len(ids) == len(set(ids))
    assert ids[-3:] == ["app", "reader", "root"]
    app = pages[-3]
    assert (app["source"], app["tenant"], app["owner"]) == ("config", "acme", "app")
    assert (app["prefix"], app["created_at"], app["status"]) == (None, None, "active")
    assert app["limits"]["concurrent"] == 50
    assert APP_KEY not in json.dumps(pages)
    assert admin.get(f"{KEYS}/app").json() == app
    assert [one["id"] for one in admin.get(KEYS, params={"tenant": "acme"}).json()["data"]] == ["app"]
    for answer in (
        admin.delete(f"{KEYS}/app"),
        admin.patch(f"{KEYS}/app", json={"name": "x"}),
        admin.post(f"{KEYS}/app/rotate"),
    ):
        assert answer.status_code == 409
        assert "configuration file" in error_of(answer)["message"]
    assert status(nobody, APP_KEY) == 200


def test_the_last_use_is_noted(admin: httpx2.Client, nobody: httpx2.Client) -> None:
    key = created(admin)
    assert key["last_used_at"] is None
    assert status(nobody, key) == 200
    at = until(lambda: admin.get(f"{KEYS}/{key['id']}").json()["last_used_at"])
    assert datetime.fromisoformat(at).timestamp() == pytest.approx(time.time(), abs=60)


def test_every_act_is_in_the_audit_log(admin: httpx2.Client, nobody: httpx2.Client) -> None:
    key = created(admin, tenant="audited", name="watched")
    path = f"{KEYS}/{key['id']}"
    root = created(admin, scopes=["admin"], owner="second admin")
    admin.patch(path, json={"name": "seen", "limits": {"concurrent": 1}, "expires_at": soon(600)})
    rotated = admin.post(f"{path}/rotate", json={"overlap_s": 5}, headers={"x-request-id": "rotating-1"}).json()
    for _ in range(2):
        nobody.delete(path, headers=bearer(root))
    body = admin.get(AUDIT, params={"tenant": "audited"}).json()
    assert body["next_cursor"] is None
    events = body["data"]
    assert [one["action"] for one in events] == ["key.revoke", "key.rotate", "key.update", "key.create"]
    for event in events:
        assert set(event) == {"id", "object", "at", "actor", "action", "target", "tenant", "request_id", "detail"}
        assert (event["object"], event["target"], event["tenant"]) == ("audit_event", key["id"], "audited")
        assert event["at"].endswith("Z")
        for secret in (key["key"], rotated["key"]):
            assert secret.rpartition("_")[2] not in json.dumps(event)
    revoke, rotate, update, create = events
    assert [one["actor"] for one in events] == ["second admin", "root", "root", "root"]
    assert (revoke["detail"]["by_key"], rotate["request_id"]) == (root["id"], "rotating-1")
    assert (update["detail"]["name"], update["detail"]["limits"]["concurrent"]) == ("seen", 1)
    assert update["detail"]["expires_at"] == admin.get(path).json()["expires_at"]
    assert create["detail"]["name"] == "watched"
    assert rotate["detail"]["overlap_s"] == 5

    def listed(**query: str) -> list[str]:
        return [one["action"] for one in admin.get(AUDIT, params={"tenant": "audited", **query}).json()["data"]]

    assert listed(action="key.rotate") == ["key.rotate"]
    assert listed(actor="second admin") == ["key.revoke"]
    assert listed(**{"from": soon(600)}) == []
    assert len(listed(to=soon(600), **{"from": soon(-600)})) == 4
    first = admin.get(AUDIT, params={"tenant": "audited", "limit": 3}).json()
    rest = admin.get(AUDIT, params={"tenant": "audited", "limit": 3, "cursor": first["next_cursor"]}).json()
    assert [len(first["data"]), len(rest["data"]), rest["next_cursor"]] == [3, 1, None]
    for query in ({"from": "yesterday"}, {"to": "2026-01-01"}, {"from": "2026-01-01T00:00:00"}, {"actor": "\x00"}):
        answer = admin.get(AUDIT, params=query)
        assert (answer.status_code, error_of(answer)["param"]) == (400, next(iter(query)))


def test_a_refused_act_is_not_in_the_audit_log(admin: httpx2.Client) -> None:
    admin.post(KEYS, json={"name": "x", "tenant": "refused", "scopes": ["nonsense"]})
    assert admin.get(AUDIT, params={"tenant": "refused"}).json()["data"] == []


def test_a_changed_configuration_is_in_the_audit_log_by_section(admin: httpx2.Client, issuing: Gateway) -> None:
    path = issuing.folder / "config.yaml"
    before = path.read_text()
    path.with_suffix(".new").write_text(before + "\nbreaker: {failures: 77}\n")
    path.with_suffix(".new").replace(path)
    [event] = until(lambda: admin.get(AUDIT, params={"action": "config.reload"}).json()["data"])
    assert (event["actor"], event["target"]) == ("system", "config")
    assert event["detail"] == {"sections": ["breaker"], "by": "gateway"}


@pytest.mark.parametrize("name", ["system", "cli:root"])
def test_a_user_with_the_name_of_the_house_is_told_from_it(
    admin: httpx2.Client, nobody: httpx2.Client, name: str
) -> None:
    key = created(admin, scopes=["admin"], owner=name)
    made = nobody.post(KEYS, json={"name": "by a namesake"}, headers=bearer(key)).json()
    [event] = [one for one in admin.get(AUDIT, params={"actor": name}).json()["data"] if one["target"] == made["id"]]
    assert "by" not in event["detail"]
    assert event["detail"]["by_key"] == key["id"]


NASTY = [
    b"sk-gw-' OR '1'='1",
    b"sk-gw-000000000000_' OR 1=1; DROP TABLE keys; --" + b"0" * 40,
    b"sk-gw-%%%%%%%%%%%%_" + b"%" * 64,
    b"sk-gw-____________" + b"_" * 65,
    b"sk-gw-" + "é".encode() * 6 + b"_" + b"0" * 64,
    b"sk-gw-\xff\xfe\xfd",
    b"sk-gw-" + b"0" * 10_000,
    b"sk-gw-000000000000_" + b"A" * 64,
    b"{}[]<>$(id)`id`${jndi:ldap://x}",
    b"eyJ..",
]


@pytest.mark.parametrize("text", NASTY, ids=range(len(NASTY)))
def test_whatever_is_sent_for_a_key_is_401_or_refused(issuing: Gateway, admin: httpx2.Client, text: bytes) -> None:
    body = json.dumps(chat("fake/fake")).encode()
    for name in (b"authorization: Bearer ", b"x-api-key: ", b"api-key: "):
        header = (name + text).decode("latin-1")
        request = post(CHAT, b"", "content-type: application/json").replace(
            b"content-length: 0\r\n", header.encode("latin-1") + b"\r\ncontent-length: %d\r\n" % len(body)
        )
        code, answer = raw_answer(issuing.port, request + body)
        assert code in (400, 401), answer
        json.loads(answer)
    assert admin.get(KEYS).status_code == 200


def test_a_nul_in_a_key_is_refused(issuing: Gateway) -> None:
    request = b"GET /v1/models HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer sk-gw-\x00\r\n\r\n"
    assert raw_answer(issuing.port, request)[0] in (400, 401)


def test_the_database_holds_no_key(admin: httpx2.Client, issuing: Gateway, nobody: httpx2.Client) -> None:
    key = created(admin, scopes=["admin"])
    rotated = admin.post(f"{KEYS}/{key['id']}/rotate").json()
    assert [status(nobody, one) for one in (key, rotated)] == [200, 200]
    files = list((issuing.folder / "data").rglob("*"))
    assert any(file.name == "gateway.db" for file in files)
    held = b"".join(file.read_bytes() for file in files if file.is_file())
    assert dump(issuing.folder / "data" / "gateway.db").count(key["id"]) > 0
    for one in (key, rotated):
        secret = one["key"].rpartition("_")[2]
        for shape in (secret.encode(), bytes.fromhex(secret)):
            assert shape not in held
        assert one["prefix"].encode() in held


def dump(database: Path) -> str:
    with closing(sqlite3.connect(database, timeout=10)) as connection:
        return "\n".join(connection.iterdump())


def test_the_resources_are_described(admin: httpx2.Client) -> None:
    document = admin.get("/openapi.json").json()
    paths = document["paths"]
    assert set(paths[KEYS]) == {"get", "post"}
    assert set(paths[f"{KEYS}/{{key_id}}"]) == {"get", "patch", "delete"}
    assert {p["name"] for p in paths[AUDIT]["get"]["parameters"]} == {
        "limit", "cursor", "tenant", "action", "actor", "from", "to",
    }  # fmt: skip
    body = paths[KEYS]["post"]["requestBody"]["content"]["application/json"]["schema"]["$ref"]
    assert document["components"]["schemas"][body.rpartition("/")[2]]["required"] == ["name"]
    assert "201" in paths[KEYS]["post"]["responses"]

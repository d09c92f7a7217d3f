"""Users' own provider keys, through the front door: whose key a provider sees, and who never sees it again."""

import json
import sqlite3
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import anthropic
import httpx2
import openai
import pytest
from joserfc import jwt
from joserfc.jwk import RSAKey

from tests import wire
from tests.backends.test_token import HUGE
from tests.claude import Claude
from tests.exchange import Exchange
from tests.gateway.conftest import UPSTREAM_KEY, config, speaking
from tests.http import CHAT, chat, error_of, text_of, until, usage_row
from tests.process import Gateway, gateway
from tests.provider import Provider, provider
from tests.scripts import SCRIPTS

ALICE, BOB, ROOT = "alice-key-canary-81c0f2", "bob-key-canary-3f77d1aa", "root-key-canary-cc41b09e"
ALICES, BOBS = "sk-alices-own-canary-5521", "sk-bobs-own-canary-9f03"
POOR = "poor-key-canary-2b77e0aa"
MASTER = "master-key-canary-0123456789abcdef-0123"
AUTH = {
    "mode": "api_key",
    "keys": [
        {"name": "alice", "key": ALICE, "tenant": "acme", "scopes": ["inference", "models:read"]},
        {"name": "bob", "key": BOB, "tenant": "acme", "scopes": ["inference", "models:read"]},
        {"name": "root", "key": ROOT, "scopes": ["admin"]},
        {"name": "narrow", "key": "narrow-key-canary-77aa", "backends": ["up"]},
        {"name": "poor", "key": POOR},
        {"name": "reader", "key": "reader-key-canary-09fe", "scopes": ["models:read"]},
    ],
}


@pytest.fixture(scope="module")
def running_other() -> Iterator[Provider]:
    """A provider that a user brings along, and where tokens are given out."""
    with provider() as running:
        yield running


@pytest.fixture
def other(running_other: Provider) -> Iterator[Provider]:
    running_other.forget()
    yield running_other
    assert not running_other.broken


@pytest.fixture(scope="module")
def tree(running_provider: Provider, running_other: Provider, running_anthropic: Claude) -> dict[str, Any]:
    tree = config(running_provider.url) | {"auth": AUTH, "secrets": {"master_key": MASTER}}
    own = {"kind": "openai", "base_url": running_provider.url}
    tree["backends"]["up"] |= {
        "organization": "org-of-the-house",
        "headers": {"x-of-the-house": "header-canary-71"},
        "user_endpoints": [running_other.url],
    }
    tree["backends"] |= {
        "need": {**own, "own_keys": "required"},
        "preset": {"kind": "openai", "own_keys": "required"},
        "never": {**own, "api_key": UPSTREAM_KEY, "own_keys": "refused"},
        "speaks": {**own, "api_key": UPSTREAM_KEY, "responses": True},
        "claude": {
            "kind": "anthropic",
            "base_url": running_anthropic.url,
            "api_key": "house-anthropic-key",
            "user_endpoints": [running_other.url],
        },
    }
    tree["limits"] = {
        "keys": {"poor": {"budget_usd_per_day": 0.000001}},
        "models": {"up/boastful": {"tokens_per_minute": 10_000}},
    }
    tree["prices"] = {"up/*": {"input": 100.0, "output": 100.0}}
    tree["models"] |= {
        "need-then-up": {"routes": ["need/answer", "up/answer"]},
        "up-then-claude": {"routes": ["up/status:503", "claude/text"], "retries": 0},
    }
    return tree


@pytest.fixture(scope="module")
def running_bank(tree: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with gateway(tmp_path_factory.mktemp("bank"), tree) as running:
        yield running


@pytest.fixture
def bank(running_bank: Gateway, upstream: Provider, other: Provider, anthropics: Claude) -> Iterator[Gateway]:
    """A gateway that takes users' own keys, and has none yet."""
    yield running_bank
    with user(running_bank, ROOT) as root:
        for one in root.get("/v1/credentials").json()["data"]:
            assert root.delete(f"/v1/credentials/{one['id']}").status_code == 200


def user(bank: Gateway, key: str) -> httpx2.Client:
    return speaking(bank, {"authorization": f"Bearer {key}"})


@pytest.fixture
def alice(bank: Gateway) -> Iterator[httpx2.Client]:
    with user(bank, ALICE) as http:
        yield http


@pytest.fixture
def bob(bank: Gateway) -> Iterator[httpx2.Client]:
    with user(bank, BOB) as http:
        yield http


@pytest.fixture
def root(bank: Gateway) -> Iterator[httpx2.Client]:
    with user(bank, ROOT) as http:
        yield http


def bring(who: httpx2.Client, backend: str, **secret: Any) -> dict[str, Any]:
    answer = who.post("/v1/credentials", json={"backend": backend, **secret})
    assert answer.status_code in (200, 201), answer.text
    found: dict[str, Any] = answer.json()
    return found


def key_of(exchange: Exchange) -> str:
    return exchange.headers["authorization"].removeprefix("Bearer ")


def say(who: httpx2.Client, model: str = "up/answer", **fields: Any) -> httpx2.Response:
    return who.post(CHAT, json=chat(model, **fields))


def database(bank: Gateway) -> str:
    with closing(sqlite3.connect(bank.folder / "data" / "gateway.db")) as connection:
        return "\n".join(connection.iterdump())


# --- whose key is used


def test_each_user_is_served_with_their_own_key_and_never_anothers(
    alice: httpx2.Client, bob: httpx2.Client, upstream: Provider
) -> None:
    bring(alice, "up", api_key=ALICES)
    bring(bob, "up", api_key=BOBS)

    def ask(n: int) -> None:
        who, key = ((alice, ALICES), (bob, BOBS))[n % 2]
        stream = n % 3 == 0
        marker = f"marker-{n:03}"
        answer = say(who, text=marker, stream=stream)
        assert answer.status_code == 200, answer.text
        assert answer.headers["x-gateway-model"] == "up/answer"
        if stream:
            assert text_of(answer.content)
        assert key_of(upstream.asked(marker)) == key

    with ThreadPoolExecutor(8) as crowd:
        list(crowd.map(ask, range(60)))


def test_who_brought_none_is_served_with_the_houses(
    alice: httpx2.Client, bob: httpx2.Client, root: httpx2.Client, upstream: Provider
) -> None:
    bring(alice, "up", api_key=ALICES)
    for who in (bob, root):
        assert say(who).status_code == 200
    assert [key_of(x) for x in upstream.seen] == [UPSTREAM_KEY] * 2
    assert upstream.seen[0].headers["openai-organization"] == "org-of-the-house"


def test_what_is_the_houses_own_does_not_go_along(alice: httpx2.Client, upstream: Provider) -> None:
    bring(alice, "up", api_key=ALICES)
    say(alice)
    assert not {"openai-organization", "x-of-the-house"} & set(upstream.seen[0].headers)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/messages", {**chat("up/answer"), "max_tokens": 50}),
        ("/v1/responses", {"model": "up/answer", "input": "Hi."}),
        ("/v1/responses", {"model": "speaks/answer", "input": "Hi."}),
        ("/v1/generate", {"model": "up/answer", "input": {"prompt": "Hi."}}),
        ("/v1/completions", {"model": "up/completion", "prompt": "Hi."}),
        ("/v1/embeddings", {"model": "up/vectors", "input": "Hi."}),
        ("/v1/images/generations", {"model": "up/picture", "prompt": "A cat."}),
    ],
)
def test_every_endpoint_uses_it(path: str, body: dict[str, Any], alice: httpx2.Client, upstream: Provider) -> None:
    for backend in ("up", "speaks"):
        bring(alice, backend, api_key=ALICES)
    alice.post(path, json=body)
    assert upstream.seen
    assert {key_of(x) for x in upstream.seen} == {ALICES}


def test_anthropics_own_client_and_its_count_of_tokens_use_it(
    bank: Gateway, alice: httpx2.Client, anthropics: Claude, sdk_http: httpx2.Client
) -> None:
    bring(alice, "claude", api_key="sk-ant-alices-canary")
    client = anthropic.Anthropic(base_url=bank.url, auth_token=ALICE, max_retries=0, http_client=sdk_http)
    messages: Any = [{"role": "user", "content": "Hi."}]
    client.messages.create(model="claude/text", max_tokens=50, messages=messages)
    with client.messages.stream(model="claude/text", max_tokens=50, messages=messages) as stream:
        assert stream.get_final_text()
    assert client.messages.count_tokens(model="claude/text", messages=messages).input_tokens == 2095
    assert [key_of(x) for x in anthropics.seen] == ["sk-ant-alices-canary"] * 3


def test_a_kept_response_is_asked_for_with_it(alice: httpx2.Client, upstream: Provider) -> None:
    async def kept(exchange: Exchange) -> None:
        exchange.answer(b'{"id":"resp_of_the_provider","object":"response","status":"completed","output":[]}')

    upstream.scripts |= {"spoken": kept, "/v1/responses/resp_of_the_provider": kept}
    made = alice.post("/v1/responses", json={"model": "speaks/spoken", "input": "Hi."}).json()
    bring(alice, "speaks", api_key=ALICES)
    alice.get(f"/v1/responses/{made['id']}")
    assert [key_of(x) for x in upstream.seen] == [UPSTREAM_KEY, ALICES]


def test_a_fallback_uses_it_where_there_is_one(
    bank: Gateway, alice: httpx2.Client, upstream: Provider, anthropics: Claude
) -> None:
    bring(alice, "claude", api_key="sk-ant-alices-canary")
    answer = alice.post(CHAT, json=chat("up-then-claude"), headers={"x-gateway-explain": "true"})
    assert answer.status_code == 200, answer.text
    assert key_of(upstream.seen[0]) == UPSTREAM_KEY
    assert key_of(anthropics.seen[0]) == "sk-ant-alices-canary"
    explained = json.loads(answer.headers["x-gateway-explain"])
    assert "own key" in json.dumps(explained["routes"])
    assert answer.headers["x-gateway-backend"] == "claude"


def test_the_unchanged_openai_client_works_as_before(bank: Gateway, alice: httpx2.Client, upstream: Provider) -> None:
    bring(alice, "up", api_key=ALICES)
    with openai.OpenAI(base_url=f"{bank.url}/v1", api_key=ALICE, max_retries=0) as client:
        client.chat.completions.create(model="up/answer", messages=[{"role": "user", "content": "Hi."}])
    assert key_of(upstream.seen[0]) == ALICES


# --- what becomes of it


def test_deleting_it_leads_back_to_the_houses_at_once(alice: httpx2.Client, upstream: Provider) -> None:
    found = bring(alice, "up", api_key=ALICES)
    say(alice)
    assert alice.delete(f"/v1/credentials/{found['id']}").json() == {
        "id": found["id"],
        "object": "credential",
        "deleted": True,
    }
    say(alice)
    assert [key_of(x) for x in upstream.seen] == [ALICES, UPSTREAM_KEY]
    assert alice.get("/v1/credentials").json()["data"] == []


def test_a_second_one_replaces_the_first(alice: httpx2.Client, upstream: Provider) -> None:
    first = alice.post("/v1/credentials", json={"backend": "up", "api_key": ALICES})
    say(alice)
    second = alice.post("/v1/credentials", json={"backend": "up", "api_key": BOBS})
    say(alice)
    assert (first.status_code, second.status_code) == (201, 200)
    assert second.json()["id"] == first.json()["id"]
    assert [key_of(x) for x in upstream.seen] == [ALICES, BOBS]
    assert len(alice.get("/v1/credentials").json()["data"]) == 1


def test_an_answer_under_way_outlives_its_credential(alice: httpx2.Client, upstream: Provider) -> None:
    found = bring(alice, "up", api_key=ALICES)
    with alice.stream("POST", CHAT, json=chat("up/events:20:0.05", stream=True)) as answer:
        pieces = answer.iter_raw()
        next(pieces)
        alice.delete(f"/v1/credentials/{found['id']}")
        assert b"[DONE]" in b"".join(pieces)


def test_a_backend_that_wants_users_own_keys_says_so(alice: httpx2.Client, upstream: Provider) -> None:
    answer = alice.post(CHAT, json=chat("need/answer"), headers={"x-gateway-explain": "true"})
    error = error_of(answer)
    assert (answer.status_code, error["code"]) == (403, "credential_required")
    assert json.loads(answer.headers["x-gateway-explain"])["reason"] == "addressed as BACKEND/MODEL"
    assert "POST /v1/credentials" in error["message"]
    assert upstream.seen == []
    found = bring(alice, "need", api_key=ALICES)
    assert say(alice, "need/answer").status_code == 200
    assert key_of(upstream.seen[0]) == ALICES
    alice.delete(f"/v1/credentials/{found['id']}")
    assert error_of(say(alice, "need/answer"))["code"] == "credential_required"
    assert say(alice, "need-then-up").headers["x-gateway-model"] == "up/answer"


def test_what_their_own_key_pays_for_is_on_no_budget(bank: Gateway, upstream: Provider) -> None:
    with user(bank, POOR) as poor:
        assert error_of(say(poor))["code"] == "budget_exceeded"
        found = bring(poor, "up", api_key=ALICES)
        for _ in range(3):
            assert say(poor).status_code == 200
        poor.delete(f"/v1/credentials/{found['id']}")
        assert error_of(say(poor))["code"] == "budget_exceeded"
    assert {key_of(x) for x in upstream.seen} == {ALICES}


def test_a_bad_key_of_one_user_is_their_own_trouble(
    bank: Gateway, alice: httpx2.Client, bob: httpx2.Client, upstream: Provider
) -> None:
    async def judge(exchange: Exchange) -> None:
        if key_of(exchange) == ALICES:
            exchange.answer(b'{"error":{"message":"no","code":"invalid_api_key"}}', "401 Unauthorized")
        else:
            await SCRIPTS["answer"](exchange)

    upstream.scripts["judge"] = judge
    found = bring(alice, "up", api_key=ALICES)
    for _ in range(7):  # more than the breaker takes
        answer = say(alice, "up/judge")
        error = error_of(answer)
        assert (answer.status_code, error["code"]) == (502, "upstream_auth_failed")
        assert "your own key" in error["message"]
        assert "up" in error["message"]
    assert say(bob, "up/judge").status_code == 200
    assert alice.get(f"/v1/credentials/{found['id']}").json()["status"] == "rejected"
    with user(bank, ROOT) as root:
        ready = root.get("/ready").json()
    assert not [name for name in ready["checks"] if name.startswith("route:up/judge")]
    assert found["id"] not in json.dumps(ready)
    bring(alice, "up", api_key=BOBS)
    assert say(alice, "up/judge").status_code == 200, "the new key begins anew"
    assert alice.get(f"/v1/credentials/{found['id']}").json()["status"] == "accepted"


# --- who sees it


def test_it_is_never_shown_again(bank: Gateway, alice: httpx2.Client, root: httpx2.Client) -> None:
    made = alice.post("/v1/credentials", json={"backend": "up", "api_key": ALICES})
    shown = [made, alice.get("/v1/credentials"), root.get("/v1/credentials")]
    shown.append(alice.get(f"/v1/credentials/{made.json()['id']}"))
    for answer in shown:
        assert answer.status_code in (200, 201)
        assert "canary" not in answer.text
        assert "sk-" not in answer.text
    card = made.json()
    assert card == {
        "id": card["id"],
        "object": "credential",
        "backend": "up",
        "kind": "api_key",
        "base_url": None,
        "status": "unused",
        "tenant": "acme",
        "user": "alice",
        "created_at": card["created_at"],
        "updated_at": card["updated_at"],
        "last_used_at": None,
    }
    assert card["created_at"].endswith("Z")
    say(alice)
    used = alice.get(f"/v1/credentials/{card['id']}").json()
    assert used["status"] == "accepted"
    assert used["last_used_at"] is not None


def test_nothing_that_is_kept_or_told_holds_it(
    bank: Gateway, alice: httpx2.Client, bob: httpx2.Client, upstream: Provider, other: Provider
) -> None:
    bring(alice, "up", api_key=ALICES)
    bring(bob, "up", oauth_token={"access_token": "oauth-canary-access-token-1"})
    say(alice, ALICES)  # a client that puts it where a model's name belongs
    say(alice)
    say(bob)
    alice.post("/v1/credentials", json={"backend": "up", "api_key": 7, "oauth_token": ALICES})
    until(lambda: database(bank).count("credential.create") >= 2)
    told = [database(bank), "".join(bank.lines), httpx2.get(f"{bank.url}/metrics").text]
    told.append(Path(f"/proc/{bank.process.pid}/cmdline").read_text())
    for secret in (ALICES, "oauth-canary-access-token-1", MASTER):
        assert not [text for text in told[1:] if secret in text]
    # The model's name is the client's own word, and stands in its usage row.
    assert "oauth-canary" not in told[0]
    assert MASTER not in told[0]
    assert "cred_" not in told[2]


def test_others_cannot_tell_that_it_is_there(alice: httpx2.Client, bob: httpx2.Client) -> None:
    found = bring(alice, "up", api_key=ALICES)
    absent = bob.get("/v1/credentials/cred_000000000000")
    for answer in (bob.get(f"/v1/credentials/{found['id']}"), bob.delete(f"/v1/credentials/{found['id']}")):
        assert answer.status_code == 404
        assert answer.text.replace(found["id"], "cred_000000000000") == absent.text
    assert bob.get("/v1/credentials").json()["data"] == []
    assert bob.get("/v1/credentials?user=alice&tenant=acme").json()["data"] == []


def test_administrators_list_and_delete_everybodys(
    bank: Gateway, alice: httpx2.Client, bob: httpx2.Client, root: httpx2.Client
) -> None:
    alices = bring(alice, "up", api_key=ALICES)
    bring(bob, "up", api_key=BOBS)
    assert [one["user"] for one in root.get("/v1/credentials").json()["data"]] == ["bob", "alice"]
    assert [one["user"] for one in root.get("/v1/credentials?tenant=acme&user=alice").json()["data"]] == ["alice"]
    first = root.get("/v1/credentials?limit=1").json()
    second = root.get("/v1/credentials", params={"limit": "1", "cursor": first["next_cursor"]}).json()
    assert [one["user"] for one in first["data"] + second["data"]] == ["bob", "alice"]
    assert second["next_cursor"] is None
    assert root.delete(f"/v1/credentials/{alices['id']}").status_code == 200
    assert [one["user"] for one in root.get("/v1/credentials").json()["data"]] == ["bob"]
    until(lambda: database(bank).count("credential.delete") or None)


def test_the_audit_log_says_who_and_what_but_not_which(bank: Gateway, alice: httpx2.Client) -> None:
    found = bring(alice, "up", api_key=ALICES)
    bring(alice, "up", api_key=BOBS)
    alice.delete(f"/v1/credentials/{found['id']}")
    with closing(sqlite3.connect(bank.folder / "data" / "gateway.db")) as connection:
        rows = connection.execute(
            "SELECT action, owner_id, tenant_id, detail FROM audit WHERE target = ? ORDER BY id", (found["id"],)
        ).fetchall()
    assert [row[0] for row in rows] == ["credential.create", "credential.replace", "credential.delete"]
    assert {row[1:3] for row in rows} == {("alice", "acme")}
    assert {row[3] for row in rows} == {'{"backend":"up","kind":"api_key","by_key":"alice"}'}


# --- what is refused


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({"backend": "up"}, 400, "api_key"),
        ({"api_key": ALICES}, 400, "backend"),
        ({"backend": "up", "api_key": ALICES, "oauth_token": {"access_token": "t" * 20}}, 400, "oauth_token"),
        ({"backend": "upp", "api_key": ALICES}, 400, "backend"),
        ({"backend": "fake", "api_key": ALICES}, 400, "backend"),
        ({"backend": "never", "api_key": ALICES}, 403, None),
        ({"backend": "up", "api_key": "short"}, 400, "api_key"),
        ({"backend": "up", "api_key": "with a line\r\nx-evil: 1"}, 400, "api_key"),
        ({"backend": "up", "api_key": ALICES, "base_url": "http://example.com/v1"}, 400, "base_url"),
        ({"backend": "up", "api_key": ALICES, "base_url": "https://127.0.0.1/v1"}, 400, "base_url"),
        ({"backend": "up", "api_key": ALICES, "base_url": "https://169.254.169.254/v1"}, 400, "base_url"),
        ({"backend": "up", "api_key": ALICES, "base_url": "https://user@example.com/v1"}, 400, "base_url"),
        ({"backend": "up", "oauth_token": {"access_token": "t" * 20, "refresh_token": "r" * 20}}, 400, None),
        ({"backend": "claude", "service_account": {"client_email": "a@b.example", "private_key": "x"}}, 400, None),
        ({"backend": "up", "service_account": {"client_email": "a@b.example", "private_key": "no key"}}, 400, None),
        ({"backend": "up", "api_key": '"error":{"message":"'}, 400, "api_key"),
        ({"backend": "up", "api_key": "back\\slash-canary-12345"}, 400, "api_key"),
        ({"backend": "up", "oauth_token": {"access_token": "token 'quoted' 12345"}}, 400, "oauth_token.access_token"),
        ({"backend": "up", "api_key": ALICES, "colour": "red"}, 400, "colour"),
    ],
)
def test_a_refusal_names_the_field(body: dict[str, Any], status: int, param: str | None, alice: httpx2.Client) -> None:
    answer = alice.post("/v1/credentials", json=body)
    error = error_of(answer)
    assert answer.status_code == status
    assert param in (None, error["param"])
    assert ALICES not in answer.text
    assert alice.get("/v1/credentials").json()["data"] == []


def test_a_body_that_does_not_say_it_is_json_is_415(alice: httpx2.Client) -> None:
    form = {"content-type": "application/x-www-form-urlencoded"}
    answer = alice.post("/v1/credentials", content=json.dumps({"backend": "up", "api_key": ALICES}), headers=form)
    assert (answer.status_code, error_of(answer)["code"]) == (415, "unsupported_media_type")
    assert "application/json" in error_of(answer)["message"]


def test_a_huge_key_holds_up_nobody(bank: Gateway, alice: httpx2.Client, bob: httpx2.Client) -> None:
    body = {"backend": "up", "service_account": {"client_email": "a@b.example", "private_key": HUGE}}
    with ThreadPoolExecutor(1) as pool:
        began = time.monotonic()
        bringing = pool.submit(alice.post, "/v1/credentials", json=body, timeout=120)
        for _ in range(5):
            assert bob.get("/health", timeout=60).status_code == 200
            time.sleep(0.05)
        answer = bringing.result()
    assert (answer.status_code, error_of(answer)["param"]) == (400, "service_account.private_key")
    assert time.monotonic() - began < 5


def test_what_one_user_calls_a_secret_is_no_secret_of_others(
    bank: Gateway, alice: httpx2.Client, bob: httpx2.Client, upstream: Provider
) -> None:
    for word in ("request_finished", "invalid_request_error", "model_not_found.12345"):
        bring(alice, "up", api_key=word)
        say(alice)
        answers = [say(who, "nothing/model_not_found.12345") for who in (alice, bob)]
        assert [answer.status_code for answer in answers] == [404, 404]
        assert [error_of(answer)["type"] for answer in answers][1] == "invalid_request_error"
        assert "model_not_found.12345" in error_of(answers[1])["message"]
        bank.wait_for("request_finished", request_id=answers[1].headers["x-request-id"])


def test_an_endpoint_that_boasts_of_its_usage_locks_nobody_else_out(
    bank: Gateway, alice: httpx2.Client, bob: httpx2.Client, upstream: Provider, other: Provider
) -> None:
    async def boastful(exchange: Exchange) -> None:
        usage = wire.dump(wire.USAGE | {"prompt_tokens": 10**12, "completion_tokens": -5})
        exchange.answer(wire.completion().replace(wire.dump(wire.USAGE), usage))

    other.scripts["boastful"] = boastful
    upstream.scripts["boastful"] = SCRIPTS["answer"]
    bring(alice, "up", api_key=ALICES, base_url=other.url)
    told = say(alice, "up/boastful")
    assert told.status_code == 200
    assert say(bob, "up/boastful").status_code == 200
    row = usage_row(bank.folder, told.headers["x-request-id"])
    assert (row["input_tokens"], row["output_tokens"]) == (None, None)
    bank.wait_for("usage_not_believed", request_id=told.headers["x-request-id"])


def test_a_key_that_may_not_use_a_backend_or_generate_cannot_bring_one(bank: Gateway) -> None:
    with user(bank, "narrow-key-canary-77aa") as narrow, user(bank, "reader-key-canary-09fe") as reader:
        assert narrow.post("/v1/credentials", json={"backend": "need", "api_key": ALICES}).status_code == 400
        assert reader.post("/v1/credentials", json={"backend": "up", "api_key": ALICES}).status_code == 403
        assert reader.get("/v1/credentials").status_code == 403
    assert httpx2.get(f"{bank.url}/v1/credentials").status_code == 401


def test_a_row_that_was_altered_or_moved_serves_nobody(
    bank: Gateway, alice: httpx2.Client, bob: httpx2.Client, upstream: Provider
) -> None:
    mine, bobs = bring(alice, "up", api_key=ALICES), bring(bob, "up", api_key=BOBS)
    with closing(sqlite3.connect(bank.folder / "data" / "gateway.db")) as connection:
        (sealed,) = connection.execute("SELECT sealed FROM credentials WHERE id = ?", (bobs["id"],)).fetchone()
        connection.execute("UPDATE credentials SET sealed = ? WHERE id = ?", (sealed, mine["id"]))
        connection.commit()
    answer = say(alice)
    error = error_of(answer)
    assert (answer.status_code, error["code"]) == (502, "upstream_auth_failed")
    assert "POST /v1/credentials" in error["message"]
    assert upstream.seen == [], "neither with another's key nor with the house's"
    assert bank.wait_for("credential_unreadable", credential=mine["id"])["level"] == "error"
    assert say(bob).status_code == 200
    bring(alice, "up", api_key=ALICES)
    assert say(alice).status_code == 200


# --- endpoints of a user's own


def test_an_endpoint_that_the_operator_allows_gets_the_users_key_only(
    alice: httpx2.Client, upstream: Provider, other: Provider
) -> None:
    bring(alice, "up", api_key=ALICES, base_url=other.url)
    assert say(alice).status_code == 200
    assert upstream.seen == []
    assert key_of(other.seen[0]) == ALICES
    assert UPSTREAM_KEY not in other.seen[0].head.decode()
    assert "canary-71" not in other.seen[0].head.decode()


def test_a_name_that_leads_inside_is_not_connected_to(alice: httpx2.Client, other: Provider) -> None:
    port = other.url.removesuffix("/v1").rpartition(":")[2]
    bring(alice, "up", api_key=ALICES, base_url=f"https://localhost:{port}/v1")
    answer = say(alice)
    assert answer.status_code == 502
    assert "not a public one" in error_of(answer)["message"]
    assert other.seen == []


def test_redirects_are_not_followed(alice: httpx2.Client, other: Provider) -> None:
    async def away(exchange: Exchange) -> None:
        exchange.answer(b"", "307 Temporary Redirect", location="http://127.0.0.1:9/v1")

    other.scripts["away"] = away
    bring(alice, "up", api_key=ALICES, base_url=other.url)
    answer = say(alice, "up/away")
    assert (answer.status_code, error_of(answer)["code"]) == (502, "upstream_bad_response")


def test_a_users_own_models_are_listed_and_found_by_their_bare_names(
    alice: httpx2.Client, bob: httpx2.Client, upstream: Provider, other: Provider
) -> None:
    async def models(exchange: Exchange) -> None:
        assert key_of(exchange) == ALICES
        exchange.answer(json.dumps({"object": "list", "data": [{"id": "answer-for-me", "object": "model"}]}).encode())

    async def mine(exchange: Exchange) -> None:
        await SCRIPTS["answer"](exchange)

    other.scripts |= {"/v1/models": models, "answer-for-me": mine}
    bring(alice, "up", api_key=ALICES, base_url=other.url)

    def listed(who: httpx2.Client) -> set[str]:
        return {one["id"] for one in who.get("/v1/models?backend=up").json()["data"] if one["id"].startswith("up/")}

    assert listed(alice) == {"up/answer-for-me"}
    assert "up/answer-for-me" not in listed(bob)
    assert listed(bob)
    assert say(alice, "answer-for-me").headers["x-gateway-model"] == "up/answer-for-me"
    assert say(bob, "answer-for-me").status_code == 404
    listed(alice)
    assert [x.path for x in other.seen].count("/v1/models") == 1, "asked once, and remembered"


# --- access tokens


class Tokens:
    """Gives out access tokens t1, t2 …, and remembers what it was asked."""

    def __init__(self, **answer: Any) -> None:
        self.asked: list[dict[str, str]] = []
        self.answer = answer

    async def __call__(self, exchange: Exchange) -> None:
        self.asked.append({name: values[0] for name, values in parse_qs(exchange.body.decode()).items()})
        said = {"access_token": f"access-canary-t{len(self.asked)}", "expires_in": 3600} | self.answer
        exchange.answer(json.dumps(said).encode())


def test_a_service_account_signs_in_once_and_its_token_is_used(
    alice: httpx2.Client, upstream: Provider, other: Provider
) -> None:
    other.scripts["/v1/token"] = tokens = Tokens()
    key = RSAKey.generate_key(2048)
    account = {
        "type": "service_account",
        "project_id": "p",
        "private_key_id": "kid-1",
        "private_key": key.as_pem(private=True).decode(),
        "client_email": "robot@p.iam.example",
        "token_uri": f"{other.url}/token",
    }
    bring(alice, "up", service_account=account)
    for _ in range(3):
        assert say(alice).status_code == 200
    assert [key_of(x) for x in upstream.seen] == ["access-canary-t1"] * 3
    (asked,) = tokens.asked
    assert asked["grant_type"] == "urn:ietf:params:oauth:grant-type:jwt-bearer"
    token = jwt.decode(asked["assertion"], key, algorithms=["RS256"])
    assert token.header["kid"] == "kid-1"
    assert token.claims["iss"] == "robot@p.iam.example"
    assert token.claims["aud"] == f"{other.url}/token"
    assert 0 < token.claims["exp"] - time.time() <= 3600


def test_a_spent_access_token_is_refreshed_and_the_new_refresh_token_is_kept(
    bank: Gateway, alice: httpx2.Client, upstream: Provider, other: Provider
) -> None:
    other.scripts["/v1/token"] = tokens = Tokens(refresh_token="refresh-canary-2")
    bring(
        alice,
        "up",
        oauth_token={
            "access_token": "access-canary-t0",
            "refresh_token": "refresh-canary-1",
            "token_url": f"{other.url}/token",
            "client_id": "client-1234",
            "client_secret": "client-secret-canary",
            "expires_at": "2026-01-01T00:00:00Z",
        },
    )
    assert say(alice).status_code == 200
    assert key_of(upstream.seen[0]) == "access-canary-t1"
    assert tokens.asked == [
        {
            "grant_type": "refresh_token",
            "refresh_token": "refresh-canary-1",
            "client_id": "client-1234",
            "client_secret": "client-secret-canary",
        }
    ]
    assert say(alice).status_code == 200
    assert len(tokens.asked) == 1


def test_a_token_that_the_provider_refuses_is_replaced_at_once(
    alice: httpx2.Client, upstream: Provider, other: Provider
) -> None:
    async def picky(exchange: Exchange) -> None:
        if key_of(exchange) == "access-canary-t0":
            exchange.answer(b'{"error":{"message":"expired"}}', "401 Unauthorized")
        else:
            await SCRIPTS["answer"](exchange)

    upstream.scripts["picky"] = picky
    other.scripts["/v1/token"] = Tokens()
    refresh = {"refresh_token": "refresh-canary-1", "token_url": f"{other.url}/token"}
    bring(alice, "up", oauth_token={"access_token": "access-canary-t0", **refresh})
    assert say(alice, "up/picky").status_code == 200
    assert [key_of(x) for x in upstream.seen] == ["access-canary-t0", "access-canary-t1"]


def test_a_sign_in_that_is_refused_is_the_users_to_repair(
    alice: httpx2.Client, upstream: Provider, other: Provider
) -> None:
    async def refuse(exchange: Exchange) -> None:
        exchange.answer(b'{"error":"invalid_grant"}', "400 Bad Request")

    other.scripts["/v1/token"] = refuse
    refresh = {"refresh_token": "refresh-canary-1", "token_url": f"{other.url}/token"}
    expired = {"access_token": "access-canary-t0", "expires_at": "2026-01-01T00:00:00Z"}
    bring(alice, "up", oauth_token=expired | refresh)
    for _ in range(3):
        answer = say(alice)
        assert (answer.status_code, error_of(answer)["code"]) == (502, "upstream_auth_failed")
        assert "POST /v1/credentials" in error_of(answer)["message"]
    assert upstream.seen == []
    assert len(other.seen) == 1, "not asked again and again"


def test_anthropic_takes_a_token_as_a_bearer(alice: httpx2.Client, anthropics: Claude) -> None:
    bring(alice, "claude", oauth_token={"access_token": "oat-canary-11223344"})
    answer = alice.post(
        "/v1/messages",
        json={**chat("claude/text"), "max_tokens": 50},
        headers={"anthropic-beta": "context-1m-2025-08-07"},
    )
    assert answer.status_code == 200
    headers = anthropics.seen[0].headers
    assert headers["authorization"] == "Bearer oat-canary-11223344"
    assert headers["anthropic-beta"] == "oauth-2025-04-20,context-1m-2025-08-07"


# --- over a restart


def test_it_survives_a_restart_and_a_change_of_the_master_key(
    tree: dict[str, Any], upstream: Provider, other: Provider, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("moving")
    other.scripts["/v1/token"] = tokens = Tokens(refresh_token="refresh-canary-2", expires_in=1)
    refresh = {"refresh_token": "refresh-canary-1", "token_url": f"{other.url}/token"}
    expired = {"access_token": "access-canary-t0", "expires_at": "2026-01-01T00:00:00Z"}
    with gateway(folder, tree) as first, user(first, ALICE) as alice, user(first, BOB) as bob:
        bring(alice, "up", api_key=ALICES)
        bring(bob, "up", oauth_token=expired | refresh)
        assert say(bob).status_code == 200
    new = "another-master-key-canary-0123456789-0123"
    changed = tree | {"secrets": {"master_key": new, "old_master_keys": [MASTER]}}
    with gateway(folder, changed) as second, user(second, ALICE) as alice, user(second, BOB) as bob:
        assert say(alice).status_code == 200
        assert key_of(upstream.seen[-1]) == ALICES
        assert say(bob).status_code == 200

        def masters() -> set[str] | None:
            with closing(sqlite3.connect(folder / "data" / "gateway.db")) as connection:
                found = {row[0] for row in connection.execute("SELECT master_id FROM credentials")}
            return found if len(found) == 1 else None

        until(masters)
    assert tokens.asked[-1]["refresh_token"] == "refresh-canary-2"
    with gateway(folder, tree) as third, user(third, ALICE) as alice:
        answer = say(alice)
        assert (answer.status_code, error_of(answer)["code"]) == (502, "upstream_auth_failed")
        assert "old_master_keys" in third.wait_for("credential_unreadable")["reason"]

"""What is changed of a session while something is generated in it, or while others change it."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import httpx2
import pytest

from tests.gateway.conftest import speaking
from tests.gateway.sessions.turns import KEYS, ask, begun, generating, listed, said
from tests.http import error_of, until
from tests.process import Gateway
from tests.provider import Provider


@pytest.fixture(scope="module")
def running(running_provider: Provider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with generating(tmp_path_factory.mktemp("meanwhile"), running_provider.url) as house:
        yield house


@pytest.fixture
def http(running: Gateway) -> Iterator[httpx2.Client]:
    with speaking(running, {"authorization": f"Bearer {KEYS[0]['key']}"}) as client:
        yield client


@pytest.fixture
def busy(running: Gateway, http: httpx2.Client) -> Iterator[Callable[..., Future[httpx2.Response]]]:
    """Generates in a session; returns what will be its answer, once it is at it."""
    with ThreadPoolExecutor(4) as pool:

        def one(session: str, status: str = "running", **fields: Any) -> Future[httpx2.Response]:
            name = f"{status}-{session}"

            def asking() -> httpx2.Response:
                with speaking(running, {"authorization": f"Bearer {KEYS[0]['key']}", "x-request-id": name}) as client:
                    return ask(client, session, model="slow/fake", **fields)

            def there() -> bool:
                found = http.get(f"/v1/requests/{name}")
                return found.status_code == 200 and found.json()["status"] == status

            answer = pool.submit(asking)
            until(there)
            return answer

        yield one


def test_a_state_that_is_put_while_a_turn_is_under_way_stays(http: httpx2.Client, busy: Any) -> None:
    session = begun(http)
    turn = busy(session, state={"turn": 1})
    assert http.put(f"/v1/sessions/{session}", json={"title": "At once"}).json()["head"] is None
    put = http.put(f"/v1/sessions/{session}", json={"state": {"mine": 1}, "title": "T"}).json()
    assert turn.result().status_code == 200
    assert (put["state"], put["title"], put["message_count"]) == ({"mine": 1}, "T", 2)
    assert http.get(f"/v1/sessions/{session}").json()["state"] == {"mine": 1}


def test_a_close_waits_for_the_turn_under_way_and_refuses_the_next(http: httpx2.Client, busy: Any) -> None:
    session = begun(http)
    turn = busy(session)
    with ThreadPoolExecutor(1) as pool:
        closing = pool.submit(http.post, f"/v1/sessions/{session}/close")
        time.sleep(0.2)
        late = busy(session, "queued")
        closed = closing.result()
    assert closed.status_code == turn.result().status_code == 200
    assert (closed.json()["status"], closed.json()["message_count"]) == ("closed", 2)
    assert late.result().status_code == 409
    assert "exported" in error_of(late.result())["message"]
    assert len(listed(http, session)) == 2


def test_whatever_waits_waits_as_long_as_it_may(http: httpx2.Client, busy: Any) -> None:
    session = begun(http)
    at = f"/v1/sessions/{session}"
    turn = busy(session)
    for method, path, body in (
        ("POST", "/reset", {}), ("POST", "/close", {}), ("PUT", "", {"state": {}}),
        ("POST", "/messages", {"messages": [{"role": "user", "text": "x"}]}),
    ):  # fmt: skip
        answer = http.request(method, at + path, json=body, headers={"x-request-timeout": "0.05"})
        assert answer.status_code == 504, path
        assert "busy" in error_of(answer)["message"]
        refused = http.request(method, at + path, json=body, headers={"x-request-timeout": "soon"})
        assert (refused.status_code, error_of(refused)["param"]) == (400, "x-request-timeout")
    assert turn.result().status_code == 200
    assert (len(listed(http, session)), http.get(at).json()["status"]) == (2, "open")


def test_a_branch_of_what_is_reset_or_deleted_meanwhile_is_whole_or_refused(running: Gateway) -> None:
    head = {"authorization": f"Bearer {KEYS[0]['key']}"}
    talk = [{"role": role, "text": "x"} for role in ("user", "assistant") * 20]
    with speaking(running, head) as http, speaking(running, head) as other, ThreadPoolExecutor(1) as pool:
        for n in range(24):
            session = begun(http, messages=talk)
            last = listed(http, session)[-1 - n % 2]["id"]
            branching = pool.submit(other.post, f"/v1/sessions/{session}/branch", json={"message_id": last})
            time.sleep(n // 2 * 0.001)
            ended = http.post(f"/v1/sessions/{session}/reset") if n % 3 else http.delete(f"/v1/sessions/{session}")
            assert ended.status_code == 200
            branch = branching.result()
            if branch.status_code == 201:
                assert branch.json()["message_count"] == 40 - n % 2
                assert len(listed(http, branch.json()["id"])) == 40 - n % 2
            else:
                assert branch.status_code in (400, 404, 409), branch.text


def test_who_chooses_an_older_answer_gets_back_what_followed_it(http: httpx2.Client) -> None:
    session = begun(http, model="fake/fake")
    first, second = said(http, session, "One.", "Two.")
    again = http.post(f"/v1/sessions/{session}/regenerate", json={"message_id": first["message_id"]}).json()
    assert [m["id"] for m in listed(http, session)][1:] == [again["message_id"]]
    [other] = listed(http, session)[-1]["alternatives"]
    for _ in range(2):
        card = http.put(f"/v1/sessions/{session}", json={"head": other["id"]}).json()
        assert (card["head"], card["message_count"]) == (second["message_id"], 4)
    assert [m["id"] for m in listed(http, session)][1::2] == [first["message_id"], second["message_id"]]
    newer = http.post(f"/v1/sessions/{session}/regenerate", json={}).json()
    http.put(f"/v1/sessions/{session}", json={"head": again["message_id"]})
    card = http.put(f"/v1/sessions/{session}", json={"head": first["message_id"]}).json()
    assert card["head"] == newer["message_id"]

"""/v1/sessions as its clients meet it: everything but generating, which tests/gateway/sessions has."""

import base64
import io
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from PIL import Image

from tests.gateway.api.conftest import ACME_KEY, KEEPER_AUTH, RIVAL_KEY
from tests.gateway.conftest import speaking
from tests.process import Gateway, gateway

SCOPES = ["inference", "sessions"]
TREE: dict[str, Any] = {
    "auth": KEEPER_AUTH | {
        "keys": [
            *({**key, "scopes": SCOPES} for key in KEEPER_AUTH["keys"]),  # type: ignore[dict-item]
            {"name": "root", "key": "sessions-root-key-99", "scopes": ["admin"]},
        ]
    },
    "backends": {"fake": {"kind": "fake"}},
    "models": {"auto": {"routes": ["fake/fake"]}},
}  # fmt: skip
TALK = [
    {"role": "user", "content": "What is **this**? Tell me."},
    {"role": "assistant", "content": "A dot.", "reasoning_content": "small"},
    {"role": "user", "text": "And then?"},
]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with gateway(tmp_path_factory.mktemp("sessions"), TREE) as one:
        yield one


@pytest.fixture
def http(running: Gateway) -> Iterator[httpx2.Client]:
    with speaking(running, {"authorization": f"Bearer {ACME_KEY}"}) as client:
        yield client


@pytest.fixture
def rival(running: Gateway) -> Iterator[httpx2.Client]:
    with speaking(running, {"authorization": f"Bearer {RIVAL_KEY}"}) as client:
        yield client


def made(http: httpx2.Client, **fields: Any) -> dict[str, Any]:
    answer = http.post("/v1/sessions", json=fields)
    assert answer.status_code == 201, answer.text
    card: dict[str, Any] = answer.json()
    return card


def refusal(answer: httpx2.Response, status: int) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    error: dict[str, Any] = answer.json()["error"]
    return error


def told(http: httpx2.Client, id_: str, **query: Any) -> list[dict[str, Any]]:
    answer = http.get(f"/v1/sessions/{id_}/messages", params=query)
    assert answer.status_code == 200, answer.text
    messages: list[dict[str, Any]] = answer.json()["data"]
    return messages


def png() -> str:
    buffer = io.BytesIO()
    Image.new("RGB", (3, 2), "red").save(buffer, "PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def test_a_session_is_made_changed_and_listed(http: httpx2.Client) -> None:
    card = made(http, system="Be brief", parameters={"temperature": 0}, metadata={"a": [1]}, context="error")
    assert card["id"].startswith("sess_")
    assert (card["title"], card["message_count"], card["status"]) == (None, 0, "open")
    changed = http.put(f"/v1/sessions/{card['id']}", json={"title": " Mine ", "system": None}).json()
    assert changed == card | {"title": "Mine", "system": None}
    assert http.get(f"/v1/sessions/{card['id']}").json() == changed
    listed = http.get("/v1/sessions").json()
    assert set(listed) == {"sessions", "next_cursor"}
    assert listed["sessions"][0] == changed
    cleared = http.put(
        f"/v1/sessions/{card['id']}", json={"parameters": None, "metadata": None, "context": None}
    ).json()
    assert (cleared["parameters"], cleared["metadata"], cleared["context"]) == ({}, {}, None)


def test_what_was_said_is_listed_both_ways_and_makes_the_title(http: httpx2.Client) -> None:
    id_ = made(http)["id"]
    added = http.post(f"/v1/sessions/{id_}/messages", json={"messages": TALK})
    assert added.status_code == 201
    messages = told(http, id_)
    assert added.json()["data"] == messages
    assert [one["role"] for one in messages] == ["user", "assistant", "user"]
    assert [one["text"] for one in messages] == ["What is **this**? Tell me.", "A dot.", "And then?"]
    assert messages[1]["reasoning"] == "small"
    card = http.get(f"/v1/sessions/{id_}").json()
    assert (card["title"], card["message_count"]) == ("What is this?", 3)
    for order, expected in (("asc", messages), ("desc", messages[::-1])):
        seen: list[Any] = []
        cursor: str | None = ""
        while cursor is not None:
            page = http.get(
                f"/v1/sessions/{id_}/messages", params={"order": order, "limit": 1, "cursor": cursor}
            ).json()
            seen, cursor = seen + page["data"], page["next_cursor"]
        assert seen == expected


def test_pictures_become_artifacts_with_urls_that_work(http: httpx2.Client, rival: httpx2.Client) -> None:
    pictured = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": png()}}]}
    id_ = made(http, messages=[pictured])["id"]
    (artifact,) = told(http, id_)[0]["artifacts"]
    assert (artifact["kind"], artifact["mime"]) == ("image", "image/png")
    assert httpx2.get(artifact["url"]).headers["content-type"] == "image/png"
    again = {"messages": [{"role": "user", "text": "again", "images": [artifact["id"]]}]}
    assert (
        http.post(f"/v1/sessions/{id_}/messages", json=again).json()["data"][0]["artifacts"][0]["id"] == artifact["id"]
    )
    foreign, absent = (rival.post("/v1/sessions", json={"messages": [one]}) for one in (
        again["messages"][0], {"role": "user", "images": ["art_" + "0" * 32]},
    ))  # fmt: skip
    assert foreign.status_code == absent.status_code == 400
    assert foreign.json()["error"]["param"] == "messages[0]"
    assert http.delete(f"/v1/artifacts/{artifact['id']}").status_code == 200
    assert told(http, id_)[0]["artifacts"][0]["url"] is None


def test_tools_and_their_results_are_told_apart(http: httpx2.Client) -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "add", "arguments": "{}"}}
    talk = [
        {"role": "user", "content": "1+1"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "2"},
        {"role": "assistant", "content": "2."},
    ]
    id_ = made(http, messages=talk)["id"]
    messages = told(http, id_)
    assert [one["role"] for one in messages] == ["user", "assistant", "tool", "assistant"]
    assert messages[1]["tool_calls"] == [{"id": "call_1", "name": "add", "arguments": "{}"}]
    assert (messages[2]["tool_call_id"], messages[2]["text"]) == ("call_1", "2")


def test_a_branch_ends_at_its_message_and_goes_its_own_way(http: httpx2.Client) -> None:
    id_ = made(http, title="One", messages=TALK)["id"]
    messages = told(http, id_)
    for n in range(3):
        branch = http.post(f"/v1/sessions/{id_}/branch", json={"message_id": messages[n]["id"], "title": f"B{n}"})
        assert branch.status_code == 201
        assert (branch.json()["title"], branch.json()["message_count"]) == (f"B{n}", n + 1)
        said = told(http, branch.json()["id"])
        assert [one["text"] for one in said] == [one["text"] for one in messages[: n + 1]]
    http.post(f"/v1/sessions/{branch.json()['id']}/messages", json={"messages": TALK})
    assert len(told(http, id_)) == 3
    refused = http.post(f"/v1/sessions/{id_}/branch", json={"message_id": "msg_\x00"})
    assert refusal(refused, 400)["param"] == "message_id"


def test_reset_empties_and_close_ends_but_for_reading(http: httpx2.Client) -> None:
    id_ = made(http, title="Kept", messages=TALK)["id"]
    last = told(http, id_)[-1]["id"]
    reset = http.post(f"/v1/sessions/{id_}/reset").json()
    assert (reset["title"], reset["message_count"], told(http, id_)) == ("Kept", 0, [])
    http.post(f"/v1/sessions/{id_}/messages", json={"messages": TALK[:1]})
    closed = http.post(f"/v1/sessions/{id_}/close").json()
    assert closed["status"] == "closed"
    assert http.post(f"/v1/sessions/{id_}/close").json() == closed
    for method, path, body in (
        ("PUT", "", {"title": "x"}), ("POST", "/reset", {}), ("POST", "/messages", {"messages": TALK}),
        ("PUT", "", {"head": last}),
    ):  # fmt: skip
        assert refusal(http.request(method, f"/v1/sessions/{id_}{path}", json=body), 409)["code"] == "conflict"
    assert len(told(http, id_)) == 1
    assert http.get(f"/v1/sessions/{id_}/export").status_code == 200
    assert any(one["id"] == id_ for one in http.get("/v1/sessions?status=closed").json()["sessions"])
    assert http.delete(f"/v1/sessions/{id_}").json() == {"id": id_, "object": "session", "deleted": True}
    assert http.delete(f"/v1/sessions/{id_}").status_code == 404


def test_a_deletion_stands_in_the_audit_log(http: httpx2.Client, running: Gateway) -> None:
    id_ = made(http)["id"]
    http.delete(f"/v1/sessions/{id_}")
    with speaking(running, {"authorization": "Bearer sessions-root-key-99"}) as root:
        (act,) = root.get("/v1/audit", params={"action": "session.delete", "limit": 1}).json()["data"]
    assert (act["target"], act["tenant"], act["actor"]) == (id_, "acme", "acme")


def test_an_export_can_be_imported_and_read(http: httpx2.Client, rival: httpx2.Client) -> None:
    talk = [*TALK, {"role": "user", "text": "see", "images": [png()]}]
    id_ = made(http, title='Ä "b"\u202e/../c', system="S", metadata={"k": 1}, messages=talk)["id"]
    whole = http.get(f"/v1/sessions/{id_}/export")
    assert whole.headers["content-disposition"] == 'attachment; filename="A-b-c.json"'
    copy = http.post("/v1/sessions/import", json=whole.json())
    assert copy.status_code == 201, copy.text
    volatile = ("id", "head", "created_at", "last_used_at")
    for name in set(copy.json()) - set(volatile):
        assert copy.json()[name] == whole.json()["session"][name], name
    for before, after in zip(told(http, id_), told(http, copy.json()["id"]), strict=True):
        assert [after[name] for name in ("role", "text", "reasoning", "created_at")] == [
            before[name] for name in ("role", "text", "reasoning", "created_at")
        ]
        assert [one["id"] for one in after["artifacts"]] == [one["id"] for one in before["artifacts"]]
    elsewhere = rival.post("/v1/sessions/import", json=whole.json()).json()
    (gone,) = told(http, id_)[-1]["artifacts"]
    last = told(rival, elsewhere["id"])[-1]
    assert (last["artifacts"], last["text"]) == ([], f"see\n[image {gone['id']}: gone]")
    readable = http.get(f"/v1/sessions/{id_}/export?format=markdown")
    assert readable.headers["content-type"] == "text/markdown; charset=utf-8"
    assert "## Assistant\n\n> *Reasoning:*\n> small\n\nA dot." in readable.text
    assert "/v1/artifacts/art_" in readable.text


def test_an_import_keeps_every_message_whatever_is_gone(http: httpx2.Client) -> None:
    gone = {"id": "art_" + "1" * 32, "kind": "mesh"}
    messages: list[dict[str, Any]] = [
        {"role": "user", "artifacts": [gone | {"kind": "image"}]},
        {"role": "assistant", "artifacts": [gone]},
        {"role": "assistant", "status": "incomplete"},
        {"role": "assistant", "text": "Made", "reasoning": "so", "artifacts": [gone]},
    ]
    whole = {"session": {"title": "T"}, "messages": messages}
    made_ = http.post("/v1/sessions/import", json=whole).json()
    assert made_["message_count"] == 4
    note = f"{gone['id']}: gone]"
    messages = told(http, made_["id"])
    assert [one["text"] for one in messages] == [f"[image {note}", f"[mesh {note}", "", f"Made\n[mesh {note}"]
    assert [one["role"] for one in messages] == ["user", *["assistant"] * 3]
    assert (messages[2]["status"], messages[3]["reasoning"]) == ("incomplete", "so")


def test_a_message_by_itself_is_told_where_it_goes(http: httpx2.Client) -> None:
    id_ = made(http)["id"]
    error = refusal(http.post(f"/v1/sessions/{id_}/messages", json={"role": "user", "text": "hi"}), 400)
    assert "'messages'" in error["message"]
    error = refusal(http.put(f"/v1/sessions/{id_}", json={"context": "oldest"}), 400)
    assert "drop_oldest" in error["message"]


def test_a_search_finds_titles_and_words_whatever_their_case(http: httpx2.Client) -> None:
    id_ = made(http, title="Zebra ÄÖ 100%", messages=[{"role": "user", "text": "about Giraffes"}])["id"]
    for words in ("zebra äö", "GIRAFFES", "100%"):
        assert [one["id"] for one in http.get("/v1/sessions", params={"search": words}).json()["sessions"]] == [id_]
    assert http.get("/v1/sessions", params={"search": "10_%"}).json()["sessions"] == []


def test_a_foreign_session_is_as_absent_as_one_that_never_was(http: httpx2.Client, rival: httpx2.Client) -> None:
    id_, never = made(http, messages=TALK)["id"], "sess_" + "0" * 32
    message = told(http, id_)[0]["id"]
    bodies: dict[str, Any] = {"/messages": {"messages": TALK}, "/branch": {"message_id": message}, "": {"title": "x"}}
    for method, path in (
        ("GET", ""), ("PUT", ""), ("DELETE", ""), ("GET", "/messages"), ("POST", "/messages"), ("POST", "/reset"),
        ("POST", "/branch"), ("POST", "/close"), ("GET", "/export"),
    ):  # fmt: skip
        body = None if method in ("GET", "DELETE") else bodies.get(path, {})
        theirs, none = (rival.request(method, f"/v1/sessions/{one}{path}", json=body) for one in (id_, never))
        assert theirs.status_code == none.status_code == 404, (method, path)
        assert theirs.text.replace(id_, never) == none.text
    assert len(told(http, id_)) == 3
    assert all(one["id"] != id_ for one in rival.get("/v1/sessions").json()["sessions"])


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"title": "a\r\nb"}, "title"), ({"title": "a\x00"}, "title"), ({"title": "x" * 1_000_000}, "title"),
        ({"title": "a\u2028b"}, "title"), ({"system": "a\x00"}, "system"), ({"model": "m\n"}, "model"),
        ({"parameters": {"temp": 1}}, "parameters.temp"), ({"metadata": {"a": "x" * 20_000}}, "metadata"),
        ({"metadata": {"a": [[[[[[[[[1]]]]]]]]]}}, "metadata"), ({"state": {"a": "x" * 70_000}}, "state"),
        ({"context": "sometimes"}, "context"), ({"colour": 1}, "colour"), ({"metadata": [1]}, "metadata"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"), ({"messages": [{"text": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "text": "x", "images": ["data:image/png;base64,aGFsbG8="]}]}, "messages[0]"),
        ({"messages": [{"role": "user", "text": "x", "images": ["file:///etc/passwd"]}]}, "messages[0]"),
        ({"messages": [{"role": "user", "text": "x", "images": ["art_../x\x00"]}]}, "messages[0]"),
        ({"messages": [{"role": "user", "text": "x"}] * 1001}, "messages"),
    ],
)  # fmt: skip
def test_what_cannot_be_kept_is_refused_by_name(http: httpx2.Client, body: dict[str, Any], param: str) -> None:
    error = refusal(http.post("/v1/sessions", json=body), 400)
    assert error["param"] == param
    assert len(error["message"]) < 500


def test_odd_words_come_back_as_they_were(http: httpx2.Client) -> None:
    odd = "a\x00b\r\n\u202e../..\U0001f468\u200d\U0001f469 \ufeff"
    card = made(
        http,
        title="\U0001f468\u200d\U0001f469 ../%00",
        metadata={"\x00": "\r\n"},
        messages=[{"role": "user", "text": odd}],
    )
    assert card["title"] == "\U0001f468\u200d\U0001f469 ../%00"
    assert card["metadata"] == {"\x00": "\r\n"}
    assert told(http, card["id"])[0]["text"] == odd


@pytest.mark.parametrize("id_", ["%00", "..%2F..", "sess_%0d%0a", "x" * 300, "%ED%A0%80"])
def test_ids_that_cannot_be_are_not_there(http: httpx2.Client, id_: str) -> None:
    assert http.get(f"/v1/sessions/{id_}").status_code == 404
    assert http.delete(f"/v1/sessions/{id_}").status_code == 404


@pytest.mark.parametrize("cursor", ["AAAA", "bmFuIHg", "aW5mIHg", "%00", "MSB4"])
def test_cursors_of_elsewhere_are_refused(http: httpx2.Client, cursor: str) -> None:
    id_ = made(http, messages=TALK)["id"]
    assert http.get(f"/v1/sessions?cursor={cursor}").status_code in (200, 400)
    assert http.get(f"/v1/sessions/{id_}/messages?cursor={cursor}").status_code == 400


def test_a_cursor_of_messages_is_no_place_among_sessions(http: httpx2.Client) -> None:
    id_ = made(http, messages=TALK)["id"]
    theirs = http.get(f"/v1/sessions/{id_}/messages?limit=1").json()["next_cursor"]
    assert refusal(http.get("/v1/sessions", params={"cursor": theirs}), 400)["param"] == "cursor"
    own = http.get("/v1/sessions?limit=1").json()["next_cursor"]
    assert http.get("/v1/sessions", params={"cursor": own}).json()["sessions"]


def test_sessions_and_messages_outlive_a_kill(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("killed")
    with gateway(folder, {"backends": {"fake": {"kind": "fake"}}}) as first:
        with speaking(first) as http:
            id_ = made(http, messages=TALK)["id"]
        first.stop(9)
    with gateway(folder, {"backends": {"fake": {"kind": "fake"}}}) as second, speaking(second) as http:
        assert len(told(http, id_)) == 3
        assert http.post(f"/v1/sessions/{id_}/reset").status_code == 200

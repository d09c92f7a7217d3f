"""/v1/conversations, and /v1/responses in one: driven by the unchanged OpenAI client, kept as sessions."""

import asyncio
import base64
import json
import re
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx2
import openai
import pytest
from openai.types.conversations import ConversationItemList
from openai.types.responses import Response

from tests import wire
from tests.exchange import Exchange
from tests.gateway.conftest import config, speaking
from tests.http import error_of
from tests.process import Gateway, gateway
from tests.provider import Provider
from tests.responses import checked
from tests.schemas.held import Held

ACME_KEY, RIVAL_KEY, PLAIN_KEY = "talk-acme-key-11aa", "talk-rival-key-22bb", "talk-plain-key-33cc"
BOTH = ["inference", "sessions"]
STREAM, WHOLE = wire.fixture("responses_provider.sse"), wire.fixture("responses_provider.json")
PROVIDERS_ID = json.loads(WHOLE)["id"]
RESPONSES, CONVERSATIONS = "/v1/responses", "/v1/conversations"
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
PICTURE = f"data:image/png;base64,{base64.b64encode(PNG).decode()}"


@pytest.fixture(scope="module")
def talking(running_provider: Provider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    tree = config(running_provider.url)
    tree["auth"] = {
        "mode": "api_key",
        "keys": [
            {"name": "acme", "key": ACME_KEY, "tenant": "acme", "scopes": BOTH},
            {"name": "rival", "key": RIVAL_KEY, "tenant": "rival", "scopes": BOTH},
            {"name": "plain", "key": PLAIN_KEY, "tenant": "acme", "scopes": ["inference"]},
        ],
    }
    tree["backends"]["speaks"] = {
        "kind": "openai", "base_url": running_provider.url, "api_key": "k", "responses": True
    }  # fmt: skip
    tree["models"] = tree.get("models", {}) | {
        "seeing": {"routes": [{"to": "up/answer", "capabilities": ["vision"]}]},
        "blind": {"routes": [{"to": "up/answer", "capabilities": ["tools"]}]},
    }
    with gateway(tmp_path_factory.mktemp("talking"), tree) as running:
        yield running


@pytest.fixture
def acme(talking: Gateway, sdk_http: httpx2.Client) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{talking.url}/v1", api_key=ACME_KEY, max_retries=0, http_client=sdk_http)


@pytest.fixture
def http(talking: Gateway) -> Iterator[httpx2.Client]:
    with speaking(talking, {"authorization": f"Bearer {ACME_KEY}"}) as client:
        yield client


@pytest.fixture
def rival(talking: Gateway) -> Iterator[httpx2.Client]:
    with speaking(talking, {"authorization": f"Bearer {RIVAL_KEY}"}) as client:
        yield client


def user(text: str) -> Any:
    return {"type": "message", "role": "user", "content": text}


def said(upstream: Provider, count: int = 1) -> list[Any]:
    messages: list[Any] = upstream.asked(count=count).json["messages"]
    return messages


def texts(client: openai.OpenAI, id_: str) -> list[str]:
    """All that was said, oldest first."""
    items = client.conversations.items.list(id_, order="asc", limit=100)
    return ["".join(getattr(part, "text", "*") for part in getattr(item, "content", None) or ()) for item in items]


# The resource, by the SDK


def test_a_conversation_lives_as_openai_says(acme: openai.OpenAI) -> None:
    made = acme.conversations.create(items=[user("Hello."), user("Anybody?")], metadata={"topic": "greeting"})
    assert made.id.startswith("conv_")
    assert (made.object, made.metadata) == ("conversation", {"topic": "greeting"})
    assert abs(made.created_at - time.time()) < 60
    assert acme.conversations.retrieve(made.id) == made
    changed = acme.conversations.update(made.id, metadata={"topic": "silence"})
    assert changed.metadata == {"topic": "silence"}
    assert acme.conversations.retrieve(made.id) == changed
    gone = acme.conversations.delete(made.id)
    assert (gone.id, gone.object, gone.deleted) == (made.id, "conversation.deleted", True)
    with pytest.raises(openai.NotFoundError, match=f"Conversation with id '{made.id}' not found"):
        acme.conversations.retrieve(made.id)


def test_items_are_added_listed_got_and_deleted(acme: openai.OpenAI) -> None:
    id_ = acme.conversations.create().id
    assert texts(acme, id_) == []
    said_and_done: Any = [
        user("What is 2 + 2?"),
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "4"}]},
        {"type": "function_call", "call_id": "c1", "name": "add", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c1", "output": "4"},
    ]
    added = acme.conversations.items.create(id_, items=said_and_done)
    assert [item.type for item in added.data] == ["message", "message", "function_call", "function_call_output"]
    assert (added.first_id, added.last_id, added.has_more) == (added.data[0].id, added.data[-1].id, False)
    newest = [str(item.id) for item in acme.conversations.items.list(id_)]
    assert newest == [item.id for item in added.data][::-1]
    page = acme.conversations.items.list(id_, limit=2)
    assert (len(page.data), page.has_more) == (2, True)
    assert [item.id for item in page] == newest, "the SDK turns the pages"
    assert acme.conversations.items.retrieve(newest[0], conversation_id=id_).id == newest[0]
    left = acme.conversations.items.delete(newest[0], conversation_id=id_)
    assert left.id == id_
    assert [item.id for item in acme.conversations.items.list(id_)] == newest[1:]
    with pytest.raises(openai.NotFoundError, match="Item with id"):
        acme.conversations.items.retrieve(newest[0], conversation_id=id_)


def test_every_answer_is_as_published(talking: Gateway) -> None:
    held = Held(talking, "openai", ACME_KEY)
    made = held.whole("/conversations", json={"items": [user("Hello.")], "metadata": {"a": "b"}})
    one, items = "/conversations/{conversation_id}", "/conversations/{conversation_id}/items"
    held.whole(one, "get", id_=made["id"])
    held.whole(one, id_=made["id"], json={"metadata": {"a": "c"}})
    held.whole(items, id_=made["id"], json={"items": [{"role": "assistant", "content": "Hi."}]})
    told = held.whole("/responses", json={"model": "up/tools", "input": "And?", "conversation": made["id"]})
    assert told["conversation"] == {"id": made["id"]}
    events = held.stream(
        "/responses", json={"model": "fake/fake", "input": "On.", "conversation": {"id": made["id"]}, "stream": True}
    )
    assert events[-1]["response"]["conversation"] == {"id": made["id"]}
    listed = held.whole(items, "get", id_=made["id"])
    assert len(listed["data"]) >= 6
    ConversationItemList.model_validate(listed)
    held.refused(404, "GET", f"/v1/conversations/{made['id']}x")
    held.whole(one, "delete", id_=made["id"])
    held.http.close()


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        ({"items": [user("x")] * 21}, "items", "array_above_max_length"),
        ({"items": [{"role": "user"}]}, "items[0].content", "missing_required_parameter"),
        ({"items": [{"type": "item_reference", "id": "msg_1"}]}, "items[0].type", "invalid_value"),
        ({"items": [{"type": "artifact", "id": "art_1"}]}, "items[0].type", "invalid_value"),
        ({"items": [{"type": "reasoning", "summary": 5}]}, "items[0].summary", "invalid_type"),
        ({"items": [{"type": "reasoning", "content": True}]}, "items[0].content", "invalid_type"),
        ({"items": [{"type": "reasoning", "content": [None]}]}, "items[0].content[0]", "invalid_type"),
        ({"items": [{"type": "nope"}]}, "items[0].type", "invalid_value"),
        ({"items": [{"role": "user", "content": [{"type": "odd"}]}]}, "items[0].content[0].type", "invalid_value"),
        ({"items": "x"}, "items", "invalid_type"),
        ({"metadata": {"a": 1}}, "metadata.a", "invalid_type"),
        ({"metadata": {str(n): "x" for n in range(17)}}, "metadata", "object_above_max_properties"),
    ],
)
def test_what_cannot_be_added_is_refused(http: httpx2.Client, body: dict[str, Any], param: str, code: str) -> None:
    answer = http.post(CONVERSATIONS, json=body)
    assert answer.status_code == 400
    assert (error_of(answer)["param"], error_of(answer)["code"]) == (param, code)
    if "items" in body:
        id_ = http.post(CONVERSATIONS, json={}).json()["id"]
        assert error_of(http.post(f"{CONVERSATIONS}/{id_}/items", json=body))["param"] == param
        assert http.get(f"{CONVERSATIONS}/{id_}/items").json()["data"] == []


# Turns


@pytest.mark.parametrize("stream", [False, True])
def test_turns_go_on_from_each_other(acme: openai.OpenAI, upstream: Provider, stream: bool) -> None:
    id_ = acme.conversations.create(items=[user("I am Ada.")]).id
    for words in ("Who am I?", "And now?"):
        if stream:
            with acme.responses.stream(model="up/answer", input=words, conversation=id_) as events:
                made: Response = events.get_final_response()
        else:
            made = acme.responses.create(model="up/answer", input=words, conversation=id_)
        assert made.conversation is not None
        assert made.conversation.id == id_
        assert acme.responses.retrieve(made.id).output_text == made.output_text == "word0 word1 word2 "
    answer = {"role": "assistant", "content": "word0 word1 word2 "}
    assert said(upstream, 2) == [
        {"role": "user", "content": "I am Ada."},
        {"role": "user", "content": "Who am I?"},
        answer,
        {"role": "user", "content": "And now?"},
    ]
    words = "word0 word1 word2 "
    assert texts(acme, id_) == ["I am Ada.", "Who am I?", words, "And now?", words]
    given = acme.responses.input_items.list(made.id, order="asc", limit=100)
    assert len(list(given)) == 4


def test_every_event_of_a_conversation_is_one_of_openais(http: httpx2.Client) -> None:
    id_ = http.post(CONVERSATIONS, json={}).json()["id"]
    answer = http.post(RESPONSES, json={"model": "fake/fake", "input": "x", "conversation": id_, "stream": True})
    events = checked(answer.content)
    assert {json.dumps(e["response"]["conversation"]) for e in events if "response" in e} == {json.dumps({"id": id_})}
    assert http.get(f"{RESPONSES}/{events[-1]['response']['id']}").json() == events[-1]["response"]


def test_a_conversation_is_a_session_and_a_session_a_conversation(http: httpx2.Client, upstream: Provider) -> None:
    id_ = http.post(CONVERSATIONS, json={}).json()["id"]
    body = {"model": "up/answer", "input": "Tell me of Rome. And more.", "conversation": id_}
    assert http.post(RESPONSES, json=body).status_code == 200
    session = http.get(f"/v1/sessions/{id_}").json()
    assert (session["title"], session["message_count"]) == ("Tell me of Rome.", 2)
    assert [one["id"] for one in http.get("/v1/sessions").json()["sessions"]][:1] == [id_]
    made = http.post("/v1/sessions", json={"system": "Be brief.", "model": "up/answer"}).json()
    first = http.post(RESPONSES, json={"input": "One.", "conversation": made["id"]})
    assert first.status_code == 200, first.text
    assert said(upstream, 2)[0] == {"role": "system", "content": "Be brief."}
    assert upstream.asked(count=2).json["model"] == "answer"
    assert http.get(f"{CONVERSATIONS}/{made['id']}").json()["object"] == "conversation"
    assert http.get(f"/v1/sessions/{made['id']}").json()["message_count"] == 2
    http.post(RESPONSES, json={"input": "Two.", "conversation": made["id"], "instructions": "Be long."})
    assert said(upstream, 3)[0] == {"role": "system", "content": "Be long."}


def test_a_previous_response_of_a_conversation_is_gone_on_from_beside_it(
    acme: openai.OpenAI, upstream: Provider
) -> None:
    id_ = acme.conversations.create().id
    first = acme.responses.create(model="up/answer", input="One.", conversation=id_)
    aside = acme.responses.create(model="up/answer", input="Two.", previous_response_id=first.id)
    assert aside.conversation is None
    assert [message["content"] for message in said(upstream, 2)] == ["One.", "word0 word1 word2 ", "Two."]
    assert texts(acme, id_) == ["One.", "word0 word1 word2 "]


def test_a_deleted_response_leaves_its_conversation_whole(acme: openai.OpenAI, upstream: Provider) -> None:
    id_ = acme.conversations.create().id
    first = acme.responses.create(model="up/answer", input="One.", conversation=id_)
    acme.responses.delete(first.id)
    with pytest.raises(openai.NotFoundError):
        acme.responses.retrieve(first.id)
    unstored = acme.responses.create(model="up/answer", input="Two.", conversation=id_, store=False)
    with pytest.raises(openai.NotFoundError):
        acme.responses.retrieve(unstored.id)
    asked = len(upstream.seen)
    for gone in (first.id, unstored.id):
        with pytest.raises(openai.BadRequestError) as refused:
            acme.responses.create(model="up/answer", input="On.", previous_response_id=gone)
        assert refused.value.code == "previous_response_not_found"
    assert len(upstream.seen) == asked, "nobody was told of them"
    later = acme.responses.create(model="up/answer", input="Three.", conversation=id_)
    assert acme.responses.create(model="up/answer", input="On.", previous_response_id=later.id).output_text
    assert texts(acme, id_)[::2] == ["One.", "Two.", "Three."]


def test_what_is_deleted_is_not_told_again(acme: openai.OpenAI, upstream: Provider) -> None:
    id_ = acme.conversations.create(items=[user("The code is 7.")]).id
    acme.responses.create(model="up/answer", input="One.", conversation=id_)
    secret = acme.conversations.items.list(id_, order="asc").data[0].id
    acme.conversations.items.delete(str(secret), conversation_id=id_)
    acme.responses.create(model="up/answer", input="Two.", conversation=id_)
    assert [message["content"] for message in said(upstream, 2)] == ["One.", "word0 word1 word2 ", "Two."]


def test_a_request_that_fails_leaves_its_conversation_as_it_was(http: httpx2.Client, upstream: Provider) -> None:
    id_ = http.post(CONVERSATIONS, json={"items": [user("Zero.")]}).json()["id"]
    before = http.get(f"/v1/sessions/{id_}").json()
    for model, stream in (("once-status:500", False), ("once-cut:1", True), ("once-error_event:2", True)):
        http.post(RESPONSES, json={"model": model, "input": "x", "conversation": id_, "stream": stream})
    assert http.get(f"/v1/sessions/{id_}").json() == before


def test_turns_at_the_same_time_come_one_after_the_other(talking: Gateway, upstream: Provider) -> None:
    under_way, most = [0], [0]

    async def slow(x: Exchange) -> None:
        under_way[0] += 1
        most[0] = max(most[0], under_way[0])
        await asyncio.sleep(0.05)
        under_way[0] -= 1
        x.answer(wire.completion(f"{len(x.json['messages'])}"))

    upstream.scripts["slow"] = slow
    with speaking(talking, {"authorization": f"Bearer {ACME_KEY}"}) as http:
        id_ = http.post(CONVERSATIONS, json={}).json()["id"]

        def ask(n: int) -> None:
            with speaking(talking, {"authorization": f"Bearer {ACME_KEY}"}) as own:
                answer = own.post(RESPONSES, json={"model": "up/slow", "input": str(n), "conversation": id_})
                assert answer.status_code == 200

        threads = [threading.Thread(target=ask, args=(n,)) for n in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        items = http.get(f"{CONVERSATIONS}/{id_}/items?order=asc").json()["data"]
    assert most == [1]
    answers = [item["content"][0]["text"] for item in items if item["role"] == "assistant"]
    assert answers == ["1", "3", "5", "7", "9", "11"], "each was told of all before it"


def test_an_acknowledged_turn_survives_a_kill(running_provider: Provider, tmp_path_factory: Any) -> None:
    folder = tmp_path_factory.mktemp("killed")
    with gateway(folder, config(running_provider.url)) as first, speaking(first) as http:
        id_ = http.post(CONVERSATIONS, json={}).json()["id"]
        body = {"model": "fake/fake", "input": "Remember me.", "conversation": id_, "stream": True}
        with http.stream("POST", RESPONSES, json=body) as answer:
            for line in answer.iter_lines():
                if line == "event: response.completed":
                    first.stop(signal.SIGKILL)
                    break
    with gateway(folder, config(running_provider.url)) as second, speaking(second) as http:
        items = http.get(f"{CONVERSATIONS}/{id_}/items?order=asc").json()["data"]
        assert [item["role"] for item in items] == ["user", "assistant"]
        assert http.post(RESPONSES, json=body | {"stream": False}).status_code == 200


def test_a_busy_conversation_is_waited_for_as_long_as_its_client_says(talking: Gateway, upstream: Provider) -> None:
    async def late(x: Exchange) -> None:
        await asyncio.sleep(1)
        x.answer(wire.completion("Late."))

    upstream.scripts["late"] = late
    authorized = {"authorization": f"Bearer {ACME_KEY}"}
    with speaking(talking, authorized) as http, speaking(talking, authorized) as other:
        id_ = http.post(CONVERSATIONS, json={}).json()["id"]
        body = {"model": "up/late", "input": "x", "conversation": id_}
        first = threading.Thread(target=lambda: other.post(RESPONSES, json=body))
        first.start()
        upstream.asked()
        began = time.monotonic()
        waited = http.post(RESPONSES, json=body | {"model": "fake/fake"}, headers={"x-request-timeout": "0.2"})
        assert (waited.status_code, time.monotonic() - began < 0.8) == (504, True), waited.text
        first.join()
        assert len(http.get(f"{CONVERSATIONS}/{id_}/items").json()["data"]) == 2
        assert http.post(RESPONSES, json=body | {"model": "fake/fake"}).status_code == 200


def test_what_a_model_cannot_be_told_does_not_spoil_its_conversation(http: httpx2.Client, upstream: Provider) -> None:
    items = [
        user("One."),
        {"type": "computer_call_output", "call_id": "c", "output": {"type": "computer_screenshot"}},
        {"role": "user", "content": [{"type": "input_file", "file_id": "file-1"}, {"type": "input_text", "text": "F"}]},
        {"role": "user", "content": [{"type": "input_image", "image_url": "data:image/png,no", "text": None}]},
        {"type": "tool_search_output", "id": "tso", "tools": []},
    ]
    id_ = http.post(CONVERSATIONS, json={"items": items}).json()["id"]
    body = {"model": "up/answer", "input": "And now?", "conversation": id_}
    answer = http.post(RESPONSES, json=body)
    assert answer.status_code == 200, answer.text
    assert [(one["role"], one["content"]) for one in said(upstream)] == [
        ("user", "One."), ("user", "F"), ("user", "And now?"),
    ]  # fmt: skip
    left_out = answer.headers["x-gateway-dropped"]
    assert all(name in left_out for name in ("computer_call_output", "input_file", "tool_search_output")), left_out
    again = {"model": "up/answer", "input": {"prompt": "And here?"}}
    assert http.post(f"/v1/sessions/{id_}/generate", json=again).status_code == 200
    for path in ("messages", "export"):
        assert http.get(f"/v1/sessions/{id_}/{path}").status_code == 200


def test_an_item_whose_id_is_no_name_gets_one(http: httpx2.Client) -> None:
    given = ["../x", "a b", "é", "x" * 65, "my_own-1", ""]
    made = http.post(CONVERSATIONS, json={"items": [user("x") | {"id": id_} for id_ in given]}).json()
    listed = [item["id"] for item in http.get(f"{CONVERSATIONS}/{made['id']}/items?order=asc").json()["data"]]
    assert [id_ for id_ in listed if id_ in given] == ["my_own-1"]
    for id_ in listed:
        assert http.get(f"{CONVERSATIONS}/{made['id']}/items/{id_}").json()["id"] == id_
        assert http.delete(f"{CONVERSATIONS}/{made['id']}/items/{id_}").status_code == 200


# With a provider that speaks the dialect itself


@pytest.mark.parametrize("stream", [False, True])
def test_a_relayed_turn_is_kept_here(acme: openai.OpenAI, upstream: Provider, stream: bool) -> None:
    async def spoken(x: Exchange) -> None:
        if x.streams:
            x.begin()
            for at in range(0, len(STREAM), 700):
                x.send(STREAM[at : at + 700])
            x.end()
        else:
            x.answer(WHOLE)

    upstream.scripts["spoken"] = spoken
    id_ = acme.conversations.create(items=[user("Zero.")]).id
    ids = []
    for words in ("One.", "Two."):
        if stream:
            with acme.responses.stream(model="speaks/spoken", input=words, conversation=id_) as events:
                made: Response = events.get_final_response()
        else:
            made = acme.responses.create(model="speaks/spoken", input=words, conversation=id_)
        assert made.conversation is not None
        assert made.conversation.id == id_
        ids.append(made.id)
        assert made.output_text == "Hi there!"
    assert len({*ids, PROVIDERS_ID}) == 3, "a provider's ids may repeat; these are our own"
    sent = upstream.asked(count=2).json
    assert not {"conversation", "previous_response_id"} & set(sent)
    assert [item["role"] for item in sent["input"] if item.get("type", "message") == "message"] == [
        "user", "user", "assistant", "user",
    ]  # fmt: skip
    assert not any("id" in item for item in sent["input"])
    asked = len(upstream.seen)
    assert [acme.responses.retrieve(one).output_text for one in ids] == ["Hi there!", "Hi there!"]
    kept = [item.id for item in acme.conversations.items.list(id_, limit=2)]
    assert len(kept) == len(set(kept)) == 7, "items' ids may repeat as well, and a list must end"
    assert [text for text in texts(acme, id_) if text] == ["Zero.", "One.", "Hi there!", "Two.", "Hi there!"]
    moved = acme.responses.create(model="up/answer", input="Three.", conversation=id_)
    assert moved.output_text == "word0 word1 word2 "
    assert len(upstream.seen) == asked + 1
    assert said(upstream, 3)[-1]["content"] == "Three."


def test_every_other_byte_of_a_relayed_answer_is_the_providers(http: httpx2.Client, upstream: Provider) -> None:
    odd = WHOLE.replace(b'"object"', b'"vendor": {"big":12345678901234567890123, "f":1.50}, "object"', 1)

    async def spoken(x: Exchange) -> None:
        x.answer(odd)

    upstream.scripts["spoken"] = spoken
    id_ = http.post(CONVERSATIONS, json={}).json()["id"]
    body = {"model": "speaks/spoken", "input": "x", "conversation": id_}
    answer = http.post(RESPONSES, json=body)
    assert b'{"big":12345678901234567890123, "f":1.50}' in answer.content
    ours = {"id", "conversation"}
    assert {k: v for k, v in answer.json().items() if k not in ours} == {
        k: v for k, v in json.loads(odd).items() if k not in ours
    }


# Pictures


def test_a_picture_is_kept_once_and_shown_again(http: httpx2.Client, upstream: Provider) -> None:
    id_ = http.post(CONVERSATIONS, json={}).json()["id"]
    parts = [{"type": "input_text", "text": "What is this?"}, {"type": "input_image", "image_url": PICTURE}]
    body = {"model": "up/answer", "input": [{"role": "user", "content": parts}], "conversation": id_}
    assert http.post(RESPONSES, json=body).status_code == 200
    items = http.get(f"{CONVERSATIONS}/{id_}/items?order=asc").json()["data"]
    url = items[0]["content"][1]["image_url"]
    assert re.fullmatch(r"artifact:art_\w+", url)
    got = http.get(f"/v1/artifacts/{url.removeprefix('artifact:')}/content")
    assert got.content == PNG
    whole = http.get(f"{CONVERSATIONS}/{id_}/items?order=asc&include[]=message.input_image.image_url").json()["data"]
    assert whole[0]["content"][1]["image_url"] == PICTURE
    assert http.post(RESPONSES, json=body | {"input": "And now?"}).status_code == 200
    assert said(upstream, 2)[0]["content"][1]["image_url"]["url"] == PICTURE
    again = [{"role": "user", "content": [{"type": "input_image", "image_url": url}]}]
    assert http.post(RESPONSES, json=body | {"input": again}).status_code == 200
    assert said(upstream, 3)[-1]["content"][0]["image_url"]["url"] == PICTURE


def test_a_picture_that_was_made_can_be_spoken_of(http: httpx2.Client, upstream: Provider) -> None:
    id_ = http.post("/v1/sessions", json={}).json()["id"]
    made = http.post(
        f"/v1/sessions/{id_}/generate",
        json={"model": "fake/picture", "modality": "image", "input": {"prompt": "A cat."}},
    )
    assert made.status_code == 200, made.text
    items = http.get(f"{CONVERSATIONS}/{id_}/items?order=asc").json()["data"]
    assert [item["type"] for item in items] == ["message", "image_generation_call"]
    assert items[1]["result"] is None
    one = http.get(f"{CONVERSATIONS}/{id_}/items/{items[1]['id']}").json()
    picture = http.get(f"/v1/artifacts/{items[1]['id']}/content").content
    assert base64.b64decode(one["result"]) == picture
    for n, (model, shown) in enumerate([("seeing", True), ("up/answer", False), ("blind", False)]):
        # Of a model that nobody has described it is not known whether it sees: it is told of what it was not given.
        answer = http.post(RESPONSES, json={"model": model, "input": "What is in it?", "conversation": id_})
        assert answer.status_code == 200
        told = json.dumps(said(upstream, n + 1))
        assert (base64.b64encode(picture).decode() in told) == shown, model
        assert f"artifact {items[1]['id']}" in told


# What does not fit


def test_too_much_is_cut_only_where_the_client_says_so(http: httpx2.Client, upstream: Provider) -> None:
    async def small(x: Exchange) -> None:
        if len(x.json["messages"]) > 3:
            words = "This model's maximum context length is 8192 tokens."
            body = wire.error(words, code="context_length_exceeded", param="messages")
            x.answer(body, "400 Bad Request")
            return
        x.answer(wire.completion("Fits."))

    upstream.scripts["small"] = small
    items = [user(f"Number {n}.") for n in range(5)]
    id_ = http.post(CONVERSATIONS, json={}).json()["id"]
    for item in items:
        http.post(f"{CONVERSATIONS}/{id_}/items", json={"items": [item]})
    body = {"model": "up/small", "input": "Last.", "conversation": id_}
    refused = http.post(RESPONSES, json=body)
    assert (refused.status_code, error_of(refused)["code"]) == (400, "context_length_exceeded")
    fits = http.post(RESPONSES, json=body | {"truncation": "auto"})
    assert fits.status_code == 200
    assert fits.json()["truncation"] == "auto"
    told = [message["content"] for message in upstream.seen[-1].json["messages"]]
    assert told[-1] == "Last."
    assert told[:-1] == [f"Number {n}." for n in range(5)][5 - len(told) + 1 :], "the newest are left"
    assert len(http.get(f"{CONVERSATIONS}/{id_}/items").json()["data"]) == 7, "nothing is lost"


# Who may


def test_what_is_not_there_and_what_is_anothers_is_the_same(http: httpx2.Client, rival: httpx2.Client) -> None:
    theirs = http.post(CONVERSATIONS, json={"items": [user("Secret.")]}).json()["id"]
    item = http.get(f"{CONVERSATIONS}/{theirs}/items").json()["data"][0]["id"]
    absent = theirs[:-1] + ("0" if theirs[-1] != "0" else "1")
    for method, path, body in (
        ("GET", "", None),
        ("POST", "", {"metadata": {}}),
        ("DELETE", "", None),
        ("GET", "/items", None),
        ("POST", "/items", {"items": [user("x")]}),
        ("GET", f"/items/{item}", None),
        ("DELETE", f"/items/{item}", None),
    ):
        told = {}
        for id_ in (theirs, absent):
            answer = rival.request(method, f"{CONVERSATIONS}/{id_}{path}", json=body)
            assert answer.status_code == 404, (method, path, answer.text)
            told[id_] = answer.text.replace(id_, "ID")
        assert told[theirs] == told[absent]
    told = {}
    for id_ in (theirs, absent):
        for conversation in (id_, {"id": id_}):
            answer = rival.post(RESPONSES, json={"model": "fake/fake", "input": "x", "conversation": conversation})
            assert answer.status_code == 404
            told[id_] = answer.text.replace(id_, "ID")
    assert told[theirs] == told[absent]
    assert len(http.get(f"{CONVERSATIONS}/{theirs}/items").json()["data"]) == 1


def test_it_needs_both_scopes(talking: Gateway, http: httpx2.Client) -> None:
    id_ = http.post(CONVERSATIONS, json={}).json()["id"]
    with speaking(talking, {"authorization": f"Bearer {PLAIN_KEY}"}) as plain:
        assert plain.get(f"{CONVERSATIONS}/{id_}").status_code == 403
        answer = plain.post(RESPONSES, json={"model": "fake/fake", "input": "x", "conversation": id_})
        assert (answer.status_code, error_of(answer)["code"]) == (403, "insufficient_scope")
        assert plain.post(RESPONSES, json={"model": "fake/fake", "input": "x"}).status_code == 200


def test_what_cannot_be_asked_is_refused(http: httpx2.Client) -> None:
    id_ = http.post(CONVERSATIONS, json={"items": [user("One."), user("Two.")]}).json()["id"]
    first = http.post(RESPONSES, json={"model": "fake/fake", "input": "x"}).json()["id"]
    for fields, status, param, code in (
        ({"conversation": id_, "previous_response_id": first}, 400, "conversation", "mutually_exclusive_parameters"),
        ({"conversation": {}}, 400, "conversation.id", "missing_required_parameter"),
        ({"conversation": {"id": 3}}, 400, "conversation.id", "invalid_type"),
        ({"conversation": 3}, 400, "conversation", "invalid_type"),
        ({"conversation": id_, "background": True}, 400, "background", "unsupported_parameter"),
        ({"conversation": "conv_\x00"}, 404, None, None),
        ({"conversation": "x" * 5000}, 404, None, None),
        ({"conversation": ""}, 400, "conversation", "invalid_value"),
        ({"conversation": {"id": ""}}, 400, "conversation.id", "invalid_value"),
        (
            {"conversation": id_, "input": [{"type": "reasoning", "summary": 5}]},
            400,
            "input[0].summary",
            "invalid_type",
        ),
        ({"input": [{"type": "reasoning", "content": 1.5}]}, 400, "input[0].content", "invalid_type"),
        ({"conversation": id_, "input": [{"type": "nope"}]}, 400, "input[0].type", "invalid_value"),
    ):
        answer = http.post(RESPONSES, json={"model": "fake/fake", "input": "x"} | fields)
        assert answer.status_code == status, answer.text
        assert (error_of(answer)["param"], error_of(answer)["code"]) == (param, code), answer.text


def test_what_is_closed_is_not_gone_on_with(http: httpx2.Client) -> None:
    id_ = http.post(CONVERSATIONS, json={"items": [user("One.")]}).json()["id"]
    assert http.post(f"/v1/sessions/{id_}/close").status_code == 200
    item = http.get(f"{CONVERSATIONS}/{id_}/items").json()["data"][0]["id"]
    for method, path, body in (
        ("POST", RESPONSES, {"model": "fake/fake", "input": "x", "conversation": id_}),
        ("POST", f"{CONVERSATIONS}/{id_}", {"metadata": {}}),
        ("POST", f"{CONVERSATIONS}/{id_}/items", {"items": [user("x")]}),
        ("DELETE", f"{CONVERSATIONS}/{id_}/items/{item}", None),
    ):
        answer = http.request(method, path, json=body)
        assert (answer.status_code, error_of(answer)["code"]) == (409, "conflict"), answer.text
    assert http.delete(f"{CONVERSATIONS}/{id_}").status_code == 200

"""Which route answers, and what becomes of those that fail: as a client, its provider and an operator see it."""

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import anthropic
import httpx2
import openai
import pytest

from tests.exchange import Exchange, Script
from tests.faults.dialects import INPUT_TOKENS, TEXT
from tests.faults.provider import Faults, faults
from tests.gateway.api.test_embeddings import embed
from tests.gateway.conftest import speaking
from tests.http import CHAT, chat, error_of, in_band_error, metric, text_of
from tests.process import Gateway, gateway
from tests.provider import Provider
from tests.scripts import events, silent, stall, status

GENERATE = "/v1/generate"
COOLDOWN_S = 2.0
IMAGE = "data:image/png;base64,iVBORw0KGgo="
LONG = "word " * 100
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
BLIND = {"capabilities": ["tools"], "context_length": 50}
"""What is said of a route that takes tools, but no images and no more than 300 characters."""


def config(provider: str, faulty: str) -> dict[str, Any]:
    def to_provider(**fields: Any) -> dict[str, Any]:
        return {"kind": "openai", "base_url": provider, "api_key": "k", **fields}

    def named(*routes: Any, **fields: Any) -> dict[str, Any]:
        return {"routes": list(routes), "retries": 0, **fields}

    broken = ["faulty/cut:20", "faulty/ok"]
    broken_messages = ["faulty-claude/cut:20", "faulty-claude/ok"]
    return {
        "breaker": {"cooldown_s": COOLDOWN_S},
        "backends": {
            "up": to_provider(),
            "checked": to_provider(),
            "box": to_provider(price="local"),
            "paying": to_provider(preset="groq"),
            "gratis": {"kind": "fake"},
            "dear": {"kind": "fake", "price": "paid"},
            "local": {"kind": "local"},
            "faulty": {"kind": "openai", "base_url": f"{faulty}/v1", "api_key": "k"},
            "faulty-claude": {"kind": "anthropic", "base_url": faulty, "api_key": "k"},
        },
        "models": {
            "auto": {
                "routes": {"text": ["up/texts"], "embedding": ["up/vectors"]},
            },
            "weighted": named(
                {"to": "up/heavy", "weight": 3}, {"to": "up/light"}, {"to": "up/never", "weight": 0},
                strategy="weighted",
            ),
            "fast": named("up/slow", "up/fast", strategy="latency"),
            "fast or new": named("up/slow", "up/fast", "up/new", strategy="latency"),
            "even": named("up/one", "up/two", "up/three", strategy="least_busy"),
            "able": named({"to": "up/blind", **BLIND}, "up/all"),
            "unable": named({"to": "up/blind", **BLIND}, {"to": "up/blind too", **BLIND}),
            "embedded": named("local/smollm2-135m-instruct", "up/vectors"),
            "priced": named("up/unpriced", "paying/paid", "gratis/free", "box/own"),
            "counted": named("faulty-claude/ok", "local/smollm2-135m-instruct"),
            "impatient": named("up/resting", "up/all"),
            "dear": named("up/unpriced", "dear/fake"),
            "ejected": named("checked/failing", "checked/well"),
            "lonely": named("up/alone"),
            "refusing": named("up/refusing", "up/not asked"),
            "hurried": named("up/sleeping", "up/sleeping too"),
            "patient": named("up/silent", timeouts={"total_s": 0.2}),
            "resumed": named(*broken, stream_guard="resume"),
            "buffered": named(*broken, stream_guard="buffer"),
            "unguarded": named(*broken),
            "resumed messages": named(*broken_messages, stream_guard="resume"),
            "buffered messages": named(*broken_messages, stream_guard="buffer"),
            "unguarded messages": named(*broken_messages),
            "resumed alone": named("faulty/cut:20,ok@alone", stream_guard="resume", retries=1),
            "unresumed": named("faulty/cut:20", "faulty/other", stream_guard="resume"),
        },
    }  # fmt: skip


@pytest.fixture(scope="module")
def faulty() -> Iterator[Faults]:
    with faults() as running:
        yield running


@pytest.fixture(scope="module")
def running_router(
    running_provider: Provider, faulty: Faults, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    with gateway(tmp_path_factory.mktemp("router"), config(running_provider.url, faulty.url)) as running:
        yield running


@pytest.fixture
def router(running_router: Gateway, upstream: Provider) -> Gateway:
    """A gateway whose provider answers under every name the configuration has."""
    for name in (
        "heavy", "light", "never", "fast", "new", "one", "two", "three", "all", "blind", "blind too", "texts", "paid",
        "own", "unpriced", "well", "not asked",
    ):  # fmt: skip
        upstream.scripts[name] = events
    upstream.scripts |= {"slow": after(0.15), "vectors": embed, "failing": refusing(500), "alone": refusing(500)}
    upstream.scripts |= {"refusing": refusing(400), "sleeping": silent, "sleeping too": silent}
    return running_router


@pytest.fixture
def http(router: Gateway) -> Iterator[httpx2.Client]:
    with speaking(router) as client:
        yield client


def after(seconds: float) -> Script:
    async def late(x: Exchange) -> None:
        await asyncio.sleep(seconds)
        await events(x)

    return late


def refusing(code: int) -> Script:
    async def refuse(x: Exchange) -> None:
        await status(x, str(code))

    return refuse


def asked(upstream: Provider) -> list[str]:
    """The models that the provider was asked for, in order."""
    return [x.model for x in upstream.seen if x.path != "/v1/models"]


def checks(http: httpx2.Client) -> dict[str, str]:
    answer = http.get("/ready")
    assert answer.status_code == 200, "routes in trouble do not take the gateway out"
    found: dict[str, str] = answer.json()["checks"]
    return found


# --- Strategies -------------------------------------------------------------------------------------


def test_weights_share_the_traffic_out(http: httpx2.Client, upstream: Provider) -> None:
    for _ in range(120):
        http.post(CHAT, json=chat("weighted")).raise_for_status()
    counts = Counter(asked(upstream))
    assert set(counts) == {"heavy", "light"}, "a weight of 0 is for when all others have failed"
    assert 66 <= counts["heavy"] <= 112  # 90 expected, five standard deviations


def test_what_weighs_nothing_is_the_last_resort(http: httpx2.Client, upstream: Provider) -> None:
    upstream.scripts |= {"heavy": refusing(400), "light": refusing(400)}
    assert http.post(CHAT, json=chat("weighted")).status_code == 400
    upstream.scripts |= {"heavy": refusing(503), "light": refusing(503)}
    http.post(CHAT, json=chat("weighted")).raise_for_status()
    assert asked(upstream)[-1] == "never"


def test_the_faster_backend_gets_the_streams_and_a_new_one_is_tried(http: httpx2.Client, upstream: Provider) -> None:
    def stream(model: str) -> None:
        assert text_of(http.post(CHAT, json=chat(model, stream=True)).raise_for_status().content)

    for model in ("up/slow", "up/fast", "up/slow", "up/fast"):
        stream(model)
    upstream.seen.clear()
    for _ in range(10):
        stream("fast")
    assert Counter(asked(upstream))["fast"] >= 9
    upstream.seen.clear()
    upstream.scripts["new"] = after(0.3)
    for _ in range(12):
        stream("fast or new")
    assert 1 <= asked(upstream).count("new") <= 3, "it is tried, and found to be the slowest"


def test_streams_are_spread_by_how_many_are_under_way(http: httpx2.Client, upstream: Provider) -> None:
    upstream.scripts |= {"one": stall, "two": stall, "three": stall}
    with ExitStack() as open_streams:
        for _ in range(6):
            open_streams.enter_context(http.stream("POST", CHAT, json=chat("even", stream=True)))
        assert Counter(asked(upstream)) == {"one": 2, "two": 2, "three": 2}


# --- Abilities --------------------------------------------------------------------------------------


def with_image(**fields: Any) -> dict[str, Any]:
    parts = [{"type": "text", "text": "What is it?"}, {"type": "image_url", "image_url": {"url": IMAGE}}]
    return {"messages": [{"role": "user", "content": parts}], **fields}


SOURCE = {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}


@pytest.mark.parametrize(
    ("path", "body", "answers"),
    [
        (CHAT, chat(""), "blind"),
        (CHAT, chat("", tools=[TOOL]), "blind"),
        (CHAT, chat("", tools=[]), "blind"),
        (CHAT, chat("", LONG), "all"),
        (CHAT, chat("", "ü" * 200), "blind"),
        (CHAT, chat("", 'Say "image_url" and "type": "image".'), "blind"),
        (CHAT, with_image(), "all"),
        ("/v1/completions", {"prompt": LONG}, "all"),
        ("/v1/responses", {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": IMAGE}]}]},
         "all"),
        ("/v1/messages", {"max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]}, "blind"),
        ("/v1/messages",
         {"max_tokens": 9, "messages": [{"role": "user", "content": [{"type": "image", "source": SOURCE}]}]}, "all"),
        (GENERATE, {"input": {"prompt": "What is it?", "images": [IMAGE]}}, "all"),
        (GENERATE, {"input": {"prompt": LONG}}, "all"),
    ],
)  # fmt: skip
def test_a_request_goes_to_a_route_that_can_do_it(
    http: httpx2.Client, upstream: Provider, path: str, body: dict[str, Any], answers: str
) -> None:
    http.post(path, json=body | {"model": "able"})
    assert asked(upstream) == [answers]


def test_where_none_can_the_first_is_asked_as_they_stand(http: httpx2.Client, upstream: Provider) -> None:
    http.post(CHAT, json=with_image(model="unable")).raise_for_status()
    http.post(CHAT, json=chat("unable", LONG)).raise_for_status()
    upstream.scripts["blind"] = refusing(400)
    answer = http.post(CHAT, json=with_image(model="unable"))
    assert (answer.status_code, error_of(answer)["type"]) == (400, "some_error")
    assert asked(upstream) == ["blind", "blind", "blind"], "the backend's own refusal is the answer"


def test_embeddings_are_not_asked_of_a_model_that_writes(http: httpx2.Client, upstream: Provider) -> None:
    answer = http.post("/v1/embeddings", json={"model": "embedded", "input": "a"}).raise_for_status()
    assert answer.headers["x-gateway-model"] == "up/vectors"
    assert answer.headers["x-gateway-attempts"] == "1"


def test_auto_picks_by_modality(http: httpx2.Client, upstream: Provider) -> None:
    assert http.post(CHAT, json=chat("auto")).headers["x-gateway-model"] == "up/texts"
    assert http.post(GENERATE, json={"input": {"prompt": "Hi"}}).headers["x-gateway-model"] == "up/texts"
    for named in ({"model": "auto"}, {"model": ""}):
        answer = http.post("/v1/embeddings", json={"input": "a", **named})
        assert answer.headers["x-gateway-model"] == "up/vectors"
    refused = http.post("/v1/images/generations", json={"model": "auto", "prompt": "a"})
    error = error_of(refused)
    assert (refused.status_code, error["code"]) == (404, "model_not_found")
    assert "image" in error["message"]
    assert "embedding" in error["message"]


def test_a_model_with_routes_by_modality_is_listed_with_them(http: httpx2.Client, upstream: Provider) -> None:
    def auto(**query: str) -> list[tuple[str, str, list[str]]]:
        data = http.get("/v1/models", params=query).raise_for_status().json()["data"]
        return [(m["backend"], m["modality"], m["routes"]) for m in data if m["id"] == "auto"]

    routes = ["up/texts", "up/vectors"]
    assert auto() == auto(modality="text") == auto(backend="up") == [("up", "text", routes)]
    assert auto(modality="embedding") == [("up", "embedding", routes)]
    assert auto(modality="image") == auto(backend="box") == []
    assert http.get("/v1/models/auto").raise_for_status().json()["routes"] == routes


# --- Selection modes --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "answers"),
    [
        ("auto", "up/unpriced"),
        ("local_only", "box/own"),
        ("free_only", "gratis/free"),
        ("commercial_only", "paying/paid"),
    ],
)
def test_a_selection_mode_leaves_routes_out_by_price(
    http: httpx2.Client, upstream: Provider, mode: str, answers: str
) -> None:
    by_field = http.post(GENERATE, json={"model": "priced", "input": {"prompt": "Hi"}, "selection_mode": mode})
    assert by_field.json()["backend"] == answers.partition("/")[0]
    by_header = http.post(CHAT, json=chat("priced"), headers={"x-gateway-selection-mode": mode})
    assert by_field.headers["x-gateway-model"] == by_header.headers["x-gateway-model"] == answers
    if mode == "free_only":
        upstream.seen.clear()
        anywhere = http.post(CHAT, json=chat("box/own"), headers={"x-gateway-selection-mode": mode})
        assert anywhere.status_code == 200, "what runs here costs nothing"


def test_a_request_s_own_mode_goes_before_the_header(http: httpx2.Client) -> None:
    body = {"model": "priced", "input": {"prompt": "Hi"}, "selection_mode": "local_only"}
    answer = http.post(GENERATE, json=body, headers={"x-gateway-selection-mode": "commercial_only"})
    assert answer.headers["x-gateway-model"] == "box/own"


def test_the_configured_price_goes_before_the_kind_s(http: httpx2.Client) -> None:
    answer = http.post(CHAT, json=chat("dear"), headers={"x-gateway-selection-mode": "commercial_only"})
    assert answer.headers["x-gateway-model"] == "dear/fake"
    refused = http.post(CHAT, json=chat("dear"), headers={"x-gateway-selection-mode": "free_only"})
    assert refused.status_code == 400


def test_a_mode_that_there_is_not_is_refused(http: httpx2.Client, upstream: Provider) -> None:
    by_header = http.post(CHAT, json=chat("priced"), headers={"x-gateway-selection-mode": "cheap"})
    assert (by_header.status_code, error_of(by_header)["param"]) == (400, "x-gateway-selection-mode")
    by_field = http.post(GENERATE, json={"model": "priced", "input": {"prompt": "Hi"}, "selection_mode": "cheap"})
    assert (by_field.status_code, error_of(by_field)["param"]) == (400, "selection_mode")
    assert asked(upstream) == []


def test_a_mode_that_allows_no_route_is_refused(http: httpx2.Client, upstream: Provider) -> None:
    for body in ({"model": "up/unpriced"}, {"model": "paying/paid"}, {"model": "dear"}):
        refused = http.post(GENERATE, json={**body, "input": {"prompt": "Hi"}, "selection_mode": "local_only"})
        assert refused.status_code == 400
        assert (error_of(refused)["param"], error_of(refused)["code"]) == ("selection_mode", "unsupported_value")
    assert asked(upstream) == []


def test_counting_tokens_heeds_the_mode(http: httpx2.Client, upstream: Provider) -> None:
    body = {"model": "counted", "messages": [{"role": "user", "content": "Hi"}]}
    headers = {"x-gateway-selection-mode": "local_only"}
    answer = http.post("/v1/messages/count_tokens", json=body, headers=headers)
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-gateway-backend"] == "local"
    assert answer.json()["input_tokens"] > 0


# --- The breaker ------------------------------------------------------------------------------------


def test_a_route_that_keeps_failing_is_left_alone_and_probed(
    router: Gateway, http: httpx2.Client, upstream: Provider
) -> None:
    def ask(_: int = 0) -> str:
        return str(http.post(CHAT, json=chat("ejected")).raise_for_status().headers["x-gateway-model"])

    for _ in range(5):
        assert ask() == "checked/well"
    opened = time.monotonic()
    assert asked(upstream).count("failing") == 5
    for _ in range(3):
        assert ask() == "checked/well"
    assert time.monotonic() - opened > COOLDOWN_S or asked(upstream).count("failing") == 5
    shown = checks(http)["route:checked/failing"]
    assert shown.startswith("open, after upstream_error"), shown
    assert metric(router.url, "pluggably_breakers_open", backend="checked") == 1

    upstream.scripts["failing"] = after(0.4)
    time.sleep(max(0.0, opened + COOLDOWN_S - time.monotonic()) + 0.05)
    with ThreadPoolExecutor(5) as pool:
        answers = list(pool.map(ask, range(5)))
    assert Counter(answers) == {"checked/failing": 1, "checked/well": 4}, "one request probes"
    assert ask() == "checked/failing"
    assert "route:checked/failing" not in checks(http)
    assert metric(router.url, "pluggably_breakers_open", backend="checked") == 0


def test_the_only_route_is_never_left_alone(http: httpx2.Client, upstream: Provider) -> None:
    for _ in range(8):
        assert http.post(CHAT, json=chat("lonely")).status_code == 502
    assert "route:up/alone" in checks(http)
    assert len(asked(upstream)) == 8
    upstream.scripts["alone"] = events
    http.post(CHAT, json=chat("lonely")).raise_for_status()
    assert "route:up/alone" not in checks(http)


def test_what_clients_do_wrong_does_not_count_against_a_route(http: httpx2.Client, upstream: Provider) -> None:
    for _ in range(25):
        assert http.post(CHAT, json=chat("refusing")).status_code == 400
    assert "route:up/refusing" not in checks(http)
    upstream.scripts["refusing"] = events
    assert http.post(CHAT, json=chat("refusing")).headers["x-gateway-model"] == "up/refusing"
    assert "not asked" not in asked(upstream)


def test_a_route_that_asks_for_rest_gets_it(http: httpx2.Client, upstream: Provider) -> None:
    async def busy(x: Exchange) -> None:
        await status(x, "429", "60")

    upstream.scripts["resting"] = busy
    for _ in range(3):
        assert http.post(CHAT, json=chat("impatient")).headers["x-gateway-model"] == "up/all"
    assert asked(upstream).count("resting") == 1
    assert checks(http)["route:up/resting"].startswith("resting, after rate_limit_exceeded")


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_s_hurry_does_not_count_against_a_route(http: httpx2.Client, stream: bool) -> None:
    hurry = {"x-request-timeout": "0.2"}
    with ThreadPoolExecutor(8) as pool:
        asking = [pool.submit(http.post, CHAT, json=chat("hurried", stream=stream), headers=hurry) for _ in range(8)]
    assert {request.result().status_code for request in asking} == {504}
    assert not {"route:up/sleeping", "route:up/sleeping too"} & set(checks(http))


def test_a_time_limit_that_is_the_model_s_own_counts(http: httpx2.Client) -> None:
    with ThreadPoolExecutor(6) as pool:
        patience = {"x-request-timeout": "60"}
        asking = [pool.submit(http.post, CHAT, json=chat("patient"), headers=patience) for _ in range(6)]
    assert {request.result().status_code for request in asking} == {504}
    assert "route:up/silent" in checks(http)


# --- Asking again -----------------------------------------------------------------------------------


def test_trouble_is_not_multiplied(running_provider: Provider, upstream: Provider, tmp_path: Any) -> None:
    requests = 300
    # The breaker is out of the way: asking again has a budget of its own.
    tree = {
        "breaker": {"failures": 100_000, "window_requests": 100_000},
        "backends": {"up": {"kind": "openai", "base_url": running_provider.url, "api_key": "k"}},
        "models": {"hopeless": {"routes": ["up/hopeless"], "retries": 2}},
    }
    upstream.scripts["hopeless"] = refusing(500)
    with gateway(tmp_path, tree) as running, speaking(running) as http, ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: http.post(CHAT, json=chat("hopeless")), range(requests)))
    assert {answer.status_code for answer in answers} == {502}
    assert {answer.headers["x-should-retry"] for answer in answers} == {"false"}
    assert sum(int(answer.headers["x-gateway-attempts"]) for answer in answers) == len(asked(upstream))
    assert requests < len(asked(upstream)) <= 1.2 * requests + 3


# --- Streams that break off -------------------------------------------------------------------------


@pytest.fixture
def chats(router: Gateway, sdk_http: httpx2.Client) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{router.url}/v1", api_key="x", max_retries=0, http_client=sdk_http)


@pytest.fixture
def messages(router: Gateway) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=router.url, api_key="x", max_retries=0) as client:
        yield client


HELLO: Any = [{"role": "user", "content": "Say them."}]


@pytest.mark.parametrize("guard", ["resumed", "buffered"])
@pytest.mark.parametrize("lane", ["relayed", "translated"])
def test_an_openai_client_does_not_notice_that_a_stream_broke_off(chats: openai.OpenAI, guard: str, lane: str) -> None:
    model = guard if lane == "relayed" else f"{guard} messages"
    stream = chats.chat.completions.create(
        model=model, messages=HELLO, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == TEXT
    assert len({c.id for c in chunks}) == 1
    assert [c.choices[0].finish_reason for c in chunks if c.choices and c.choices[0].finish_reason] == ["stop"]
    assert sum(c.choices[0].delta.role is not None for c in chunks if c.choices) == 1
    usages = [c.usage for c in chunks if c.usage]
    assert len(usages) == 1
    assert usages[0].prompt_tokens >= INPUT_TOKENS
    assert usages[0].completion_tokens > 0


@pytest.mark.parametrize("guard", ["resumed", "buffered"])
@pytest.mark.parametrize("lane", ["relayed", "translated"])
def test_an_anthropic_client_does_not_notice_that_a_stream_broke_off(
    messages: anthropic.Anthropic, guard: str, lane: str
) -> None:
    model = f"{guard} messages" if lane == "relayed" else guard
    kinds = []
    with messages.messages.stream(model=model, max_tokens=100, messages=HELLO) as stream:
        for event in stream:
            kinds.append(event.type)
        whole = stream.get_final_message()
    assert [part.text for part in whole.content if part.type == "text"] == [TEXT], "one block, all of it"
    assert whole.stop_reason == "end_turn"
    assert kinds.count("message_start") == kinds.count("message_stop") == 1
    assert kinds.count("content_block_start") == kinds.count("content_block_stop") == 1
    assert whole.usage.output_tokens > 0


def test_without_a_guard_a_broken_stream_ends_with_an_error(
    http: httpx2.Client, chats: openai.OpenAI, messages: anthropic.Anthropic
) -> None:
    body = http.post(CHAT, json=chat("unguarded", stream=True)).content
    assert text_of(body)
    assert TEXT.startswith(text_of(body))
    assert in_band_error(body)["code"] == "upstream_bad_response"
    with pytest.raises(openai.APIError, match="ended before"):
        list(chats.chat.completions.create(model="unguarded", messages=HELLO, stream=True))
    with (
        pytest.raises(anthropic.APIStatusError, match="ended before"),
        messages.messages.stream(model="unguarded messages", max_tokens=100, messages=HELLO) as stream,
    ):
        stream.get_final_message()


def test_a_route_that_broke_off_is_asked_again_where_there_is_no_other(http: httpx2.Client, faulty: Faults) -> None:
    body = http.post(CHAT, json=chat("resumed alone", stream=True)).content
    assert text_of(body) == TEXT
    assert body.endswith(b"data: [DONE]\n\n")
    assert len(faulty.seen("cut:20,ok@alone")) == 2


def test_an_answer_that_does_not_join_is_not_joined(http: httpx2.Client) -> None:
    body = http.post(CHAT, json=chat("unresumed", stream=True)).content
    assert text_of(body)
    assert TEXT.startswith(text_of(body))
    assert in_band_error(body)["code"] == "upstream_bad_response"

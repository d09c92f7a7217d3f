"""Whatever a client sends, the answer is OpenAI's error shape and never a 500."""

import gzip
import json
from typing import Any

import httpx2
import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam

from tests.gateway.conftest import APP_KEY, BODY_LIMIT, UPSTREAM_KEY
from tests.http import CHAT, chat, error_of, post, raw, raw_answer, shaped
from tests.process import Gateway

JSON = {"content-type": "application/json"}
KEY = f"authorization: Bearer {APP_KEY}"
HI = [{"role": "user", "content": "Hi"}]
GOOD = json.dumps(chat("up/answer")).encode()


@pytest.mark.parametrize(
    "path", ["/", "/v1", "/v1/nothing", "/v1/chat/completions/", "/v2/chat", "/%ff", "/v1/chat//", "/docs/x"]
)
def test_an_unknown_path_is_404(client: httpx2.Client, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 404
    assert error_of(answer)["type"] == "invalid_request_error"


def test_who_has_no_key_is_not_shown_which_words_are_secrets(anonymous: httpx2.Client) -> None:
    for method, there, nowhere in (
        ("GET", f"/{UPSTREAM_KEY}", "/nothing"),
        ("PUT", f"/v1/models/{UPSTREAM_KEY}", "/v1/models/nothing"),
    ):
        first, second = anonymous.request(method, there), anonymous.request(method, nowhere)
        assert first.text == second.text
        assert "[redacted]" not in first.text
    given = {"x-request-id": UPSTREAM_KEY}
    assert anonymous.get("/health", headers=given).headers["x-request-id"] == UPSTREAM_KEY
    assert anonymous.get("/nothing", headers=given).headers["x-request-id"] == UPSTREAM_KEY


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", CHAT, "POST"),
        ("DELETE", "/v1/generate", "POST"),
        ("PUT", CHAT, "POST"),
        ("PUT", "/v1/models", "GET"),
        ("POST", "/health", "GET"),
        ("PATCH", "/openapi.json", "GET"),
    ],
)
def test_a_wrong_method_is_405_and_says_which_are_allowed(
    client: httpx2.Client, method: str, path: str, allowed: str
) -> None:
    answer = client.request(method, path)
    assert answer.status_code == 405
    assert allowed in answer.headers["allow"]
    error_of(answer)


@pytest.mark.parametrize("path", [CHAT, "/v1/generate"])
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"not json",
        b"[]",
        b'"text"',
        b"null",
        b"12",
        b"\xff\xfe",
        b'{"model":"\xff"}',
        b'{"model":"\\ud800","messages":[{"role":"user"}],"input":{"prompt":"x"}}',
        b'\xef\xbb\xbf{"model":"up/answer"}',
        b'{"messages":' + b"[" * 65 + b"]" * 65 + b"}",
        b'{"a":' * 100_000,
        b"[" * 100_000,
        b'{"messages":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"model":1e999,"messages":[{"role":"user"}]}',
    ],
    ids=lambda body: repr(body[:20]),
)
def test_a_body_that_cannot_be_read_is_400(client: httpx2.Client, path: str, body: bytes) -> None:
    answer = client.post(path, content=body, headers=JSON)
    assert answer.status_code == 400
    assert error_of(answer)["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        ({"model": "up/answer"}, "messages", "missing_required_parameter"),
        ({"model": "up/answer", "messages": None}, "messages", "missing_required_parameter"),
        ({"model": "up/answer", "messages": "hi"}, "messages", "invalid_type"),
        ({"model": "up/answer", "messages": []}, "messages", "empty_array"),
        ({"model": "up/answer", "messages": ["hi"]}, "messages[0]", "invalid_type"),
        ({"model": "up/answer", "messages": [{}]}, "messages[0].role", "missing_required_parameter"),
        ({"model": "up/answer", "messages": [{"role": 1}]}, "messages[0].role", "invalid_type"),
        (chat("up/answer") | {"model": 7}, "model", "invalid_type"),
        (chat("up/answer", stream="yes"), "stream", "invalid_type"),
        (chat("up/answer", temperature="hot"), "temperature", "invalid_type"),
        (chat("up/answer", max_tokens="many"), "max_tokens", "invalid_type"),
        (chat("up/answer", stream=True, stream_options="x"), "stream_options", "invalid_type"),
        (chat("up/answer", tools={}), "tools", "invalid_type"),
        *[
            (chat("up/answer") | {name: "x"}, name, "unknown_parameter")
            for name in ("api_base", "base_url", "api_key", "api_version", "extra_headers", "extra_body")
        ],
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_wrong_field_is_400_and_named(client: httpx2.Client, body: dict[str, object], param: str, code: str) -> None:
    answer = client.post(CHAT, json=body)
    assert answer.status_code == 400
    error = error_of(answer)
    assert (error["type"], error["param"], error["code"]) == ("invalid_request_error", param, code)


@pytest.mark.parametrize(
    "model", ["nothing", "up", "up/", "nowhere/answer", "local/absent", "/", "*", "once", "\x00", "é" * 300]
)
def test_an_unknown_model_is_404(client: httpx2.Client, model: str) -> None:
    answer = client.post(CHAT, json=chat(model))
    assert answer.status_code == 404
    error = error_of(answer)
    assert (error["type"], error["param"], error["code"]) == ("invalid_request_error", None, "model_not_found")


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        (CHAT, {"messages": HI}),
        ("/v1/completions", {"prompt": "Hi"}),
        ("/v1/embeddings", {"input": "Hi"}),
        ("/v1/responses", {"input": "Hi"}),
        ("/v1/images/generations", {"prompt": "Hi"}),
        ("/v1/generate", {"input": {"prompt": "Hi"}}),
        ("/v1/messages", {"messages": HI, "max_tokens": 9}),
        ("/v1/messages/count_tokens", {"messages": HI}),
    ],
)
def test_a_name_longer_than_any_is_no_model_however_its_routes_end(
    client: httpx2.Client, path: str, fields: dict[str, Any]
) -> None:
    asked = fields | {"model": "up/answer:" + "x" * 20_000}
    answer = client.post(path, json=asked, headers={"x-gateway-explain": "true"})
    assert answer.status_code == 404
    assert len(answer.content) < 600
    assert "x-gateway-backend" not in answer.headers
    if path.startswith("/v1/messages"):
        assert answer.json()["error"]["type"] == "not_found_error"
    else:
        assert error_of(answer)["code"] == "model_not_found"


def test_a_form_that_names_one_has_no_model_either(client: httpx2.Client) -> None:
    form = {"model": "up/answer:" + "x" * 20_000, "prompt": "Hi"}
    answer = client.post("/v1/images/edits", data=form, files={"image": ("a.png", b"\x89PNG\r\n\x1a\n", "image/png")})
    assert (answer.status_code, error_of(answer)["code"]) == (404, "model_not_found")


def test_a_body_that_says_it_is_too_large_is_413_before_it_is_sent(house: Gateway) -> None:
    head = f"POST {CHAT} HTTP/1.1\r\nhost: localhost\r\n{KEY}\r\ncontent-type: application/json\r\n"
    status, body = raw_answer(house.port, f"{head}content-length: {BODY_LIMIT + 1}\r\n\r\n".encode())
    assert status == 413
    assert shaped(json.loads(body))["code"] == "request_too_large"


def test_a_body_that_turns_out_too_large_is_413(client: httpx2.Client) -> None:
    pieces = (b"x" * 100_000 for _ in range(1 + BODY_LIMIT // 100_000))
    answer = client.post(CHAT, content=pieces, headers=JSON)
    assert answer.status_code == 413
    assert error_of(answer)["code"] == "request_too_large"


def test_a_body_of_exactly_the_limit_is_read(client: httpx2.Client) -> None:
    body = GOOD[:-1] + b" " * (BODY_LIMIT - len(GOOD)) + b"}"
    assert client.post(CHAT, content=body, headers=JSON).status_code == 200


@pytest.mark.parametrize(
    "media", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"]
)
def test_another_media_type_is_415(client: httpx2.Client, media: str) -> None:
    answer = client.post(CHAT, content=GOOD, headers={"content-type": media})
    assert answer.status_code == 415
    assert error_of(answer)["code"] == "unsupported_media_type"


@pytest.mark.parametrize("media", ["application/json; charset=utf-8", "APPLICATION/JSON", "application/vnd.x+json"])
def test_json_by_any_of_its_names_is_read(client: httpx2.Client, media: str) -> None:
    assert client.post(CHAT, content=GOOD, headers={"content-type": media}).status_code == 200


@pytest.mark.parametrize("coding", ["br", "zstd", "compress", "gzip, gzip", "aes128gcm"])
def test_another_content_encoding_is_415(client: httpx2.Client, coding: str) -> None:
    answer = client.post(CHAT, content=gzip.compress(GOOD), headers=JSON | {"content-encoding": coding})
    assert answer.status_code == 415
    assert error_of(answer)["code"] == "unsupported_content_encoding"


@pytest.mark.parametrize("value", ["soon", "0", "-1", "nan", "inf", "1e9", "1s"])
def test_a_time_limit_that_is_no_time_is_400(client: httpx2.Client, value: str) -> None:
    answer = client.post(CHAT, json=chat("up/answer"), headers={"x-request-timeout": value})
    assert answer.status_code == 400
    assert error_of(answer)["param"] == "x-request-timeout"


def test_what_is_not_http_leaves_the_gateway_standing(house: Gateway, client: httpx2.Client) -> None:
    for junk in (b"\x16\x03\x01\x02\x00", b"GET\r\n\r\n", b"POST / HTTP/9\r\n\r\n", post(CHAT, b"")[:20]):
        with raw(house.port, junk):
            pass
    assert client.get("/health").json() == {"status": "ok"}


def test_the_sdk_raises_its_own_errors(sdk: openai.OpenAI) -> None:
    hello: ChatCompletionMessageParam = {"role": "user", "content": "x"}
    with pytest.raises(openai.NotFoundError) as unknown:
        sdk.chat.completions.create(model="nothing", messages=[hello])
    assert unknown.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as bad:
        sdk.chat.completions.create(model="up/answer", messages=[hello], extra_body={"api_base": "x"})
    assert bad.value.param == "api_base"
    with pytest.raises(openai.AuthenticationError):
        sdk.with_options(api_key="wrong").models.list()

"""Paths, hosts and headers that try to be taken for others: none leads past the guard of the route it reaches."""

from collections.abc import Iterator

import pytest

from gateway.auth.guard import PUBLIC
from tests.gateway.auth.matrix import ACME_KEY, DOORS, GUARDED, ROOT_KEY, Door, House
from tests.http import raw_answer

ODD = (
    "{}/", "/{}", "//{}", "{}//", "{}/.", "{}/..", "/./{}", "/x/../{}", "/health/../{}", "/health/..%2f{}",
    "/docs/..{}", "/docs/../{}", "/docs/%2e%2e{}", "{};x=1", "{}%00", "{}%20", "{}%0a", "{}%2f", "{}%3f", "{}.json",
    "{}%252f", "/health;{}", "/health%2f..{}", "/%2e{}", "{}#health", "/v1/models/..%2f..{}", "/V1{}",
    "\\{}", "/health\\..{}",
)  # fmt: skip
"""Ways to write a path; what stands for `{}` begins with a slash."""


def written(door: Door) -> Iterator[str]:
    for form in ODD:
        path = form.replace("{}", door.path)
        yield path if path.startswith(("/", "\\")) else f"/{path}"
    yield door.path.replace("/v1/", "/v1%2f")
    yield door.path.replace("v1", "V1").upper()
    yield door.path.replace("o", "%6F").replace("e", "%65")
    yield door.path.swapcase()


def test_no_way_of_writing_a_path_gets_a_stranger_in(running: House) -> None:
    """What a stranger sees is a refusal, or what everybody may see."""
    public = {running.ask("GET", door.path).body for door in DOORS if door.scope == PUBLIC and door.method == "GET"}
    page = running.ask("GET", "/docs").body
    for door in GUARDED:
        for path in written(door):
            answer = running.ask(door.method, path)
            fine = answer.status in (400, 401, 403, 404, 405) or answer.body in public or answer.body == page
            assert fine or path.startswith("/health"), f"{door.method} {path}: {answer}"
            assert answer.status < 500, f"{door.method} {path}: {answer}"


def test_no_way_of_writing_a_path_gets_a_user_where_administrators_may_go(running: House) -> None:
    for door in GUARDED:
        if door.scope == "admin":
            for path in written(door):
                answer = running.ask(door.method, path, {"x-api-key": ACME_KEY})
                assert answer.status in (400, 401, 403, 404, 405) or path.startswith(("/docs", "/health")), (
                    path,
                    answer,
                )
                assert b"created_by" not in answer.body, path


def test_percent_signs_in_a_path_are_read_once_and_the_guard_sees_what_the_route_sees(running: House) -> None:
    assert running.ask("GET", "/v1/k%65ys").status == 401
    assert running.ask("GET", "/v1/k%65ys", {"x-api-key": ACME_KEY}).status == 403
    assert running.ask("GET", "/v1/k%65ys", {"x-api-key": ROOT_KEY}).status == 200
    assert running.ask("GET", "/v1/k%2565ys", {"x-api-key": ROOT_KEY}).status == 404
    assert running.ask("POST", "/v1/ch%61t/completions", {"x-api-key": ACME_KEY}).status in (400, 404)


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1/v1/keys", "127.0.0.1?x=", "127.0.0.1#", "127.0.0.1\\@evil.test", "user@127.0.0.1", "127.0.0.1:80:80",
        "127.0.0.1:x", "evil.test/../127.0.0.1", "[::1", "127.0.0.1 evil.test", "127.0.0.1,evil.test", "",
    ],
)  # fmt: skip
def test_a_host_is_a_name_and_no_path(running: House, host: str) -> None:
    """Whatever stands there decides neither the route nor the guard."""
    for path, status in (("/v1/keys", 401), ("/health", 200)):
        request = f"GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n".encode()
        found, body = raw_answer(running.running.port, request)
        assert found in (status, 400, 403), body
        assert b"evil" not in body


def test_an_absolute_target_goes_by_its_path(running: House) -> None:
    for target, status in (("http://evil.test/v1/keys", 401), ("http://127.0.0.1/health/../v1/keys", 404)):
        request = f"GET {target} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n".encode()
        found, body = raw_answer(running.running.port, request)
        assert found in (status, 400, 403, 404), body


def test_headers_of_proxies_say_nothing_of_the_path_or_the_sender(running: House) -> None:
    headers = {
        "x-original-url": "/health",
        "x-rewrite-url": "/health",
        "x-forwarded-prefix": "/health",
        "x-forwarded-for": "127.0.0.1",
        "x-forwarded-host": "localhost",
        "x-forwarded-user": "root",
        "x-remote-user": "root",
        "x-real-ip": "127.0.0.1",
        "forwarded": "for=127.0.0.1",
    }
    for door in GUARDED:
        answer = running.ask(door.method, door.path, headers)
        assert answer.status == 401, f"{door}: {answer}"
        if door.scope == "admin":
            assert running.ask(door.method, door.path, headers | {"x-api-key": ACME_KEY}).status == 403, str(door)


def test_head_shows_no_more_than_get(running: House) -> None:
    for door in GUARDED:
        if door.method == "GET":
            answer = running.ask("HEAD", door.path)
            assert answer.status in (401, 405), str(door)
            assert answer.body == b""

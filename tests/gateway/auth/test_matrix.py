"""Nobody gets past the guard: every route, every caller, every form of a credential.

Nothing here is listed by hand: a new route is in the matrix from its first day, and fails here if it declares
no scope.
"""

from collections.abc import Callable

import pytest

from gateway.auth.guard import PUBLIC
from gateway.settings import SCOPES
from tests.gateway.auth.matrix import (
    ACME_KEY,
    DOORS,
    GUARDED,
    RIVAL_KEY,
    ROOT_KEY,
    UNLIKE,
    Door,
    House,
    Keys,
    held_to_shape,
    keys,
    said,
)

FORMS: dict[str, Callable[[str], dict[str, str]]] = {
    "bearer": lambda key: {"authorization": f"Bearer {key}"},
    "x-api-key": lambda key: {"x-api-key": key},
    "api-key": lambda key: {"api-key": key},
    "two that agree": lambda key: {"authorization": f"bearer {key}", "x-api-key": key},
    "all, one filled": lambda key: {"authorization": "", "x-api-key": "", "api-key": key},
}
"""The ways in which one key may be sent."""
MALFORMED = (
    {"authorization": ACME_KEY},
    {"authorization": f"Basic {ACME_KEY}"},
    {"authorization": "Bearer"},
    {"authorization": f"Bearer {ACME_KEY} {ACME_KEY}"},
    {"authorization": f"Bearer {ACME_KEY}, Bearer {ROOT_KEY}"},
    {"authorization": "Bearer \u00e9" * 9},
    {"x-api-key": "x" * 10_000},
    {"x-api-key": f"Bearer {ACME_KEY}"},
    {"x-api-key": f'"{ACME_KEY}"'},
    {"authorization": "Bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiJyb290In0."},
)
SUFFIXES = ("?api_key={}", "?key={}", "?access_token={}", "?token={}&x-api-key={}")
CARRIED = (
    {"cookie": "api_key={}; authorization=Bearer {}; x-api-key={}"},
    {"proxy-authorization": "Bearer {}"},
    {"x-goog-api-key": "{}"},
    {"x-forwarded-authorization": "Bearer {}"},
    {"x_api_key": "{}"},
)
"""Where a key is looked for elsewhere, and counts for nothing here."""


@pytest.fixture(scope="module")
def made(running: House) -> Keys:
    return keys(running)


def lacking(scope: str | None) -> str:
    """A key that is good for everything but this."""
    return f"matrix-all-but-{scope}-key"


def test_every_route_declares_a_scope_or_is_public() -> None:
    assert len(GUARDED) > 20
    for door in DOORS:
        assert door.scope == PUBLIC or door.scope in SCOPES, str(door)
        assert door.scope != PUBLIC or not door.template.startswith("/v1/"), f"{door} is open to everybody"
        if door.template.startswith(("/v1/keys", "/v1/audit")):
            assert door.scope == "admin", str(door)


def test_strangers_get_in_nowhere(running: House, made: Keys) -> None:
    strangers = (
        ACME_KEY[:-1],
        f"{ACME_KEY}x",
        UNLIKE,
        made.good[:-1] + "g",
        made.good.upper(),
        made.revoked,
        made.expired,
    )
    for door in GUARDED:
        without = running.ask(door.method, door.path)
        assert without.status == 401, f"{door}: {without}"
        held_to_shape(door, without)
        assert b"[redacted]" not in without.body, "a cure that cannot be read"
        for headers in (*({"x-api-key": key} for key in strangers), *MALFORMED):
            answer = running.ask(door.method, door.path, headers)
            assert answer.status == 401, f"{door} {headers}: {answer}"
            held_to_shape(door, answer)
            assert not any(key.encode() in answer.body for key in (*strangers, ACME_KEY, ROOT_KEY)), str(door)


def test_who_is_refused_is_refused_in_the_same_words_in_every_form(running: House, made: Keys) -> None:
    for door in GUARDED:
        unknown = set()
        for key in (UNLIKE, made.revoked, made.expired, lacking(door.scope)):
            answers = {said(running.ask(door.method, door.path, form(key))) for form in FORMS.values()}
            assert len(answers) == 1, f"{door}: {answers}"
            [(status, _)] = answers
            assert status == (403 if key == lacking(door.scope) else 401), str(door)
            if status == 401:
                unknown |= answers
        assert len(unknown) == 1, f"{door} tells what was a key once: {unknown}"


def test_a_key_without_the_scope_is_told_so(running: House) -> None:
    for door in GUARDED:
        answer = running.ask(door.method, door.path, {"x-api-key": lacking(door.scope)})
        assert answer.status == 403, f"{door}: {answer}"
        held_to_shape(door, answer)
        if door.method != "HEAD" and not door.anthropic:
            assert answer.json["error"]["code"] == "insufficient_scope", str(door)


def test_who_may_gets_in_in_every_form(running: House, made: Keys) -> None:
    for door in GUARDED:
        users = () if door.scope == "admin" else (ACME_KEY, RIVAL_KEY, made.good)
        for key in (ROOT_KEY, *users):
            statuses = set()
            for name, form in FORMS.items():
                answer = running.ask(door.method, door.path, form(key))
                outside = (502,) if door.template == "/v1/models/search" else ()
                assert answer.status in (200, 201, 400, 404, 405, *outside), f"{door} {name}: {answer}"
                if answer.status >= 400:
                    held_to_shape(door, answer)
                statuses.add(answer.status)
            assert len(statuses) == 1, f"{door}: {statuses}"


def test_two_keys_that_differ_are_400_whoever_they_are(running: House, made: Keys) -> None:
    for door in GUARDED:
        for one, other in ((ROOT_KEY, ACME_KEY), (ACME_KEY, UNLIKE), (UNLIKE, ROOT_KEY), (made.good, ROOT_KEY)):
            for headers in (
                {"authorization": f"Bearer {one}", "x-api-key": other},
                {"x-api-key": one, "api-key": other},
                {"api-key": one, "authorization": f"Bearer {other}"},
            ):
                answer = running.ask(door.method, door.path, headers)
                assert answer.status == 400, f"{door}: {answer}"
                held_to_shape(door, answer)


def test_a_key_counts_nowhere_but_in_its_headers(running: House) -> None:
    for door in GUARDED:
        for suffix in SUFFIXES:
            answer = running.ask(door.method, door.path + suffix.replace("{}", ROOT_KEY))
            assert answer.status == 401, f"{door} {suffix}: {answer}"
            assert ROOT_KEY.encode() not in answer.body
        for headers in CARRIED:
            filled = {name: value.replace("{}", ROOT_KEY) for name, value in headers.items()}
            answer = running.ask(door.method, door.path, filled)
            assert answer.status == 401, f"{door} {headers}: {answer}"
    assert all(ROOT_KEY not in line for line in running.running.lines)


def test_what_is_public_is_the_same_for_everybody(running: House, made: Keys) -> None:
    senders: list[dict[str, str]] = [{"x-api-key": key} for key in (UNLIKE, made.revoked, ACME_KEY, ROOT_KEY)]
    senders += [{"x-api-key": ROOT_KEY, "api-key": ACME_KEY}, *MALFORMED]
    for door in DOORS:
        if door.scope == PUBLIC:
            plain = running.ask(door.method, door.path).status
            assert plain in (200, 404), str(door)
            assert {running.ask(door.method, door.path, headers).status for headers in senders} == {plain}, str(door)


def test_every_other_method_is_refused(running: House) -> None:
    """With the best of keys; OPTIONS is answered by nobody while no origin is configured."""
    templates = {door.template: door for door in DOORS}
    known = {(door.method, door.template) for door in DOORS}
    for template, door in templates.items():
        if template.startswith("/docs"):
            continue  # a page, whose every path is answered
        for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "QUERY"):
            if (method, template) not in known:
                answer = running.ask(method, door.path, {"x-api-key": ROOT_KEY})
                assert answer.status in (403, 405), f"{method} {template}: {answer}"
                held_to_shape(Door(method, template, None), answer)


def test_a_method_cannot_be_claimed_by_a_header(running: House) -> None:
    for name in ("x-http-method-override", "x-http-method", "x-method-override"):
        for door in DOORS:
            if door.method == "GET" and not door.template.startswith("/docs"):
                answer = running.ask("GET", door.path, {name: "DELETE", "x-api-key": ROOT_KEY})
                plain = running.ask("GET", door.path, {"x-api-key": ROOT_KEY})
                assert answer.status == plain.status, f"{door} {name}"
    key = running.as_root("POST", "/v1/keys", name="kept")
    running.ask(
        "POST", f"/v1/keys/{key['id']}?_method=DELETE", {"x-http-method-override": "DELETE", "x-api-key": ROOT_KEY}
    )
    assert running.as_root("GET", f"/v1/keys/{key['id']}")["revoked_at"] is None


def test_a_foreign_page_changes_nothing(running: House) -> None:
    for door in DOORS:
        for origin in ("https://evil.test", "null", "http://127.0.0.1.evil.test", "https://127.0.0.1:1", "127.0.0.1"):
            answer = running.ask(door.method, door.path, {"origin": origin, "x-api-key": ROOT_KEY})
            if door.unsafe:
                assert answer.status == 403, f"{door} {origin}: {answer}"
                held_to_shape(door, answer)
                if not door.anthropic:
                    assert answer.json["error"]["code"] == "origin_not_allowed", str(door)
            # What a page cannot read it may ask for; that it cannot is what these headers are missing for.
            assert not [name for name in answer.headers if name.startswith("access-control-")], str(door)
        own = running.ask(door.method, door.path, {"origin": "http://127.0.0.1", "x-api-key": ROOT_KEY})
        assert own.status != 403, f"{door}: {own}"
        assert not [name for name in own.headers if name.startswith("access-control-")], str(door)


def test_no_preflight_is_answered(running: House) -> None:
    for door in DOORS:
        headers = {"origin": "https://evil.test", "access-control-request-method": door.method}
        answer = running.ask("OPTIONS", door.path, headers)
        assert not [name for name in answer.headers if name.startswith("access-control-")], str(door)
        if not door.template.startswith("/docs"):
            assert answer.status in (401, 403, 405), f"{door}: {answer}"

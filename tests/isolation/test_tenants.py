"""Two tenants, one of everything in each: no route tells one of them of what is the other's.

The routes are the running application's own: one that is added is swapped from its first day, and fails here until
somebody makes one of what it is about.
"""

import json
from collections.abc import Iterator
from itertools import product

import pytest

from tests.gateway.auth.matrix import GUARDED, Answer, Door
from tests.isolation.swaps import ADMINS, EVERYBODYS, GOOD, in_bodies, names, swapped
from tests.isolation.tenants import ACME, CANARY, RIVAL, Tenants, absent, tenants
from tests.isolation.timing import alike, compared

GENERATING = ("/v1/models/search",)
"""Lists of what is not here, but out in the world."""


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tenants]:
    with tenants(tmp_path_factory.mktemp("isolation")) as running:
        yield running


def told(answer: Answer, *ids: str) -> tuple[int, dict[str, str], bytes]:
    """All of an answer that could tell something, without the ids that were asked for."""
    body = answer.body
    for id_ in ids:
        body = body.replace(id_.encode(), b"ID")
    unsaid = ("date", "x-request-id", "content-length")
    return answer.status, {k: v for k, v in answer.headers.items() if k not in unsaid}, body


def test_there_is_one_of_everything(both: Tenants) -> None:
    known = set(both.acme.ids) | EVERYBODYS
    assert {name for door in GUARDED for name in names(door) if not door.template.startswith("/docs")} <= known, (
        "make one of it in tests/isolation/tenants.py"
    )
    assert len(swapped()) >= 30


def test_no_list_shows_what_is_anothers(both: Tenants) -> None:
    """Before one of them asks for what is the other's: its own requests are told in its own words."""
    lists = sorted(
        door.template
        for door in GUARDED
        if door.method == "GET"
        and "{" not in door.template
        and door.scope != "admin"
        and door.template not in GENERATING
    )
    assert len(lists) >= 10
    queries = [
        "",
        "?limit=500",
        "?tenant=acme",
        "?owner=acme",
        "?user=acme",
        "?key=acme",
        f"?search={CANARY}%20of%20acme",
    ]
    hidden = [*both.acme.all(), f"{CANARY} of acme"]
    for path in lists:
        for query in [*queries, *(f"?cursor={cursor}" for cursor in both.acme.cursors.values())]:
            listed = both.ask("GET", path + query, RIVAL)
            assert listed.status in (200, 400, 403), f"{path}{query}: {listed}"
            shown = [id_ for id_ in hidden if id_.encode() in listed.body]
            # An owner is told of the query, where that is wrong.
            assert not shown or listed.status == 400, f"{path}{query} shows {shown}"
    own = both.ask("GET", "/v1/sessions?limit=100", RIVAL).json["sessions"]
    assert both.rival.ids["session_id"][0] in [one["id"] for one in own]


def test_every_id_of_every_route_is_not_there_for_another(both: Tenants) -> None:
    rivals = both.rival.ids
    for door in swapped():
        body = GOOD.get((door.method, door.template))
        kinds = names(door)
        # With two ids in a path, each of them alone is somebody else's as well.
        for foreign in product((True, False), repeat=len(kinds)):
            if not any(foreign):
                continue
            columns = [both.acme.ids[kind] if f else rivals[kind][:1] for kind, f in zip(kinds, foreign, strict=True)]
            for ids in product(*columns):
                theirs = dict(zip(kinds, ids, strict=True))
                nobodys = {
                    kind: absent(id_) if f else id_ for (kind, id_), f in zip(theirs.items(), foreign, strict=True)
                }
                answers = [both.ask(door.method, door.with_ids(one), RIVAL, body) for one in (theirs, nobodys)]
                assert [answer.status for answer in answers] == [404, 404], f"{door} {theirs}: {answers}"
                first, second = told(answers[0], *theirs.values()), told(answers[1], *nobodys.values())
                assert first == second, f"{door} tells of {theirs}"


def test_every_id_in_every_body_is_not_there_for_another(both: Tenants) -> None:
    foreign = both.acme.first() | {"message_id": both.acme.message_id}
    for kind, method, path, body, statuses in in_bodies(both.rival.first()):
        answers = []
        for id_ in (foreign[kind], absent(foreign[kind])):
            filled = None if body is None else json.loads(json.dumps(body).replace("ID", id_))
            answer = both.ask(method, path.replace("ID", id_), RIVAL, filled)
            assert answer.status in statuses, f"{method} {path} {filled}: {answer}"
            answers.append(told(answer, id_))
        assert answers[0] == answers[1], f"{method} {path} {body} tells of {kind}"


def test_what_is_the_administrators_is_nobody_elses(both: Tenants) -> None:
    for door in GUARDED:
        if ADMINS & set(names(door)):
            for id_ in (both.acme.ids["key_id"][0], both.rival.ids["key_id"][0], "absent"):
                answer = both.ask(door.method, door.with_ids({"key_id": id_}), RIVAL)
                assert answer.status == 403, f"{door}: {answer}"


def test_an_idempotency_key_is_its_tenants(both: Tenants) -> None:
    body = {"model": "auto", "input": {"prompt": f"Hello. {CANARY} of acme"}}
    header = {"idempotency-key": both.acme.idempotency_key}
    theirs = both.ask("POST", "/v1/generate", ACME, body, header).json["id"]
    own = both.ask("POST", "/v1/generate", RIVAL, body, header)
    assert own.status == 200
    assert own.json["id"] != theirs
    other = both.ask("POST", "/v1/generate", RIVAL, {"model": "auto", "input": {"prompt": "Else."}}, header)
    assert other.json.get("id") != theirs


def test_a_signed_url_is_of_one_artifact(both: Tenants) -> None:
    mine, theirs = both.rival.ids["artifact_id"][0], both.acme.ids["artifact_id"][0]
    url = both.ask("GET", f"/v1/artifacts/{mine}", RIVAL).json["url"]
    path = "/v1/" + url.partition("/v1/")[2]
    assert both.house.ask("GET", path).status == 200
    bodies = set()
    for id_ in (theirs, absent(theirs)):
        answer = both.house.ask("GET", path.replace(mine, id_))
        assert answer.status == 403
        bodies.add(answer.body)
    assert len(bodies) == 1


def test_nothing_of_all_this_has_changed_anything(both: Tenants) -> None:
    """Last of all but the clock: what was asked for by another is as it was."""
    acme = both.acme
    for door in swapped():
        if door.method == "GET":
            for ids in product(*(acme.ids[name] for name in names(door))):
                path = door.with_ids(dict(zip(names(door), ids, strict=True)))
                if path.endswith("/events") and "live" in path:
                    continue  # which has no end
                statuses: tuple[int, ...] = (200, 409) if path.endswith("/result") else (200,)
                assert both.ask("GET", path, ACME).status in (*statuses, *_unkept(door)), path
    live = both.ask("GET", f"/v1/requests/{acme.ids['request_id'][1]}", ACME).json
    assert live["status"] in ("queued", "running")
    session = both.ask("GET", f"/v1/sessions/{acme.ids['session_id'][0]}", ACME).json
    assert session["message_count"] == 2
    assert session["title"].startswith("Hello.")


def _unkept(door: Door) -> tuple[int, ...]:
    """Only detached requests have a result that is kept."""
    return (404,) if door.template.endswith("/result") else ()


def test_the_clock_does_not_tell_either(both: Tenants) -> None:
    """Foreign against absent, in turns; the bound is generous, `python -m tests.isolation` prints the figures."""
    for name, one in compared(both, pairs=15).items():
        if not alike(one):
            again = compared(both, pairs=160, only=name)[name]
            assert alike(again), f"{name}: {again}"

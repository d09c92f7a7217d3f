"""Rows of kept answers, on every database the gateway runs on."""

import asyncio
import time
from typing import Any

import msgspec
import pytest
from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncEngine

from gateway.answers.answer import Answer
from gateway.db.answers import AnswerRows, SameId
from gateway.db.engine import connect, upgrade
from gateway.db.tables import answers, usage

STANDING = msgspec.json.encode({"model": "m", "backend": "b", "answered_model": "M", "attempts": 2, "streamed": True})


def answer(id_: str = "a", **changes: Any) -> Answer:
    now = time.time()
    fields: dict[str, Any] = {
        "id": id_,
        "tenant": "acme",
        "owner": "ann",
        "endpoint": "/v1/chat/completions",
        "asynchronous": True,
        "standing": STANDING,
        "created_at": now,
        "expires_at": now + 60,
    }
    return Answer(**fields | changes)


@pytest.fixture
async def rows(engine: AsyncEngine) -> AnswerRows:
    await upgrade(engine)
    return AnswerRows(engine)


async def test_what_is_kept_comes_back_as_it_was(rows: AnswerRows) -> None:
    begun = answer(flight="f", fingerprint="p")
    assert await rows.begin(begun, "me") is None
    over = msgspec.structs.replace(
        begun,
        status="done",
        http_status=200,
        headers=(("content-type", "application/json"), ("x-gateway-model", "b/M")),
        body=b'{"a": "\\u0000"}\x00\xff',
        partial=b"{}",
        ended_at=begun.created_at + 1,
    )
    assert await rows.end(over, "me")
    assert await rows.get("acme", "a") == over
    assert (await rows.get("acme", "a", 3) or over).body is None
    assert await rows.get("rival", "a") is None
    assert await rows.kept("acme", ["a", "b"]) == [msgspec.structs.replace(over, body=None)]
    assert await rows.kept("rival", ["a"]) == []
    lost = await rows.unaccounted("acme", 5, 0.0, time.time() + 9, (time.time() + 9, "z"), "done")
    assert [one.id for one in lost] == ["a"]
    assert await rows.unaccounted("acme", 5, 0.0, begun.created_at, None, None) == []
    assert await rows.unaccounted("rival", 5, 0.0, time.time() + 9, None, None) == []


async def test_only_who_works_on_it_ends_or_drops_it(rows: AnswerRows) -> None:
    begun = answer()
    await rows.begin(begun, "me")
    assert not await rows.end(msgspec.structs.replace(begun, status="done"), "another")
    await rows.drop("acme", "a", "another")
    assert await rows.get("acme", "a") == begun
    await rows.drop("acme", "a", "me")
    assert await rows.get("acme", "a") is None


async def test_of_a_flight_there_is_one(rows: AnswerRows) -> None:
    begun = await asyncio.gather(*(rows.begin(answer(f"a{n}", flight="f"), f"w{n}") for n in range(5)))
    assert sum(one is None for one in begun) == 1
    [first] = {one.id for one in begun if one is not None}
    assert await rows.begin(answer("z", tenant="rival", flight="f"), "w") is None
    other = await rows.begin(answer("y", flight="f"), "w")
    assert other is not None
    assert other.id == first


async def test_what_has_expired_or_failed_gives_way(rows: AnswerRows) -> None:
    old = answer("a", flight="f")
    await rows.begin(old, "me")
    await rows.end(msgspec.structs.replace(old, status="done", http_status=200, expires_at=time.time() - 1), "me")
    assert await rows.get("acme", "a") is None
    assert await rows.begin(answer("b", flight="f"), "me") is None
    for status in ("done", "failed"):
        one = answer(f"c-{status}")
        await rows.begin(one, "me")
        with pytest.raises(SameId):
            await rows.begin(one, "me")
        await rows.end(msgspec.structs.replace(one, status=status), "me")
    assert await rows.begin(answer("c-failed"), "me") is None
    with pytest.raises(SameId):
        await rows.begin(answer("c-done"), "me")
    await rows.forget(time.time())
    assert await rows.get("acme", "b") is not None


async def test_what_was_broken_off_has_failed_and_is_in_the_history(rows: AnswerRows, engine: AsyncEngine) -> None:
    await rows.begin(answer("later", flight="f"), "gone")
    await rows.begin(answer("at-once", flight="g", asynchronous=False), "gone")
    await rows.begin(answer("mine"), "me")
    assert await rows.interrupt() == 0
    if rows.leases:
        async with engine.begin() as connection:
            await connection.execute(text("UPDATE answers SET lease_until = lease_until - 60 WHERE worker = 'gone'"))
        found = await rows.get("acme", "later")  # looked at before anybody has tidied up
    else:
        assert await rows.interrupt(lost=("gone", [])) == 1
        found = await rows.get("acme", "later")
    assert found is not None
    assert (found.status, found.flight) == ("failed", None)
    assert found.ended_at is not None
    assert await rows.get("acme", "at-once") is None
    mine = await rows.get("acme", "mine")
    assert mine is not None
    assert mine.status == "running"
    async with engine.connect() as connection:
        [row] = (await connection.execute(select(usage))).mappings().all()
    assert (row["request_id"], row["code"], row["status"], row["model"]) == ("later", "interrupted", 503, "M")
    assert await rows.interrupt(all_=True) == 1


async def test_a_beat_tells_what_is_not_wanted_any_more(rows: AnswerRows, url: str) -> None:
    await rows.begin(answer("a"), "me")
    await rows.begin(answer("b"), "me")
    other = connect(url)
    elsewhere = AnswerRows(other)
    assert await elsewhere.cancel("acme", "a")
    assert not await elsewhere.cancel("rival", "b")
    keys: dict[tuple[str, str], bytes | None] = {("acme", "a"): None, ("acme", "b"): b'{"now": 1}'}
    assert await rows.beat("me", keys) == [("acme", "a")]
    assert [one.standing for one in await elsewhere.running("acme")] == [b'{"now": 1}']
    await other.dispose()


async def test_bodies_of_many_megabytes_are_kept(rows: AnswerRows) -> None:
    one = answer()
    await rows.begin(one, "me")
    body = bytes(range(256)) * 40_000
    await rows.end(msgspec.structs.replace(one, status="done", http_status=200, body=body), "me")
    found = await rows.get("acme", "a")
    assert found is not None
    assert found.body == body
    assert answers.c.body.type is not None

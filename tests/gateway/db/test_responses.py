"""Turns and their items, on every database the gateway runs on."""

import asyncio
from typing import Any

import pytest
from sqlalchemy import func, select, text
from sqlalchemy.ext.asyncio import AsyncEngine

from compat.canonical.event import Usage
from compat.canonical.principal import Principal
from gateway.db.engine import durably, upgrade
from gateway.db.responses import Known, ResponseRows, Turn
from gateway.db.tables import items

APP, OTHER = Principal(id="app", tenant="acme"), Principal(id="app", tenant="other")


def said(id_: str, role: str, text: str) -> dict[str, Any]:
    return {"id": id_, "type": "message", "role": role, "content": [{"type": "input_text", "text": text}]}


def turn(n: int, **changes: Any) -> Turn:
    fields: dict[str, Any] = {
        "id": f"resp_{n}",
        "created_at": 1763769600.0 + n,
        "backend": "local",
        "model": "m",
        "status": "completed",
        "previous_id": f"resp_{n - 1}" if n else None,
        "body": {"id": f"resp_{n}", "odd": "a\x00b \U0001f642"},
        "usage": Usage(input_tokens=2**40, output_tokens=3),
        "given": [said(f"in_{n}", "user", "x\x00")],
        "output": [said(f"out_{n}", "assistant", "y"), {"id": f"call_{n}", "type": "web_search_call"}],
    }
    return Turn(**(fields | changes))


@pytest.fixture
async def rows(engine: AsyncEngine) -> ResponseRows:
    await upgrade(engine)
    return ResponseRows(engine)


async def test_a_turn_is_kept_whole(rows: ResponseRows) -> None:
    await rows.put(APP, turn(0))
    kept = (await rows.chain("acme", "resp_0"))[0]
    assert kept == turn(0)
    assert await rows.get("acme", "resp_0") == turn(0, given=[])


async def test_what_was_kept_out_of_shape_is_given_back_in_one_that_can_be_read(rows: ResponseRows) -> None:
    thought, spoken = {"id": "a", "type": "reasoning", "summary": 5}, {"id": "b", "type": "message", "content": [5]}
    await rows.put(APP, turn(0, given=[thought], output=[spoken]))
    [kept] = await rows.chain("acme", "resp_0")
    assert kept.given == [thought | {"summary": []}]
    assert kept.output == [spoken | {"role": "assistant", "content": []}]


async def test_a_chain_goes_back_to_its_beginning_and_no_further_aside(rows: ResponseRows) -> None:
    for n in range(12):
        await rows.put(APP, turn(n))
    await rows.put(APP, turn(99, previous_id="resp_3"))  # a branch
    assert [t.id for t in await rows.chain("acme", "resp_11")] == [f"resp_{n}" for n in range(12)]
    assert [t.id for t in await rows.chain("acme", "resp_99")] == ["resp_0", "resp_1", "resp_2", "resp_3", "resp_99"]
    assert await rows.chain("acme", "resp_unknown") == []


async def test_no_tenant_sees_anothers_turns(rows: ResponseRows) -> None:
    await rows.put(APP, turn(0))
    assert await rows.get("other", "resp_0") is None
    assert await rows.chain("other", "resp_0") == []
    assert await rows.known("other", ["in_0", "out_0"]) == {}
    await rows.delete("other", "resp_0")
    assert await rows.get("acme", "resp_0") is not None
    await rows.put(OTHER, turn(0, model="theirs"))
    mine = await rows.get("acme", "resp_0")
    assert mine is not None
    assert mine.model == "m"


async def test_a_turn_that_a_provider_keeps_has_no_contents_here(rows: ResponseRows, engine: AsyncEngine) -> None:
    await rows.put(APP, turn(0, remote=True, backend="openai"))
    kept = await rows.get("acme", "resp_0")
    assert kept is not None
    assert (kept.remote, kept.body, kept.output, kept.backend) == (True, {}, (), "openai")
    assert await rows.known("acme", ["out_0"]) == {"out_0": Known({}, "openai")}
    async with engine.connect() as connection:
        assert set((await connection.execute(select(items.c.body))).scalars()) == {""}


async def test_a_provider_that_repeats_its_ids_makes_no_endless_chain(rows: ResponseRows) -> None:
    await rows.put(APP, turn(0))
    await rows.put(APP, turn(0, previous_id="resp_0", model="second"))
    assert [t.model for t in await rows.chain("acme", "resp_0")] == ["second"]


async def test_deleting_takes_the_items_along(rows: ResponseRows, engine: AsyncEngine) -> None:
    await rows.put(APP, turn(0))
    await rows.put(APP, turn(1))
    await rows.delete("acme", "resp_0")
    assert [t.id for t in await rows.chain("acme", "resp_1")] == ["resp_1"]
    assert (await rows.chain("acme", "resp_1"))[0].previous_id == "resp_0"
    async with engine.connect() as connection:
        assert (await connection.execute(select(func.count()).where(items.c.turn_id == "resp_0"))).scalar() == 0


async def test_an_items_odd_id_does_no_harm(rows: ResponseRows) -> None:
    await rows.put(APP, turn(0, given=[{"id": "\x00" + "x" * 500, "type": "y\x00" * 100}]))
    assert (await rows.chain("acme", "resp_0"))[0].given[0]["id"] == "\x00" + "x" * 500


async def test_a_writer_that_is_cancelled_leaves_its_connection_clean(rows: ResponseRows) -> None:
    """A client may leave while its turn is being written."""
    for n in range(20):
        task = asyncio.create_task(rows.put(APP, turn(n, previous_id=None)))
        await asyncio.sleep(0.0003 * n)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    await rows.settle()
    await rows.put(APP, turn(50, previous_id=None))
    assert await rows.get("acme", "resp_50") is not None


async def test_what_is_durable_is_synced_and_nothing_else_pays_for_it(engine: AsyncEngine) -> None:
    await upgrade(engine)
    if engine.dialect.name != "sqlite":
        pytest.skip("PostgreSQL syncs every commit")
    async with durably(engine) as connection:
        assert (await connection.execute(text("PRAGMA synchronous"))).scalar() == 2
    async with engine.connect() as connection:
        assert (await connection.execute(text("PRAGMA synchronous"))).scalar() == 1

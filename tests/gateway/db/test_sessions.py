"""Sessions and the lines of their turns, on every database the gateway runs on."""

import asyncio
import time
from typing import Any

import msgspec
import pytest
from sqlalchemy import func, insert, select
from sqlalchemy.ext.asyncio import AsyncEngine

from compat.canonical.principal import Principal
from gateway.auth.registrar import SYSTEM
from gateway.db import sessions as module
from gateway.db.audit import AuditRows
from gateway.db.engine import upgrade
from gateway.db.responses import Turn
from gateway.db.sessions import SessionRows
from gateway.db.tables import artifact_uses, artifacts, items, turns
from gateway.sessions.session import Session, Summary

APP = Principal(id="app", tenant="acme")
WORKER = "w_1"


def session(id_: str = "sess_1", **changes: Any) -> Session:
    plain = Session(id=id_, tenant="acme", owner="app", created_at=1.0, last_used_at=1.0)
    return msgspec.structs.replace(plain, **changes)


def turn(id_: str, before: str | None, session_id: str = "sess_1", text: str = "hi") -> Turn:
    asked = {"id": f"in_{id_}", "type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}
    said = {
        "id": f"out_{id_}",
        "type": "message",
        "role": "assistant",
        "content": [{"type": "output_text", "text": "ok"}],
    }
    return Turn(
        id=id_, created_at=time.time(), backend="b", model="m", status="completed", previous_id=before,
        session_id=session_id, given=[asked], output=[said],
    )  # fmt: skip


@pytest.fixture
async def rows(engine: AsyncEngine) -> SessionRows:
    await upgrade(engine)
    return SessionRows(engine)


async def grown(rows: SessionRows, count: int, id_: str = "sess_1") -> Session:
    """A session of so many turns, `{id}_0` and so on."""
    made = await rows.create(session(id_), principal=APP)
    for n in range(count):
        after = await rows.append(made, turn(f"{id_}_{n}", made.head, id_, f"word{n}"), principal=APP)
        assert after is not None
        made = after
    return made


async def test_a_session_is_kept_whole_and_is_its_tenants_alone(rows: SessionRows) -> None:
    whole = session(
        title="Ä\u200d😀", titled=True, system="s\n", model="m", parameters={"seed": 1}, metadata={"a": ["\x00"]},
        state={"t": {}}, context="error", summary=Summary("x", "y"), closed_at=3.5, status="closed",
    )  # fmt: skip
    await rows.create(whole, principal=APP)
    assert await rows.get("acme", "sess_1") == whole
    assert await rows.get("other", "sess_1") is None
    assert await rows.page("other", 10) == []
    assert not await rows.delete("other", "sess_1", SYSTEM.act("session.delete", "sess_1", "other"))
    assert (await rows.take("other", "sess_1", WORKER)).session is None
    assert await rows.close("other", "sess_1") is None


async def test_an_appended_turn_is_the_head_and_an_alternative_counts_its_own_line(rows: SessionRows) -> None:
    kept = await grown(rows, 3)
    assert (kept.head, kept.message_count) == ("sess_1_2", 6)
    other = await rows.append(kept, turn("alt", "sess_1_0"), principal=APP, title="T", state={"a": 1})
    assert other is not None
    assert (other.head, other.message_count, other.state) == ("alt", 4, {"a": 1})
    assert (other.title, other.titled) == ("T", False)
    assert await rows.get("acme", "sess_1") == other
    back = await rows.take("acme", "sess_1", WORKER)
    assert back.mine
    moved = await rows.move("acme", "sess_1", "sess_1_2", WORKER)
    assert moved is not None
    assert (moved.head, moved.message_count) == ("sess_1_2", 6)
    assert await rows.move("acme", "sess_1", "nowhere", WORKER) is None


async def test_a_title_once_given_stays(rows: SessionRows) -> None:
    made = await rows.create(session(title="Mine", titled=True), principal=APP)
    now = await rows.append(made, turn("t", None), principal=APP, title="Made up")
    assert now is not None
    assert now.title == "Mine"


async def test_only_whom_it_is_held_by_appends_and_the_lease_ends_with_that(rows: SessionRows) -> None:
    made = await rows.create(session(), principal=APP)
    assert (await rows.take("acme", "sess_1", WORKER)).mine
    assert not (await rows.take("acme", "sess_1", "w_2")).mine
    assert await rows.renew(WORKER, ["sess_1"]) == {"sess_1"}
    assert await rows.renew("w_2", ["sess_1"]) == set()
    assert await rows.append(made, turn("no", None), principal=APP) is None
    assert await rows.append(made, turn("no", None), principal=APP, worker="w_2") is None
    assert await rows.turns("acme", ["no"]) == {}
    assert await rows.append(made, turn("yes", None), principal=APP, worker=WORKER) is not None
    assert (await rows.take("acme", "sess_1", "w_2")).mine
    await rows.release("w_2", ["sess_1"])
    assert (await rows.take("acme", "sess_1", WORKER)).mine


async def test_a_lease_that_is_not_renewed_ends_by_itself(rows: SessionRows, monkeypatch: pytest.MonkeyPatch) -> None:
    await rows.create(session(), principal=APP)
    monkeypatch.setattr(module, "LEASE_S", 0.1)
    assert (await rows.take("acme", "sess_1", WORKER)).mine
    await asyncio.sleep(0.15)
    assert (await rows.take("acme", "sess_1", "w_2")).mine


async def test_who_leaves_while_taking_holds_nothing(rows: SessionRows) -> None:
    await rows.create(session(), principal=APP)
    for _ in range(5):
        taking = asyncio.create_task(rows.take("acme", "sess_1", WORKER))
        await asyncio.sleep(0)
        taking.cancel()
        await asyncio.gather(taking, return_exceptions=True)
    await rows.settle()
    assert (await rows.take("acme", "sess_1", "w_2")).mine


async def test_who_leaves_while_appending_leaves_all_or_nothing(rows: SessionRows) -> None:
    made = await rows.create(session(), principal=APP)
    for n in range(8):
        writing = asyncio.create_task(rows.append(made, turn(f"t{n}", None), principal=APP))
        for _ in range(n * 3):
            await asyncio.sleep(0)
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)
        await rows.settle()
        now = await rows.get("acme", "sess_1")
        assert now is not None
        assert now.head is None or await rows.has("acme", "sess_1", now.head)


async def test_of_two_at_once_one_takes_it(rows: SessionRows) -> None:
    await rows.create(session(), principal=APP)
    taken = await asyncio.gather(*(rows.take("acme", "sess_1", f"w_{n}") for n in range(8)))
    assert [one.mine for one in taken].count(True) == 1


async def test_sessions_are_listed_by_last_use_without_gaps_while_others_move(rows: SessionRows) -> None:
    for n in range(12):
        # Several of the same moment.
        await rows.create(session(f"sess_{n:02d}", last_used_at=float(n // 3)), principal=APP)
    seen: list[str] = []
    place: tuple[float, str] | None = None
    while found := await rows.page("acme", 5, place):
        seen += [one.id for one in found]
        place = found[-1].last_used_at, found[-1].id
        await rows.append(found[0], turn(f"t{len(seen)}", None, found[0].id), principal=APP)  # moves to the front
    assert seen == [f"sess_{n:02d}" for n in reversed(range(12))]


async def test_a_search_is_in_titles_and_messages_letter_by_letter(rows: SessionRows) -> None:
    made = await rows.create(session(title="Straße 1"), principal=APP)
    await rows.append(made, turn("t", None, text='100% "Öl" a_b\x00'), principal=APP)
    for words in ("STRASSE", "straße 1", "ÖL", "öl", "100%", "a_b", "%", "Ok"):
        assert [one.id for one in await rows.page("acme", 5, search=words)] == ["sess_1"], words
    await rows.create(session("sess_2", title="\u0130stanbul \ufb01ne Cafe\u0301"), principal=APP)
    for words in ("istanbul", "\u0130STANBUL", "I\u0307stanbul", "FINE", "caf\u00e9"):
        assert [one.id for one in await rows.page("acme", 5, search=words)] == ["sess_2"], words
    for words in ("axb", "input_text", "\\", "/", "1%0"):
        assert await rows.page("acme", 5, search=words) == [], words


async def test_a_line_is_read_from_its_head_with_what_lies_beside(rows: SessionRows) -> None:
    kept = await grown(rows, 6)
    await rows.append(kept, turn("alt", "sess_1_2"), principal=APP)
    await grown(rows, 1, "sess_2")
    assert await rows.line("acme", "sess_1", "sess_1_5") == [f"sess_1_{n}" for n in reversed(range(6))]
    assert await rows.line("acme", "sess_1", "alt") == ["alt", "sess_1_2", "sess_1_1", "sess_1_0"]
    assert await rows.line("acme", "sess_1", "sess_2_0") == [] == await rows.line("other", "sess_1", "alt")
    shown = await rows.stubs("acme", ["sess_1_3", "gone", "sess_1_0"])
    assert [(one.id, one.previous_id, one.messages) for one in shown] == [
        ("sess_1_3", "sess_1_2", 2), ("sess_1_0", None, 2),
    ]  # fmt: skip
    assert {one.id for one in await rows.beside("acme", "sess_1", shown)} == {"sess_1_3", "alt", "sess_1_0"}
    assert await rows.has("acme", "sess_1", "alt")
    for foreign in ("sess_2_0", "\x00", ""):
        assert not await rows.has("acme", "sess_1", foreign)
    assert await rows.holding("acme", "sess_1", "in_sess_1_3") == {"sess_1_3"}


async def test_turns_that_go_on_from_each_other_in_a_ring_are_read_to_an_end(rows: SessionRows) -> None:
    made = await rows.create(session(), principal=APP)
    await rows.append(made, [turn("a", "b"), turn("b", "a")], principal=APP)
    assert await rows.line("acme", "sess_1", "a") == ["a", "b"]


async def test_a_branch_is_another_line_and_both_go_their_own_way(rows: SessionRows, engine: AsyncEngine) -> None:
    kept = await grown(rows, 3)
    pairs = [("sess_1_0", "new_0"), ("sess_1_1", "new_1")]
    made = await rows.branch(session("sess_2"), "sess_1", pairs, None, principal=APP)
    assert made is not None
    assert (made.head, made.message_count) == ("new_1", 4)
    copied, origin = await rows.turns("acme", ["new_1"]), await rows.turns("acme", ["sess_1_1"])
    same = msgspec.structs.replace(origin["sess_1_1"], id="new_1", previous_id="new_0", session_id="sess_2")
    assert copied["new_1"] == same
    await rows.delete("acme", "sess_1", SYSTEM.act("session.delete", "sess_1", "acme"))
    assert await rows.line("acme", "sess_2", "new_1") == ["new_1", "new_0"]
    assert [one.id for one in await rows.page("acme", 9, search="word1")] == ["sess_2"]
    assert kept.message_count == 6


async def test_a_branch_of_what_is_no_longer_there_is_none(rows: SessionRows) -> None:
    kept = await grown(rows, 2)
    pairs = [("sess_1_0", "new_0"), ("gone", "new_1")]
    assert await rows.branch(session("sess_2"), "sess_1", pairs, None, principal=APP) is None
    part = turn("part", "new_0", "sess_2")
    assert await rows.branch(session("sess_2"), "sess_1", pairs[:1], part, principal=APP, needs="gone") is None
    assert await rows.branch(session("sess_2"), "sess_9", [], None, principal=APP) is None
    assert await rows.get("acme", "sess_2") is None
    assert kept.message_count == 4


async def test_a_head_is_moved_to_the_end_of_its_newest_line(rows: SessionRows) -> None:
    kept = await grown(rows, 3)
    # Ids need not tell what was made first.
    for name, made_at in (("z", 5.0), ("b", 7.0)):
        other = turn(name, "sess_1_0")
        other.created_at = made_at
        await rows.append(kept, other, principal=APP)
    for chosen, head in (("sess_1_0", "sess_1_2"), ("z", "z"), ("sess_1_1", "sess_1_2"), ("b", "b")):
        moved = await rows.move("acme", "sess_1", chosen, WORKER)
        assert moved is not None
        assert (moved.head, moved.message_count) == (head, 6 if head == "sess_1_2" else 4)
        assert await rows.get("acme", "sess_1") == moved


async def test_a_title_of_a_clients_is_not_written_over_by_one_made_up(rows: SessionRows) -> None:
    made = await rows.create(session(title="First words"), principal=APP)
    await rows.update("acme", "sess_1", {"title": "Mine", "titled": True})
    assert await rows.entitle(made, "Thought up") is None
    other = await rows.create(session("sess_2", title=None), principal=APP)
    now = await rows.entitle(other, "Thought up")
    assert now is not None
    assert (now.title, now.titled) == ("Thought up", False)


async def uses_of(engine: AsyncEngine, id_: str) -> set[str]:
    async with engine.connect() as connection:
        query = select(artifact_uses.c.artifact_id).where(artifact_uses.c.session_id == id_)
        return set((await connection.scalars(query)).all())


async def test_a_session_holds_what_is_in_it_and_lets_go_in_the_end(rows: SessionRows, engine: AsyncEngine) -> None:
    fields = {"owner_id": "app", "kind": "image", "mime": "image/png", "size_bytes": 1, "sha256": "0" * 64,
              "meta": "{}", "created_at": 1.0, "expires_at": 2.0}  # fmt: skip
    async with engine.begin() as connection:
        mine = [fields | {"id": id_, "tenant_id": "acme"} for id_ in ("art_1", "art_2")]
        await connection.execute(insert(artifacts), [*mine, fields | {"id": "art_3", "tenant_id": "other"}])
    made = await rows.create(session(), [turn("t", None)], principal=APP, uses=["art_1"])
    assert (made.head, made.message_count) == ("t", 2)
    now = await rows.append(made, turn("u", "t"), principal=APP, uses=["art_1", "art_2", "art_3", "art_gone"])
    assert now is not None
    assert await uses_of(engine, "sess_1") == {"art_1", "art_2"}
    async with engine.connect() as connection:
        until = await connection.scalar(select(artifacts.c.expires_at).where(artifacts.c.id == "art_1"))
        assert until is not None
        assert until > time.time()
    await rows.branch(session("sess_2"), "sess_1", [("t", "t2")], None, principal=APP)
    assert await uses_of(engine, "sess_2") == {"art_1", "art_2"}
    await rows.take("acme", "sess_1", WORKER)
    cleared = await rows.reset("acme", "sess_1", WORKER)
    assert cleared is not None
    assert (cleared.head, cleared.message_count) == (None, 0)
    assert await uses_of(engine, "sess_1") == set()
    assert await rows.delete("acme", "sess_2", SYSTEM.act("session.delete", "sess_2", "acme"))
    assert await uses_of(engine, "sess_2") == set()
    async with engine.connect() as connection:
        for table in (turns, items):
            assert await connection.scalar(select(func.count()).select_from(table)) == 0
    assert [one.target for one in await AuditRows(engine).page(5)] == ["sess_2"]


async def test_a_closed_session_changes_no_more(rows: SessionRows) -> None:
    await grown(rows, 1)
    closed = await rows.close("acme", "sess_1")
    assert closed is not None
    assert closed.status == "closed"
    assert await rows.close("acme", "sess_1") == closed
    assert await rows.update("acme", "sess_1", {"title": "x"}) is None
    await rows.take("acme", "sess_1", WORKER)
    assert await rows.reset("acme", "sess_1", WORKER) is None
    assert await rows.move("acme", "sess_1", "sess_1_0", WORKER) is None


async def test_what_is_used_again_does_not_expire(rows: SessionRows) -> None:
    kept = await rows.create(session(), principal=APP)
    await rows.create(session("sess_2", status="closed", closed_at=5.0, last_used_at=50.0), principal=APP)
    assert await rows.expired(None, None, 9) == []
    assert await rows.expired(10.0, None, 9) == [("acme", "sess_1")]
    assert await rows.expired(None, 10.0, 9) == [("acme", "sess_2")]
    await rows.append(kept, turn("t", None), principal=APP)
    act = SYSTEM.act("session.delete", "sess_1", "acme")
    assert not await rows.expire("acme", "sess_1", 10.0, None, act)
    assert await rows.expire("acme", "sess_2", 10.0, 10.0, act)

"""What is registered of models, on every database; and the entries that are kept in between."""

import asyncio
from collections.abc import Iterable
from typing import Any

import pytest
from msgspec.structs import replace
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine

from backends.ports import Local
from compat.canonical.model import Model
from gateway.db.audit import Act, AuditRows
from gateway.db.engine import upgrade
from gateway.db.models import ModelRows
from gateway.registry import entries as keeping
from gateway.registry.entries import Entries
from gateway.registry.entry import Entry, Source, Version

ACT = Act(actor="ann", action="model.register", target="local/m", tenant="acme")
FULL = Entry(
    backend="local",
    name="Größe/m \U0001f642",
    tenant="acme",
    owner="ann",
    status="ready",
    explicit=True,
    said=("context_length",),
    modality="embedding",
    version="abc",
    source=Source(kind="huggingface", repo="Org/Name", revision="main", commit="abc", files=("a.gguf",)),
    path="/models/a.gguf",
    size_bytes=70 * 2**30,
    parameters=70_000_000_000,
    capabilities=("embeddings",),
    defaults={"temperature": 0.5, "stop": ["x"], "nested": {"a": None}},
    aliases=("m",),
    tags=("a", "b"),
    summary="Two\nlines.",
    pinned=True,
    versions=(Version(commit="abc", path="/models/a.gguf", files=("/models/a.gguf",), size_bytes=7, added_at=1.5),),
    created_at=1_763_769_600.25,
    updated_at=1_763_769_601.5,
)


def found(count: int, **facts: Any) -> dict[str, dict[str, Local]]:
    def local(name: str) -> Local:
        model = Model(name=name, backend="local", size_bytes=7, **facts)
        return Local(name=name, path=f"/models/{name}.gguf", model=model)

    return {"local": {f"m{n:04}": local(f"m{n:04}") for n in range(count)}}


class Counting(ModelRows):
    """Counts the rows that are written."""

    def __init__(self, engine: AsyncEngine) -> None:
        super().__init__(engine)
        self.written = 0

    async def put(self, entries: Iterable[Entry], act: Act | None = None) -> None:
        entries = list(entries)
        self.written += len(entries)
        await super().put(entries, act)


async def test_an_entry_comes_back_as_it_was(engine: AsyncEngine) -> None:
    await upgrade(engine)
    rows = ModelRows(engine)
    await rows.put([FULL], ACT)
    assert await rows.all() == [FULL]
    await rows.used({FULL.id: 1_763_769_999.0, "local/nobody": 1.0})
    assert await rows.all() == [replace(FULL, last_used_at=1_763_769_999.0)]
    await rows.remove([FULL.id, "local/nobody"], ACT)
    assert await rows.all() == []
    assert [event.action for event in await AuditRows(engine).page(10)] == ["model.register"] * 2


async def test_all_or_none_is_kept_and_the_act_with_them(engine: AsyncEngine) -> None:
    await upgrade(engine)
    rows = ModelRows(engine)
    with pytest.raises(IntegrityError):
        await rows.put([replace(FULL, name="a"), replace(FULL, name="b"), replace(FULL, name="a")], ACT)
    assert await rows.all() == []
    assert await AuditRows(engine).page(10) == []


async def test_a_thousand_models_are_learned_once_and_known_to_the_next_process(engine: AsyncEngine) -> None:
    await upgrade(engine)
    rows, entries = Counting(engine), Entries()
    await entries.open(rows)
    for _ in range(3):
        laid = await asyncio.to_thread(entries.laid_over, found(1000))
        await entries.learn(laid)
    assert (len(entries.all()), rows.written) == (1000, 1000)
    await entries.learn(await asyncio.to_thread(entries.laid_over, found(999)))
    assert rows.written == 1001, "the one that is gone"
    after = Entries()
    await after.open(ModelRows(engine))
    assert {entry.id: entry.status for entry in after.all()} == {
        f"local/m{n:04}": "ready" if n < 999 else "missing" for n in range(1000)
    }


async def test_changes_at_the_same_time_do_not_lose_each_other(engine: AsyncEngine) -> None:
    await upgrade(engine)
    entries = Entries()
    await entries.open(ModelRows(engine))
    await entries.put(FULL)
    await asyncio.gather(
        *(entries.change(FULL.id, lambda e, n=n: replace(e, tags=(*e.tags, f"t{n}"))) for n in range(8))  # type: ignore[misc]
    )
    entry = entries.get(FULL.id)
    assert entry is not None
    assert len(entry.tags) == 10


async def test_when_models_were_used_is_written_now_and_then_and_at_the_end(
    engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    await upgrade(engine)
    monkeypatch.setattr(keeping, "WRITE_S", 0.01)
    rows, entries = ModelRows(engine), Entries()
    await entries.open(rows)
    await entries.put(FULL, replace(FULL, name="other"))
    writing = asyncio.create_task(entries.write_to(rows))
    entries.used(FULL.id, 2e9)
    entries.used("up/unknown", 2e9)
    async with asyncio.timeout(5):
        while {entry.name: entry.last_used_at for entry in await rows.all()}[FULL.name] != 2e9:
            await asyncio.sleep(0.01)
    entries.used("local/other", 2e9 + 1)
    writing.cancel()
    await asyncio.wait({writing})
    assert {entry.name: entry.last_used_at for entry in await rows.all()} == {FULL.name: 2e9, "other": 2e9 + 1}
    await entries.put(FULL)  # as somebody held it who knows nothing of its use
    assert [entry.last_used_at for entry in entries.all() if entry.id == FULL.id] == [2e9]


async def test_what_was_changed_while_it_was_looked_for_is_not_overwritten(engine: AsyncEngine) -> None:
    await upgrade(engine)
    entries = Entries()
    await entries.open(ModelRows(engine))
    await entries.put(replace(FULL, name="m0000"))
    laid = await asyncio.to_thread(entries.laid_over, found(1))
    moved = replace(FULL, name="m0000", path="/elsewhere/new.gguf", status="downloading")
    await entries.put(moved)
    await entries.learn(laid)
    assert entries.get("local/m0000") == moved

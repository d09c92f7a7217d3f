"""Keeping a version is nobody's wait, and no reason to fail."""

import asyncio
import gc
import time
from pathlib import Path

import pytest

from gateway.config import load
from gateway.estate import build
from gateway.house import House
from gateway.schema.book import SchemaBook


class Rows:
    def __init__(self) -> None:
        self.full = True
        self.put_in: list[tuple[str, str]] = []

    async def put(self, tenant: str, owner: str, model: str, version: str, body: bytes, at: float) -> None:
        if self.full:
            raise OSError("no space left on device")
        assert body
        assert at > 0
        self.put_in.append((model, version))


@pytest.fixture
def house(tmp_path: Path) -> House:
    (tmp_path / "c.yaml").write_text(f"data_dir: {tmp_path}\nbackends: {{fake: {{kind: fake}}}}\n")
    return House(build(load(tmp_path / "c.yaml")))


async def settled() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    await asyncio.gather(*others)


async def test_what_could_not_be_kept_is_kept_the_next_time(house: House) -> None:
    book, rows = SchemaBook(house, "1"), Rows()
    plan = await house.estate.router.plan("fake/fake")
    schema = await book.of_model("fake/fake", {"text": plan.routes}, house.estate)
    book.keep(rows, "default", "system", "fake/fake", schema)
    await settled()
    rows.full = False
    for _ in range(3):
        book.keep(rows, "default", "system", "fake/fake", schema)
        await settled()
    assert rows.put_in == [("fake/fake", schema["version"])]


async def test_a_schema_is_worked_out_once_and_anew_when_the_package_is_another(house: House) -> None:
    plan = await house.estate.router.plan("fake/fake")
    book = SchemaBook(house, "1")
    first = await book.of_model("fake/fake", {"text": plan.routes}, house.estate)
    assert await book.of_model("fake/fake", {"text": plan.routes}, house.estate) is first
    other = await SchemaBook(house, "2").of_model("fake/fake", {"text": plan.routes}, house.estate)
    assert other["version"] != first["version"]
    assert other["parameters"] == first["parameters"]


async def test_nobody_waits_long_while_a_schema_is_worked_out(house: House) -> None:
    plan = await house.estate.router.plan("fake/fake")
    # In processor time, for the machine may be busy with something else, and without the collector, which has all of
    # the tests' objects to look at.
    longest = last = 0.0

    async def others() -> None:
        nonlocal longest, last
        last = time.thread_time()
        while True:
            await asyncio.sleep(0)
            longest, last = max(longest, (now := time.thread_time()) - last), now

    other = asyncio.create_task(others())
    plans = dict.fromkeys(("text", "image", "3d", "embedding", "rerank"), plan.routes)
    gc.disable()
    try:
        await SchemaBook(house, "1").of_model("fake/fake", plans, house.estate)  # type: ignore[arg-type]
        await asyncio.sleep(0)
    finally:
        gc.enable()
    other.cancel()
    assert 0 < longest < 0.05

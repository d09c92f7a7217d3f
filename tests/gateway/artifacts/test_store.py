"""One suite for every place that artifacts can be kept in."""

import asyncio
import os
import stat
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import pytest

from compat.canonical.error import Corrupted, GatewayError, InsufficientStorage, NotFound, Unreachable
from gateway.artifacts.store import Store, Stored
from gateway.keeping import Artifacts as Settings
from tests import s3
from tests.gateway.artifacts.conftest import silent

KEY = "0123456789abcdef/00112233445566778899aabbccddeeff"
MIB = 1 << 20


async def all_of(store: Store, key: str, start: int, end: int) -> bytes:
    return b"".join([piece async for piece in store.get(key, start, end)])


async def listed(store: Store, prefix: str = "") -> list[Stored]:
    return [one async for one in store.list(prefix)]


def bucket(url: str, tmp_path: Path, patience_s: float = 1.0, **changes: Any) -> Store:
    return Store(msgspec.convert(s3.settings(url, **changes), Settings), tmp_path, patience_s=patience_s)


async def test_what_was_put_comes_back_whole_and_in_ranges(store: Store) -> None:
    data = os.urandom(3 * MIB + 17)
    await store.put(KEY, data)
    assert await all_of(store, KEY, 0, len(data)) == data
    for start, end in ((0, 1), (1, 2), (MIB - 1, 2 * MIB + 1), (len(data) - 1, len(data)), (5, 5)):
        assert await all_of(store, KEY, start, end) == data[start:end]


async def test_nothing_at_all_can_be_kept_as_well(store: Store) -> None:
    await store.put(KEY, b"")
    assert await all_of(store, KEY, 0, 0) == b""


async def test_a_large_object_comes_in_pieces_and_who_takes_few_of_them_leaves_nothing_open(store: Store) -> None:
    await store.put(KEY, bytes(20 * MIB))
    pieces = store.get(KEY, 0, 20 * MIB)
    first = await anext(pieces)
    await pieces.aclose()
    assert 0 < len(first) < 4 * MIB


async def test_bytes_that_come_bit_by_bit_are_put_whole(store: Store) -> None:
    piece = os.urandom(MIB)

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(12):
            yield piece

    await store.put(KEY, pieces())
    assert await all_of(store, KEY, 0, 12 * MIB) == piece * 12


async def test_what_its_bringer_raises_comes_through_and_nothing_is_kept(store: Store) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield bytes(9 * MIB)
        raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        await store.put(KEY, pieces())
    assert await listed(store) == []
    if store.folder is not None:
        assert not [path for path in store.folder.rglob("*") if path.is_file()]


async def test_a_put_that_is_cancelled_leaves_nothing(store: Store) -> None:
    started = asyncio.Event()

    async def pieces() -> AsyncIterator[bytes]:
        yield bytes(9 * MIB)
        started.set()
        await asyncio.sleep(60)

    putting = asyncio.create_task(store.put(KEY, pieces()))
    await started.wait()
    putting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await putting
    assert await listed(store) == []
    if store.folder is not None:
        end = time.monotonic() + 5
        while [path for path in store.folder.rglob("*") if path.is_file()]:
            assert time.monotonic() < end
            await asyncio.sleep(0.01)


async def test_what_is_not_there_is_told_before_the_first_byte_and_deleting_it_is_nothing(store: Store) -> None:
    await store.put(KEY, b"here")
    for start, end in ((0, 4), (0, 0)):
        with pytest.raises(NotFound) as told:
            await anext(store.get("0123456789abcdef/none", start, end))
        assert "none" not in told.value.message
    await store.delete("0123456789abcdef/none")
    await store.delete(KEY)
    await store.delete(KEY)
    with pytest.raises(NotFound):
        await all_of(store, KEY, 0, 4)


async def test_fewer_bytes_than_there_were_are_not_taken_for_all(store: Store) -> None:
    await store.put(KEY, b"short")
    with pytest.raises(Corrupted):
        await all_of(store, KEY, 0, 6)


async def test_all_objects_are_listed_with_their_sizes_and_times(store: Store) -> None:
    before = time.time() - 2
    for n in range(7):
        await store.put(f"{'ab' if n % 2 else 'cd'}/{n}", bytes(n))
    found = await listed(store)
    assert {(one.key, one.size_bytes) for one in found} == {(f"{'ab' if n % 2 else 'cd'}/{n}", n) for n in range(7)}
    assert all(before < one.modified_at.timestamp() < time.time() + 2 for one in found)
    assert {one.key for one in await listed(store, "ab")} == {"ab/1", "ab/3", "ab/5"}


async def test_it_is_ready(store: Store) -> None:
    assert await store.ready() is None


async def test_a_folder_signs_nothing(tmp_path: Path) -> None:
    store = Store(Settings(), tmp_path)
    assert store.presigned(KEY, expires_s=60, mime="image/png", disposition="inline") is None


async def test_a_presigned_url_gives_it_to_anybody_as_what_it_is(s3_server: str, tmp_path: Path) -> None:
    store = bucket(s3_server, tmp_path, prefix="a b/ü")
    await store.put(KEY, b"<svg/>")
    said = "attachment; filename*=UTF-8''%C3%BC%20%22a%22.png"
    url = store.presigned(KEY, expires_s=60, mime="image/png", disposition=said)
    assert url is not None
    answer = httpx2.get(url)
    assert (answer.status_code, answer.content) == (200, b"<svg/>")
    assert (answer.headers["content-type"], answer.headers["content-disposition"]) == ("image/png", said)
    assert s3.SECRET not in url


async def test_a_folder_is_durable_and_holds_no_file_that_is_not_whole(tmp_path: Path) -> None:
    store = Store(Settings(), tmp_path)
    await store.put(KEY, b"x" * 100)
    folder = tmp_path / "artifacts"
    assert [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()] == [KEY]
    left = folder / "0123456789abcdef" / "ffeeddccbbaa99887766554433221100#3"
    left.write_bytes(b"half")
    assert await store.clear(time.time() - 60) == 0
    os.utime(left, (1, 1))
    mine = folder / "0123456789abcdef" / "notes.txt"
    mine.write_text("somebody else's")
    os.utime(mine, (1, 1))
    assert await store.clear(time.time() - 60) == 1
    assert (left.exists(), mine.exists()) == (False, True)


async def test_a_disk_that_takes_no_more_is_told_without_its_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import obstore

    async def full(*args: Any, **more: Any) -> None:
        # As obstore 0.12.1 says it on a disk that is full.
        raise obstore.exceptions.GenericError(
            f"Generic LocalFileSystem error: Unable to copy data to file {tmp_path}: No space left on device "
            "(os error 28)"
        )

    monkeypatch.setattr(obstore, "put_async", full)
    with pytest.raises(InsufficientStorage) as told:
        await Store(Settings(), tmp_path).put(KEY, b"x")
    assert str(tmp_path) not in told.value.message


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
async def test_a_folder_that_may_not_be_written_is_told(tmp_path: Path) -> None:
    os.chmod(tmp_path, stat.S_IRUSR | stat.S_IXUSR)
    store = Store(Settings(), tmp_path)
    assert await store.ready() == "not writable"
    with pytest.raises(Unreachable) as told:
        await store.put(KEY, b"x")
    assert str(tmp_path) not in told.value.message


async def test_a_folder_that_is_a_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "artifacts").write_text("in the way")
    store = Store(Settings(), tmp_path)
    assert await store.ready() == "not writable"
    with pytest.raises(Unreachable) as told:
        await store.put(KEY, b"x")
    assert str(tmp_path) not in told.value.message


async def everything(store: Store) -> list[GatewayError]:
    """What each thing one can do with it raises."""
    failures = []
    for work in (store.put(KEY, b"x"), all_of(store, KEY, 0, 1), store.delete(KEY), listed(store)):
        with pytest.raises(GatewayError) as told:
            await work
        failures.append(told.value)
    return failures


async def test_a_bucket_that_is_not_there_is_told_with_its_cure(s3_server: str, tmp_path: Path) -> None:
    config = s3.settings(s3_server) | {"url": "s3://no-such-bucket"}
    store = Store(msgspec.convert(config, Settings), tmp_path)
    assert await store.ready() == "no such bucket"
    for failure in await everything(store):
        assert isinstance(failure, Unreachable)
        assert failure.code == "artifact_bucket_missing"
        assert "no-such-bucket" not in failure.message


async def test_a_server_that_is_not_there_is_told(tmp_path: Path) -> None:
    store = bucket("http://127.0.0.1:9", tmp_path, patience_s=0.3)
    assert await store.ready() == "unavailable"
    for failure in await everything(store):
        assert isinstance(failure, Unreachable)
        assert "127.0.0.1" not in failure.message


async def test_a_server_that_hangs_is_an_error_and_not_a_wait(tmp_path: Path) -> None:
    async with silent() as url:
        store = bucket(url, tmp_path, patience_s=0.2)
        began = time.monotonic()
        assert await store.ready() == "unavailable"
        for failure in await everything(store):
            assert isinstance(failure, Unreachable)
        assert time.monotonic() - began < 6

"""Artifacts as those who keep them meet them: in a folder and in a bucket, with rows in either database."""

import asyncio
import os
import struct
import time
import zlib
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from compat.canonical.error import Corrupted, GatewayError, InsufficientStorage, InvalidRequest, LimitReached, NotFound
from compat.canonical.event import Event, Finished, Produced, Progress, Started
from compat.canonical.message import GLB, Media, Stored
from compat.mesh import Facts, made
from gateway.artifacts import Artifacts
from gateway.artifacts.artifact import Artifact
from gateway.artifacts.store import Store
from gateway.db.artifacts import ArtifactRows
from gateway.keeping import Artifacts as Settings
from gateway.settings import Limit, Limits
from tests.gateway.artifacts.conftest import grant, service

FACTS = Facts(vertices=4, faces=4, bounds=((0, 0, 0), (1, 1, 1)), watertight=True)


def picture(width: int = 3, height: int = 2, seed: int = 0) -> bytes:
    """A PNG, as far as its head goes."""
    head = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + head + struct.pack(">I", zlib.crc32(head)) + bytes([seed])


async def put(artifacts: Artifacts, data: bytes, tenant: str = "acme", **more: Any) -> Artifact:
    given = {"kind": "file", "mime": "application/octet-stream"} | more
    return await artifacts.put(grant(tenant), data, **given)


async def objects(artifacts: Artifacts) -> list[str]:
    return sorted([one.key async for one in artifacts.store.list()])


async def test_an_artifact_is_known_and_read_as_it_was_put(artifacts: Artifacts) -> None:
    data = picture(640, 480) + os.urandom(2_000_000)
    made = await put(
        artifacts,
        data,
        kind="image",
        mime="IMAGE/PNG",
        name="../../etc/ünï\x00 code\r\n.png",
        meta={"prompt": "a \x00 cat"},
        request_id="gen_1\x00",
    )
    assert await artifacts.get("acme", made.id) == made
    assert await artifacts.by_id(made.id) == made
    assert (made.mime, made.size_bytes, made.request_id) == ("image/png", len(data), "gen_1")
    assert made.meta == {"width": 640, "height": 480, "prompt": "a \x00 cat"}
    assert made.name == "ünï code.png"
    assert await artifacts.read(made) == data
    assert b"".join([piece async for piece in artifacts.pieces(made, 10, 1_000_000)]) == data[10:1_000_000]
    assert made.expires_at == pytest.approx(time.time() + 2_592_000, abs=60)


async def test_a_media_type_that_is_none_is_nothing_in_particular(artifacts: Artifacts) -> None:
    for mime in ("", "text/html\r\nx: y", "image", "a/" + "b" * 200, "text/plain; a=b", "tëxt/plain"):
        assert (await put(artifacts, b"x", mime=mime)).mime == "application/octet-stream", mime
    assert (await put(artifacts, b"x", mime="text/plain; charset=UTF-8")).mime == "text/plain; charset=utf-8"


async def test_the_same_bytes_are_kept_once_for_a_tenant_and_not_shared_with_another(artifacts: Artifacts) -> None:
    data = os.urandom(1000)
    mine = [await put(artifacts, data) for _ in range(3)]
    assert len(await objects(artifacts)) == 1
    theirs = await put(artifacts, data, "other")
    assert len(await objects(artifacts)) == 2
    for one in mine:
        await artifacts.delete("acme", one.id)
    assert len(await objects(artifacts)) == 1
    assert await artifacts.read(theirs) == data


async def test_the_same_bytes_at_once_are_kept_once(artifacts: Artifacts) -> None:
    data = os.urandom(100_000)
    kept = await asyncio.gather(*(put(artifacts, data) for _ in range(10)))
    assert len({one.id for one in kept}) == 10
    assert len(await objects(artifacts)) == 1
    assert await artifacts.read(kept[7]) == data


async def test_bytes_are_there_as_long_as_anybody_has_them(artifacts: Artifacts) -> None:
    """Those of one artifact go with it while they are put again."""
    data = os.urandom(500)
    last = await put(artifacts, data)
    for _ in range(10):
        new, *_ = await asyncio.gather(put(artifacts, data), artifacts.delete("acme", last.id))
        assert await artifacts.read(new) == data
        last = new
    assert len(await objects(artifacts)) == 1


async def test_another_tenants_artifact_is_no_more_there_than_none(artifacts: Artifacts) -> None:
    made = await put(artifacts, picture(), kind="image", mime="image/png")

    async def told(id_: str) -> list[tuple[type, str, str | None]]:
        failures = []
        for work in (artifacts.get("other", id_), artifacts.media("other", id_), artifacts.delete("other", id_)):
            with pytest.raises(GatewayError) as failed:
                await work
            failures.append((type(failed.value), failed.value.message.replace(id_, "ID"), failed.value.code))
        return failures

    same = (NotFound, "There is no artifact of the id 'ID'.", "artifact_not_found")
    assert await told(made.id) == await told("art_" + "0" * 32) == [same] * 3
    with pytest.raises(NotFound):
        await put(artifacts, b"x", "other", parent_id=made.id)
    await artifacts.hold("other", "ses_1", "eve", [made.id])
    assert await artifacts.uses(made) == 0
    assert await artifacts.page("other", 9) == []
    assert await artifacts.read(made) == picture()


async def test_deleting_it_takes_what_was_made_from_it_and_all_bytes(artifacts: Artifacts) -> None:
    mesh = await put(artifacts, b"glTF", kind="mesh", mime=GLB)
    poster = await put(artifacts, picture(), kind="poster", mime="image/png", parent_id=mesh.id)
    assert await artifacts.children(mesh) == [poster]
    await artifacts.delete("acme", mesh.id)
    for one in (mesh, poster):
        with pytest.raises(NotFound):
            await artifacts.get("acme", one.id)
        with pytest.raises(NotFound):
            await artifacts.read(one)
    assert await objects(artifacts) == []


async def test_bytes_that_are_lost_or_others_are_not_handed_out(artifacts: Artifacts) -> None:
    made = await put(artifacts, b"the right ones")
    (key,) = await objects(artifacts)
    await artifacts.store.put(key, b"the wrong ones")
    with pytest.raises(Corrupted) as told:
        await artifacts.read(made)
    assert told.value.code == "checksum_mismatch"
    await artifacts.store.delete(key)
    with pytest.raises(NotFound):
        await artifacts.read(made)


async def seen(artifacts: Artifacts, one: Artifact) -> int:
    """How many bytes somebody gets of what is damaged."""
    got = 0
    try:
        async for piece in artifacts.pieces(one, 0, one.size_bytes):
            got += len(piece)
    except Corrupted:
        return got
    raise AssertionError("it was handed out")


@pytest.mark.parametrize("size", [14, 300_000])
@pytest.mark.parametrize("how", ["lost", "shorter", "others"])
async def test_who_puts_them_again_mends_bytes_that_are_lost_or_others(
    artifacts: Artifacts, how: str, size: int
) -> None:
    data = os.urandom(size)
    first = await put(artifacts, data)
    (key,) = await objects(artifacts)
    if how == "lost":
        await artifacts.store.delete(key)
    else:
        await artifacts.store.put(key, data[:-1] if how == "shorter" else bytes(4) + data[4:])
        if how == "others":
            assert await seen(artifacts, first) < size, "nobody gets all of it"
    again = await asyncio.gather(*(put(artifacts, data) for _ in range(3)))
    for one in (first, *again):
        assert await artifacts.read(one) == data
    (new,) = await objects(artifacts)
    assert new != key
    await put(artifacts, data)
    assert await objects(artifacts) == [new]
    assert await artifacts.rows.stored_bytes() == size


async def test_a_picture_is_part_of_a_request_and_nothing_else_is(artifacts: Artifacts) -> None:
    made = await put(artifacts, picture(), kind="image", mime="image/png", name="cat.png")
    assert await artifacts.media("acme", made.id) == Media(mime="image/png", data=picture(), name=made.id)
    text = await put(artifacts, b"x", kind="text", mime="text/plain")
    with pytest.raises(InvalidRequest):
        await artifacts.media("acme", text.id)


async def events(*given: Event) -> AsyncGenerator[Event, None]:
    for one in given:
        yield one


def stored(event: Event) -> Stored:
    assert isinstance(event, Produced)
    found = event.media.extra["stored"]
    assert isinstance(found, Stored)
    return found


async def test_what_an_answer_brings_is_kept_and_the_rest_passes(artifacts: Artifacts) -> None:
    started, finished = Started(id="gen_1", model="m", created=1), Finished(reason="stop")
    preview = Produced(media=Media(mime="image/png", data=b"half"), partial=0)
    away = Produced(media=Media(mime="image/png", url="https://provider.example/a.png"), index=1)
    whole = Produced(media=Media(mime="image/png", data=picture()), revised_prompt="a cat")
    given = (started, Progress(step=1, of=2), preview, whole, away, finished)
    passed = [one async for one in artifacts.kept(events(*given), grant(), base_url="https://here", request_id="req_1")]
    assert [*passed[:3], *passed[4:]] == [started, Progress(step=1, of=2), preview, away, finished]
    said = stored(passed[3])
    (known,) = await artifacts.page("acme", 9)
    assert (said.id, said.size_bytes, said.sha256) == (known.id, len(picture()), known.sha256)
    assert said.url.startswith(f"https://here/v1/artifacts/{known.id}/content?")
    assert said.expires_at == pytest.approx(time.time() + 900, abs=30)
    assert (known.kind, known.request_id, known.meta) == (
        "image",
        "req_1",
        {"prompt": "a cat", "width": 3, "height": 2},
    )


async def test_a_mesh_is_kept_in_all_its_formats_each_with_its_poster(artifacts: Artifacts) -> None:
    poster = picture(512, 512)
    files = [made(name, name.encode(), FACTS, poster) for name in ("glb", "obj", "stl")]
    given = [Produced(media=media, index=n) for n, media in enumerate(files)]
    passed = [one async for one in artifacts.kept(events(*given), grant(), base_url="https://here", request_id="req_1")]
    assert len({stored(one).id for one in passed}) == 3
    for one in passed:
        (mine,) = await artifacts.children(await artifacts.get("acme", stored(one).id))
        assert mine.kind == "poster"
        assert mine.id in (stored(one).poster_url or "")
    assert len(await objects(artifacts)) == 4, "the poster's bytes are kept once"
    mesh = await artifacts.get("acme", stored(passed[0]).id)
    assert (mesh.kind, mesh.mime, mesh.name) == ("mesh", GLB, "mesh.glb")
    assert mesh.meta == msgspec.json.decode(msgspec.json.encode(FACTS))


async def test_what_cannot_be_kept_goes_to_its_client_all_the_same(rows: ArtifactRows) -> None:
    section: dict[str, Any] = {"url": "s3://nowhere", "s3": {"endpoint": "http://127.0.0.1:9", "allow_http": True}}
    store = Store(msgspec.convert(section, Settings), Path(), patience_s=0.2)
    broken = service(rows, store, section)
    given = Produced(media=Media(mime="image/png", data=picture()))
    passed = [one async for one in broken.kept(events(given), grant(), base_url="", request_id="req_1")]
    assert passed == [given]


async def full(artifacts: Artifacts, who: Any) -> str | None:
    try:
        await artifacts.room(who)
    except (LimitReached, InsufficientStorage) as e:
        return e.code
    return None


async def test_a_key_a_user_and_a_tenant_have_room_for_so_much(rows: ArtifactRows, store: Store) -> None:
    limits = Limits(
        default=Limit(artifact_bytes=100),
        keys={"big": Limit(artifact_bytes=1000)},
        users={"bob": Limit(artifact_bytes=150)},
        tenants={"small": Limit(artifact_bytes=50)},
    )
    artifacts = service(rows, store, {}, limits)
    over = "artifact_quota_exceeded"

    async def keep(who: Any, size: int) -> None:
        await artifacts.put(who, os.urandom(size), kind="file", mime="text/plain")

    ann, big, token = grant(), grant(key_id="big"), grant(key_id=None)
    await keep(ann, 99)
    assert await full(artifacts, ann) is None
    await keep(ann, 500)  # what was let in is kept, though it goes beyond
    assert await full(artifacts, ann) == over
    assert [await full(artifacts, who) for who in (big, token)] == [None, None], "of others, or without a key"
    await keep(token, 100)
    assert await full(artifacts, token) == over
    await keep(big, 400)
    assert await full(artifacts, big) is None
    assert await full(artifacts, grant(limit=Limit(artifact_bytes=600))) is None
    bob = [grant(user="bob", key_id=name, limit=Limit(artifact_bytes=10**6)) for name in ("b1", "b2")]
    for who in bob:
        await keep(who, 80)
    assert await full(artifacts, bob[0]) == over, "both keys together"
    assert await full(artifacts, grant("small", "eve", "e1")) is None
    await keep(grant("small", "eve", "e1"), 50)
    assert await full(artifacts, grant("small", "zoe", "z1")) == over
    for one in await artifacts.page("acme", 99):
        await artifacts.delete("acme", one.id)
    assert await full(artifacts, ann) is None


async def test_all_together_may_take_so_much(rows: ArtifactRows, store: Store) -> None:
    artifacts = service(rows, store, {"max_bytes": "1 kB"})
    assert await full(artifacts, grant()) is None
    await put(artifacts, os.urandom(1000))
    assert await full(artifacts, grant("other")) == "insufficient_storage", "what was put since it was counted counts"

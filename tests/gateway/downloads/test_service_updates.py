"""Newer revisions of downloaded models: noticed, fetched beside the old, served, and gone back from."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.gateway.downloads.world import FILE, NAME, REPO, World, ranker, repository, told, world

MODEL = f"local/{NAME}"
PARTS = tuple(f"big-Q8_0-0000{n}-of-00002.gguf" for n in (1, 2))
QUICK = """
from gateway.downloads import updates
updates.FIRST_S, updates.LOOK_S = 0.2, 0.2
"""


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    repos = repository(), repository("acme/parts", {name: ranker() for name in PARTS})
    with world(tmp_path_factory.mktemp("updates"), *repos, prelude=QUICK, hub={"updates_h": 0.0001}) as one:
        assert one.ended(one.begun())["status"] == "done"
        yield one


def newer(there: World, mark: bytes = b"2") -> str:
    return there.hub.repos[REPO].push({FILE: ranker() + mark * 64})


def test_what_is_newer_is_noticed_fetched_beside_it_served_and_gone_back_from(there: World) -> None:
    first = there.hub.repos[REPO].commits[0].id
    alone = there.post(f"/v1/models/{MODEL}/rollback")
    assert (alone.status_code, told(alone)["code"]) == (409, "no_version")
    assert there.post(f"/v1/models/{MODEL}/update").json()["updated"] is False
    described = there.hub.repos[REPO].push({"README.md": b"# Noise, described anew\n"})
    assert there.post(f"/v1/models/{MODEL}/update").json() == {
        "id": MODEL, "object": "model.versions", "updated": False, "version": first, "versions": [first],
    }  # fmt: skip
    second = newer(there)
    assert there.gateway.wait_for("update_found", model=MODEL)["commit"] == second
    model = there.listed()
    assert model is not None
    assert (model["update"], model["version"]) == (second, first)
    assert described != second
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(there.ranked) for _ in range(12)]
        answer = there.post(f"/v1/models/{MODEL}/update")
        assert answer.status_code == 202, answer.text
        assert there.ended(answer.json()["id"])["status"] == "done"
        assert {one.result().status_code for one in asked} == {200}
    model = there.listed()
    assert model is not None
    assert (model["update"], model["version"]) == (None, second)
    assert there.ranked().status_code == 200
    back = there.post(f"/v1/models/{MODEL}/rollback")
    assert (back.status_code, back.json()["version"]) == (200, first)
    assert there.ranked().status_code == 200
    forth = there.post(f"/v1/models/{MODEL}/rollback", commit=second[:12])
    assert forth.json()["version"] == second
    wrong = there.post(f"/v1/models/{MODEL}/rollback", commit="0" * 12)
    assert (wrong.status_code, told(wrong)["code"]) == (409, "no_version")
    third = newer(there, b"3")
    assert there.ended(there.post(f"/v1/models/{MODEL}/update").json()["id"])["status"] == "done"
    folders = {name.split("/")[1] for name in there.files() if name.startswith("acme--noise")}
    assert folders == {second[:12], third[:12]}


def test_what_is_the_same_is_not_fetched_again(there: World) -> None:
    assert there.ended(there.begun(repo="acme/parts", name="parts", file=PARTS[0]))["status"] == "done"
    there.hub.repos["acme/parts"].push({PARTS[0]: ranker() + b"2" * 64})
    before = len(there.hub.asked(".gguf"))
    assert there.ended(there.post("/v1/models/local/parts/update").json()["id"])["status"] == "done"
    assert {one.path.rpartition("/")[2] for one in there.hub.asked(".gguf")[before:]} == {PARTS[0]}
    same = list(there.root.rglob(PARTS[1]))
    assert len(same) == 2
    assert os.path.samefile(*same)


def test_only_what_was_downloaded_can_be_updated(there: World) -> None:
    shipped = there.post("/v1/models/local/smollm2-135m-instruct/update")
    assert (shipped.status_code, told(shipped)["code"]) == (400, "not_downloaded")
    assert there.post("/v1/models/local/absent/update").status_code == 404
    assert told(there.post(f"/v1/models/{MODEL}/rollback", to="x"))["param"] == "to"

"""Downloads that are paused, cancelled, killed and shared, through a gateway from a hub."""

import contextlib
import hashlib
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.gateway.db.postgres import cluster, programs
from tests.gateway.downloads.world import FILE, MIB, NAME, REPO, World, beside, large, repository, world
from tests.http import until
from tests.hub import HubServer, hub
from tests.hub.files import sent

SIZE = 10
SLOW = {"bytes_per_s": "8MiB"}
KEYS = {tenant: f"downloads-key-of-{tenant}-0123456789" for tenant in ("acme", "rival")}
AUTH = {
    "mode": "api_key",
    "keys": [
        {"name": tenant, "key": key, "scopes": ["inference", "models:read", "models:write"], "tenant": tenant}
        for tenant, key in KEYS.items()
    ],
}


@pytest.fixture(scope="module")
def one_world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    repo = repository(files={FILE: large(SIZE)})
    with world(tmp_path_factory.mktemp("jobs"), repo, hub=SLOW, auth=AUTH, key=KEYS["acme"]) as one:
        yield one


@pytest.fixture
def there(one_world: World) -> Iterator[World]:
    """With nothing downloaded, and nothing handed out."""
    sent(one_world.hub)
    vars(one_world.hub)["sent"].clear()
    yield one_world
    for job in one_world.http.get("/v1/jobs").json()["data"]:
        one_world.post(f"/v1/jobs/{job['id']}/cancel")
    one_world.http.delete(f"/v1/models/local/{NAME}?files=true&force=true")


def transferred(server: HubServer) -> list[tuple[int, int]]:
    """From where up to where the large file was handed out."""
    return [(start, end) for path, start, end in sent(server) if path.startswith("/repos/")]


def test_a_paused_download_goes_on_from_where_it_was(there: World) -> None:
    id_ = there.begun()
    there.moving(id_, MIB)
    assert there.post(f"/v1/jobs/{id_}/pause").json()["status"] == "paused"
    had = there.job(id_)["progress"]["bytes_done"]
    model = there.listed()
    assert model is not None
    assert (model["status"], model["reason"]) == ("downloading", "paused")
    assert there.ranked().status_code >= 400
    assert there.post(f"/v1/jobs/{id_}/resume").status_code == 200
    again = there.moving(id_, had)
    assert again["progress"]["bytes_done"] >= had
    # And cancelled it is as if nobody had asked.
    assert there.post(f"/v1/jobs/{id_}/cancel").json()["status"] == "cancelled"
    assert there.listed() is None
    assert there.files() == set()
    starts = [start for start, _ in transferred(there.hub)]
    assert starts[0] == 0
    assert all(start > 0 for start in starts[1:])


def test_a_registered_model_is_registered_again_after_a_cancelled_download(there: World) -> None:
    source = {"repo": REPO}
    made = there.post("/v1/models", backend="local", name="known", source=source)
    assert made.status_code in (200, 201), made.text
    answer = there.post("/v1/models/download", model="local/known")
    assert answer.status_code == 202, answer.text
    id_ = answer.json()["id"]
    there.moving(id_)
    there.post(f"/v1/jobs/{id_}/cancel")
    model = there.listed("local/known")
    assert model is not None
    assert model["status"] == "registered"
    assert there.files() == set()


def test_two_who_want_the_same_get_it_by_one_transfer(there: World) -> None:
    theirs = {"x-api-key": KEYS["rival"]}
    first = there.begun()
    there.moving(first)
    again = there.download()
    assert (again.status_code, again.json()["id"]) == (202, first)
    second = there.download(theirs).json()["id"]
    assert second != first
    assert there.http.get(f"/v1/jobs/{first}", headers=theirs).status_code == 404
    assert there.ended(first)["status"] == "done"
    assert there.ended(second, theirs)["status"] == "done"
    assert transferred(there.hub) == [(0, SIZE * MIB)]


def test_cancelling_ones_own_does_not_take_it_from_the_other(there: World) -> None:
    theirs = {"x-api-key": KEYS["rival"]}
    first = there.begun()
    there.moving(first, MIB)
    second = there.download(theirs).json()["id"]
    there.post(f"/v1/jobs/{first}/cancel")
    assert there.ended(second, theirs)["status"] == "done"
    assert [start > 0 for start, _ in transferred(there.hub)] == [False, True]
    assert there.ranked().status_code == 200


def test_a_killed_gateway_goes_on_with_the_byte_it_had(tmp_path: Path) -> None:
    """On PostgreSQL, where it is installed; its steps are tried on SQLite below."""
    file = large(SIZE)
    with hub(repository(files={FILE: file})) as server:
        if programs() is None:
            killed(tmp_path, server, file, {})
        else:
            with cluster() as url:
                killed(tmp_path, server, file, {"database": {"url": url}})


def killed(folder: Path, server: HubServer, file: Any, config: dict[str, Any]) -> None:
    with beside(folder, server, hub=SLOW, **config) as there:
        id_ = there.begun()
        there.moving(id_, 3 * MIB)
        there.gateway.stop(signal.SIGKILL)
        [part] = [path for path in there.root.rglob("*.part") if path.is_file()]
        had = part.stat().st_size
    with beside(folder, server, **config) as there:
        assert there.ended(id_)["status"] == "done"
        assert there.ranked().status_code == 200
        [path] = there.root.rglob("*.gguf")
        whole = hashlib.sha256(file.read(0, file.size)).hexdigest()
        assert hashlib.sha256(path.read_bytes()).hexdigest() == whole
    starts = [start for start, _ in transferred(server)]
    assert starts == [0, starts[-1]]
    assert 0 <= had - starts[-1] <= MIB
    assert starts[-1] > 0


def test_killed_between_any_two_steps_it_is_gone_on_with(tmp_path: Path) -> None:
    with hub(repository()) as server:
        prelude = dying("gateway.jobs", "Jobs.put")
        with beside(tmp_path, server, prelude=prelude) as there, pytest.raises(httpx2.TransportError):
            there.download()
        with beside(tmp_path, server, prelude=dying("gateway.downloads.landing", "landed")) as there:
            assert until(lambda: (there.listed() or {}).get("status") == "registered")
            with contextlib.suppress(httpx2.TransportError):
                there.download()
            assert there.gateway.process.wait(10) == -signal.SIGKILL
        prelude = dying("gateway.downloads.updates", "Updates.describe")
        # It may be dead before it has said that it has started.
        with contextlib.suppress(AssertionError), beside(tmp_path, server, prelude=prelude) as there:
            there.gateway.process.wait(10)
        with beside(tmp_path, server) as there:
            [job] = there.http.get("/v1/jobs").json()["data"]
            done = there.ended(job["id"])
            assert (done["status"], done["attempts"]) == ("done", 3)
            assert there.ranked().status_code == 200
        assert len(transferred(server)) == 1


def dying(module: str, name: str) -> str:
    """Where the process is killed, as soon as it comes there."""
    return f"import os, {module}\n{module}.{name} = lambda *_, **__: os.kill(os.getpid(), 9)\n"


def test_a_faster_line_is_given_to_what_runs_by_the_configuration(there: World) -> None:
    there.configured("8MiB", "256KiB")
    id_ = there.begun()
    there.moving(id_)
    assert there.job(id_)["status"] == "running"
    there.configured("256KiB", "8MiB")
    assert there.ended(id_, within_s=8)["status"] == "done"


def test_a_client_that_leaves_while_it_is_planned_has_asked_for_nothing(there: World) -> None:
    there.hub.hang("/api/models/acme/slow", 3)
    with pytest.raises(httpx2.ReadTimeout):
        there.http.post("/v1/models/download", json={"repo": "acme/slow", "name": "slow"}, timeout=0.5)
    assert until(lambda: there.listed("local/slow") is None, 2)
    assert not [job for job in there.http.get("/v1/jobs").json()["data"] if job.get("target") == "local/slow"]

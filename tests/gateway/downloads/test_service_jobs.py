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
from tests.gateway.downloads.world import FILE, MIB, NAME, REPO, World, beside, large, repository, told, world
from tests.http import until
from tests.hub import HubServer, hub
from tests.hub.files import sent, twist

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
    repos = repository(files={FILE: large(SIZE)}), repository("acme/small-gguf")
    with world(tmp_path_factory.mktemp("jobs"), *repos, hub=SLOW, auth=AUTH, key=KEYS["acme"]) as one:
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


def transferred(server: HubServer, repo: str = "") -> list[tuple[int, int]]:
    """From where up to where the large file was handed out."""
    return [(start, end) for path, start, end in sent(server) if path.startswith(f"/repos/{repo}")]


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


def test_what_another_tenant_waits_for_is_not_taken_from_it(there: World) -> None:
    id_ = there.begun()
    there.moving(id_)
    theirs = {"x-api-key": KEYS["rival"]}
    refused = there.http.delete(f"/v1/models/local/{NAME}?force=true&files=true", headers=theirs)
    assert (refused.status_code, told(refused)["code"]) == (409, "conflict")
    assert there.job(id_)["status"] == "running"
    # Its own tenant may.
    assert there.http.delete(f"/v1/models/local/{NAME}?force=true&files=true").status_code == 200
    assert there.job(id_)["status"] == "cancelled"
    assert there.files() == set()


def test_a_failed_download_neither_outlives_its_model_nor_takes_its_name_from_another(there: World) -> None:
    theirs = {"x-api-key": KEYS["rival"]}
    address = f"/{REPO}/resolve/{there.hub.repos[REPO].commits[-1].id}/{FILE}"
    twist(there.hub, f"/repos/{REPO}", cdn=True, cut=3 * MIB)
    twist(there.hub, address)
    there.hub.refuse(address, 404, times=99)  # from the second time on
    first = there.begun()
    failed = there.ended(first)
    assert (failed["status"], failed["error"]["code"]) == ("failed", "file_not_found")
    second = there.download(theirs).json()["id"]
    assert there.ended(second, theirs)["status"] == "failed"
    there.hub.faults.clear()
    assert [name for name in there.files() if name.endswith(".part")]
    assert there.http.delete(f"/v1/models/local/{NAME}?files=true").status_code == 200
    assert there.files() == set()
    assert there.post(f"/v1/jobs/{first}/resume").status_code == 409
    other = there.ended(there.begun(repo="acme/small-gguf"))
    assert other["status"] == "done"
    assert there.post(f"/v1/jobs/{second}/resume", theirs).status_code == 200
    ended = there.ended(second, theirs)
    assert (ended["status"], ended["error"]["code"]) == ("failed", "name_taken")
    model = there.listed()
    assert model is not None
    assert (model["source"], model["status"]) == ("huggingface:acme/small-gguf", "unloaded")
    assert not [name for name in there.files() if "small" not in name]


def test_a_killed_gateway_goes_on_with_the_byte_it_had(tmp_path: Path) -> None:
    """On PostgreSQL, where it is installed; its steps are tried on SQLite below."""
    file = large(SIZE)
    with hub(repository(files={FILE: file}), repository("acme/other", {FILE: large(SIZE, seed=1)})) as server:
        if programs() is None:
            killed(tmp_path, server, file, {})
        else:
            with cluster() as url:
                killed(tmp_path, server, file, {"database": {"url": url}})


def killed(folder: Path, server: HubServer, file: Any, config: dict[str, Any]) -> None:
    prelude = dying("gateway.downloads", "Downloads.settled")
    with beside(folder, server, prelude=prelude, hub=SLOW, **config) as there:
        other = there.begun(repo="acme/other", name="other")
        id_ = there.begun()
        there.moving(id_, 3 * MIB)
        with contextlib.suppress(httpx2.TransportError):
            there.post(f"/v1/jobs/{other}/cancel")  # and that is as far as it comes
        assert there.gateway.process.wait(10) == -signal.SIGKILL
        [part] = [path for path in there.root.rglob("*.part") if path.is_file() and "other" not in str(path)]
        had = part.stat().st_size
    with beside(folder, server, **config) as there:
        assert there.ended(id_)["status"] == "done"
        assert there.ranked().status_code == 200
        [path] = there.root.rglob("*.gguf")
        whole = hashlib.sha256(file.read(0, file.size)).hexdigest()
        assert hashlib.sha256(path.read_bytes()).hexdigest() == whole
        assert there.job(other)["status"] == "cancelled"
        assert there.listed("local/other") is None
        assert not [name for name in there.files() if "other" in name]
    starts = [start for start, _ in transferred(server, REPO)]
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

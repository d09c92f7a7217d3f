"""/v1/jobs: long work as its tenant sees it: listed, watched, paused, gone on with and ended."""

import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.gateway.api.conftest import ACME_KEY, KEEPER_AUTH, RIVAL_KEY
from tests.gateway.api.test_requests import feed_of
from tests.gateway.conftest import speaking
from tests.gateway.db.postgres import cluster, programs
from tests.gateway.jobs.works import PRELUDE, put
from tests.http import error_of, until
from tests.process import Gateway, gateway

FIELDS = {
    "id", "object", "kind", "status", "target", "progress", "error", "result", "priority", "attempts", "created_at",
    "updated_at", "started_at", "ended_at",
}  # fmt: skip
READER_KEY = "jobs-reader-key-41"
NARROW: list[tuple[str, str, dict[str, Any]]] = [
    ("by-model", "jobs-by-model-key-7", {"models": ["local/mine-*"]}),
    ("by-backend", "jobs-by-backend-key-7", {"backends": ["fake"]}),
]
"""Keys of the same tenant that may not use every model."""
AUTH = KEEPER_AUTH | {
    "keys": [
        *({**key, "scopes": ["models:read", "models:write"]} for key in KEEPER_AUTH["keys"]),  # type: ignore[dict-item]
        {"name": "reader", "key": READER_KEY, "tenant": "acme", "scopes": ["models:read"]},
        {"name": "root", "key": "jobs-root-key-99", "scopes": ["admin"]},
        *(
            {"name": name, "key": key, "tenant": "acme", "scopes": ["models:read", "models:write"], **narrow}
            for name, key, narrow in NARROW
        ),
    ]
}
TREE: dict[str, Any] = {"auth": AUTH, "backends": {"fake": {"kind": "fake"}}}
SMALL, STEP = 20, 2
METHODS = ("GET", "DELETE")
VERBS = [("GET", ""), ("GET", "/events"), ("POST", "/cancel"), ("POST", "/pause"), ("POST", "/resume")]


@pytest.fixture(scope="module")
def works(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with gateway(tmp_path_factory.mktemp("works"), TREE, prelude=PRELUDE) as running:
        yield running


@pytest.fixture
def http(works: Gateway) -> Iterator[httpx2.Client]:
    with speaking(works, {"authorization": f"Bearer {ACME_KEY}"}) as client:
        yield client


def begun(http: httpx2.Client, folder: Path, **spec: Any) -> str:
    id_ = put(folder, **spec)
    until(lambda: http.get(f"/v1/jobs/{id_}").json()["progress"]["bytes_done"] > 0)
    return id_


def test_a_job_is_told_in_full(works: Gateway, http: httpx2.Client) -> None:
    id_ = put(works.folder, bytes_=SMALL, step=STEP)
    job = until(lambda: (found := http.get(f"/v1/jobs/{id_}").json())["status"] == "done" and found)
    assert set(job) == FIELDS
    assert job["object"] == "job"
    assert job["progress"] == {
        "phase": "downloading", "bytes_done": SMALL, "bytes_total": SMALL, "file": "a.gguf", "files_done": 0,
        "files_total": None, "bytes_per_s": None, "eta_s": None,
    }  # fmt: skip
    assert (job["kind"], job["target"], job["result"]) == ("fake", "local/new-model", {"model": "local/new-model"})
    assert (job["error"], job["attempts"]) == (None, 1)
    assert job["created_at"] == "2025-11-22T00:00:00Z"


def test_a_job_is_watched_to_its_end(works: Gateway, http: httpx2.Client) -> None:
    id_ = put(works.folder, bytes_=60, step=1)
    watched = http.get(f"/v1/jobs/{id_}/events")
    assert watched.headers["content-type"].startswith("text/event-stream")
    feed = feed_of(watched.text)
    names = [name for name, _ in feed]
    assert names[-1] == "done"
    assert set(names[:-1]) <= {"queued", "progress"}
    seen = [job["progress"]["bytes_done"] for _, job in feed]
    assert seen == sorted(seen)
    assert len(set(seen)) >= 4
    assert any(job["progress"]["bytes_per_s"] and job["progress"]["eta_s"] is not None for _, job in feed)
    assert [name for name, _ in feed_of(http.get(f"/v1/jobs/{id_}/events").text)] == ["done"]


def test_a_failure_is_told_in_its_own_words(works: Gateway, http: httpx2.Client) -> None:
    id_ = put(works.folder, bytes_=SMALL, step=STEP, fails=True)
    name, job = feed_of(http.get(f"/v1/jobs/{id_}/events").text)[-1]
    assert name == "failed"
    assert job["error"] == {"code": "checksum_mismatch", "message": "The file is not what its hash says."}


def test_a_job_is_paused_gone_on_with_and_cancelled(works: Gateway, http: httpx2.Client) -> None:
    id_ = begun(http, works.folder)
    with ThreadPoolExecutor(1) as pool:
        watching = pool.submit(http.get, f"/v1/jobs/{id_}/events")
        time.sleep(0.4)
        began = time.monotonic()
        paused = http.post(f"/v1/jobs/{id_}/pause").json()
        assert time.monotonic() - began < 1.0
        assert paused["status"] == "paused"
        there = paused["progress"]["bytes_done"]
        time.sleep(0.3)
        assert http.get(f"/v1/jobs/{id_}").json()["progress"]["bytes_done"] == there
        assert http.post(f"/v1/jobs/{id_}/resume").status_code == 200
        until(lambda: http.get(f"/v1/jobs/{id_}").json()["progress"]["bytes_done"] > there)
        cancelled = http.post(f"/v1/jobs/{id_}/cancel").json()
        assert (cancelled["status"], cancelled["attempts"]) == ("cancelled", 2)
        names = [name for name, _ in feed_of(watching.result(10).text)]
        assert names[-1] == "cancelled"
        assert "paused" in names
    for verb, status in (("cancel", 200), ("pause", 409), ("resume", 409)):
        answer = http.post(f"/v1/jobs/{id_}/{verb}")
        assert answer.status_code == status
    assert error_of(answer)["code"] == "conflict"
    with speaking(works, {"authorization": "Bearer jobs-root-key-99"}) as root:
        acts = root.get("/v1/audit", params={"limit": 3}).json()["data"]
    assert [(act["action"], act["target"], act["actor"]) for act in acts] == [
        (f"job.{verb}", id_, "acme") for verb in ("cancel", "resume", "pause")
    ]


def test_jobs_are_listed_page_by_page_and_filtered(works: Gateway, http: httpx2.Client) -> None:
    ids = [put(works.folder, bytes_=SMALL, step=SMALL) for _ in range(5)]
    until(lambda: http.get(f"/v1/jobs/{ids[-1]}").json()["status"] == "done")
    found: list[str] = []
    cursor = None
    while len(found) < 5:
        page = http.get("/v1/jobs", params={"limit": 2} | ({"cursor": cursor} if cursor else {})).json()
        assert page["object"] == "list"
        found += [job["id"] for job in page["data"]]
        cursor = page["next_cursor"]
    assert found[:5] == ids[::-1]
    assert http.get("/v1/jobs", params={"kind": "odd"}).json()["data"] == []
    failed = http.get("/v1/jobs", params={"status": "failed"}).json()["data"]
    assert {job["status"] for job in failed} <= {"failed"}


@pytest.mark.parametrize(
    ("query", "param"),
    [("status=over", "status"), ("limit=0", "limit"), ("limit=x", "limit"), ("cursor=%00", "cursor")],
)
def test_questions_that_mean_nothing_are_refused(http: httpx2.Client, query: str, param: str) -> None:
    answer = http.get(f"/v1/jobs?{query}")
    assert answer.status_code == 400
    assert error_of(answer)["param"] == param


def test_nobody_sees_or_ends_the_jobs_of_another_tenant(works: Gateway, http: httpx2.Client) -> None:
    id_ = begun(http, works.folder)
    with (
        speaking(works, {"authorization": f"Bearer {RIVAL_KEY}"}) as rival,
        speaking(works, {"authorization": f"Bearer {READER_KEY}"}) as reader,
    ):
        for method, path in VERBS:
            foreign = rival.request(method, f"/v1/jobs/{id_}{path}")
            absent = rival.request(method, f"/v1/jobs/job_none{path}")
            assert (foreign.status_code, absent.status_code) == (404, 404)
            assert foreign.text.replace(id_, "ID") == absent.text.replace("job_none", "ID")
            assert reader.request(method, f"/v1/jobs/{id_}{path}x").status_code in (404, 405)
        assert rival.get("/v1/jobs").json()["data"] == []
        assert reader.post(f"/v1/jobs/{id_}/cancel").status_code == 403
        assert reader.get(f"/v1/jobs/{id_}").json()["status"] == "running"
    assert http.post(f"/v1/jobs/{id_}/cancel").status_code == 200


@pytest.mark.parametrize(("key", "mine"), [(key, name == "by-model") for name, key, _ in NARROW])
def test_a_key_sees_only_jobs_about_models_it_may_use(
    works: Gateway, http: httpx2.Client, key: str, *, mine: bool
) -> None:
    target = "local/mine-1" if mine else "fake/mine-1"
    ids = [put(works.folder, bytes_=SMALL, step=STEP, target=target) for _ in range(3)]
    hidden = begun(http, works.folder)
    until(lambda: http.get(f"/v1/jobs/{ids[-1]}").json()["status"] == "done")
    absent = "job_" + "0" * 32
    with speaking(works, {"authorization": f"Bearer {key}"}) as narrow:
        for method, path in VERBS:
            answer, other = (narrow.request(method, f"/v1/jobs/{id_}{path}") for id_ in (hidden, absent))
            assert (answer.status_code, other.status_code) == (404, 404)
            assert answer.text.replace(hidden, "ID") == other.text.replace(absent, "ID")
        assert narrow.get(f"/v1/jobs/{ids[0]}").json()["target"] == target
        assert [name for name, _ in feed_of(narrow.get(f"/v1/jobs/{ids[0]}/events").text)] == ["done"]
        first = narrow.get("/v1/jobs", params={"limit": 2}).json()
        rest = narrow.get("/v1/jobs", params={"limit": 2, "cursor": first["next_cursor"]}).json()
        assert [job["id"] for job in first["data"]] == ids[:0:-1]
        assert rest["data"][0]["id"] == ids[0]
        assert {job["target"] for job in rest["data"]} == {target}
    cancelled = http.post(f"/v1/jobs/{hidden}/cancel").json()
    assert (cancelled["status"], cancelled["attempts"]) == ("cancelled", 1)


def test_one_that_has_failed_is_cancelled_but_not_gone_on_with_then(works: Gateway, http: httpx2.Client) -> None:
    id_ = put(works.folder, bytes_=SMALL, step=STEP, fails=True)
    until(lambda: http.get(f"/v1/jobs/{id_}").json()["status"] == "failed")
    cancelled = http.post(f"/v1/jobs/{id_}/cancel")
    assert (cancelled.status_code, cancelled.json()["status"]) == (200, "cancelled")
    assert http.post(f"/v1/jobs/{id_}/resume").status_code == 409


ODD = {"nul": "%00", "ended by nul": "job_1%00", "surrogate": "%ED%A0%80", "cut": "%F0%9F", "long": "job_" + "1" * 900}


@pytest.fixture(scope="module")
def on_postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    if programs() is None:
        pytest.skip("PostgreSQL is not installed")
    folder = tmp_path_factory.mktemp("on-postgres")
    with cluster() as url, gateway(folder, TREE | {"database": {"url": url}}) as running:
        yield running


@pytest.mark.parametrize("odd", ODD)
def test_ids_that_no_text_of_the_database_can_be_are_not_there(on_postgres: Gateway, odd: str) -> None:
    paths = [(method, f"/v1/jobs/{{}}{path}") for method, path in VERBS]
    paths += [(method, f"/v1/{kind}/{{}}") for kind in ("keys", "credentials", "responses") for method in METHODS]
    paths += [("POST", "/v1/keys/{}/rotate"), ("POST", "/v1/responses/{}/cancel"), ("GET", "/v1/artifacts/{}")]
    paths += [("GET", "/v1/responses/{}/input_items"), ("GET", "/v1/requests/{}"), ("GET", "/v1/models/{}/schema")]
    paths += [(method, f"/v1/models/{{}}{verb}") for method, verb in (("GET", ""), ("DELETE", ""), ("POST", "/update"))]
    filters = ["jobs?kind", "jobs?cursor", "usage?model", "usage?cursor", "audit?cursor", "keys?tenant", "keys?cursor"]
    paths += [("GET", f"/v1/{name}={{}}") for name in [*filters, "models/fake%2Ffake/schema?version"]]
    with speaking(on_postgres, {"authorization": "Bearer jobs-root-key-99"}) as root:
        for method, path in paths:
            answer = root.request(method, path.format(ODD[odd]), json={} if method in ("POST", "PATCH") else None)
            filtered = answer.status_code == 200 and "?" in path
            assert filtered or 400 <= answer.status_code < 500, (method, path, answer.text)
    assert "database_failed" not in "".join(on_postgres.lines)


def test_after_a_kill_a_job_is_gone_on_with_and_a_stop_gives_it_back(tmp_path: Path) -> None:
    headers = {"authorization": f"Bearer {ACME_KEY}"}
    with gateway(tmp_path, TREE, prelude=PRELUDE) as running, speaking(running, headers) as http:
        id_ = begun(http, tmp_path)
        time.sleep(1.2)
        assert running.stop(signal.SIGKILL) == -signal.SIGKILL
    with gateway(tmp_path, TREE, prelude=PRELUDE) as running, speaking(running, headers) as http:
        began = time.monotonic()
        job = until(lambda: (found := http.get(f"/v1/jobs/{id_}").json())["attempts"] == 2 and found, 10)
        assert time.monotonic() - began < 5.0
        assert job["progress"]["bytes_done"] > 2**20, "from where it was"
        with ThreadPoolExecutor(1) as pool:
            watching = pool.submit(http.get, f"/v1/jobs/{id_}/events")
            time.sleep(0.5)
            assert running.stop() == 0
            assert feed_of(watching.result(10).text)[-1][0] == "progress"
    with gateway(tmp_path, TREE, prelude=PRELUDE) as running, speaking(running, headers) as http:
        began = time.monotonic()
        until(lambda: http.get(f"/v1/jobs/{id_}").json()["attempts"] == 3)
        assert time.monotonic() - began < 2.0

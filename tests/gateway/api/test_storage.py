"""/v1/storage through the front door: what models take, what would go, and what never does."""

import asyncio
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import pytest

from gateway import embedded
from gateway.checks import check
from gateway.config import load
from gateway.db import engine as database
from gateway.db.models import ModelRows
from gateway.registry.entry import Entry, Source, Version
from gateway.settings import EMBEDDED_MODEL, ConfigError
from tests.gateway.conftest import ADMIN_KEY, APP_KEY, speaking
from tests.http import CHAT, chat, error_of, metric
from tests.process import Gateway, gateway

DAY_S = 86_400.0
RESTRICTED_KEY = "restricted-key-canary-20c4"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
FOLDER = f"models/hub/org--%s/{COMMIT[:12]}"


def model(data: Path, name: str, *, used_days: float) -> Entry:
    """A downloaded model that can be run."""
    path = data / (FOLDER % name) / f"{name}.gguf"
    path.parent.mkdir(parents=True)
    source = embedded.models("local", Path())[EMBEDDED_MODEL].path
    shutil.copy(source, path)
    now, size = time.time(), path.stat().st_size
    version = Version(commit=COMMIT, path=str(path), files=(str(path),), size_bytes=size, added_at=now - 90 * DAY_S)
    return Entry(
        backend="local",
        name=name,
        status="ready",
        explicit=True,
        source=Source(kind="huggingface", repo=f"org/{name}", commit=COMMIT, files=(f"{name}.gguf",)),
        path=str(path),
        size_bytes=size,
        versions=(version,),
        created_at=now - 90 * DAY_S,
        updated_at=now,
        last_used_at=now - used_days * DAY_S,
    )


async def register(data: Path, *entries: Entry) -> None:
    """Have a gateway that is not running yet know these."""
    engine = database.connect(f"sqlite+aiosqlite:///{data}/gateway.db")
    await database.upgrade(engine)
    await ModelRows(engine).put(entries)
    await engine.dispose()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("stored")
    data = folder / "data"
    names = {"busy": 80.0, "idle": 60.0, "pinned": 70.0}
    entries = [model(data, name, used_days=days) for name, days in names.items()]
    asyncio.run(register(data, *entries))
    left = data / (FOLDER % "left")
    left.mkdir(parents=True)
    (left / "left.gguf.part").write_bytes(b"x" * 1000)
    tree = {
        "auth": {
            "mode": "api_key",
            "keys": [
                {"name": "app", "key": APP_KEY, "scopes": ["inference", "models:read"], "tenant": "acme"},
                {"name": "narrow", "key": RESTRICTED_KEY, "scopes": ["models:read"], "models": ["local/idle"]},
                {"name": "root", "key": ADMIN_KEY, "scopes": ["admin"]},
            ],
        },
        "backends": {"local": {"kind": "local", "context_max": 512}, "fake": {"kind": "fake"}},
        "storage": {"model_bytes_max": "10GiB", "keep": "lru", "unused_days": 30, "pin": ["local/pin*"]},
    }
    with gateway(folder, tree) as running:
        yield running


@pytest.fixture
def admin(running: Gateway) -> Iterator[httpx2.Client]:
    with speaking(running, {"authorization": f"Bearer {ADMIN_KEY}"}) as http:
        yield http


@pytest.fixture
def reader(running: Gateway) -> Iterator[httpx2.Client]:
    with speaking(running, {"authorization": f"Bearer {APP_KEY}"}) as http:
        yield http


def storage(http: httpx2.Client) -> dict[str, Any]:
    answer = http.get("/v1/storage")
    assert answer.status_code == 200, answer.text
    report: dict[str, Any] = answer.json()
    return report


def clean(http: httpx2.Client, **body: Any) -> dict[str, Any]:
    answer = http.post("/v1/storage/cleanup", json=body)
    assert answer.status_code == 200, answer.text
    report: dict[str, Any] = answer.json()
    return report


def test_what_models_take_is_told_and_where_they_lie_only_to_who_administers(
    running: Gateway, admin: httpx2.Client, reader: httpx2.Client
) -> None:
    report = storage(reader)
    assert report["object"] == "storage"
    assert report["limit_bytes"] == 10 << 30
    assert report["partials_bytes"] == 1000
    assert report["models_bytes"] >= max(one["size_bytes"] for one in report["models"])
    by_id = {one["id"]: one for one in report["models"]}
    assert by_id["local/pinned"]["pinned"] is True
    assert by_id["local/pinned"]["protected"] == "pinned"
    assert by_id["local/idle"]["versions"][0]["commit"] == COMMIT
    assert [one["path"] for one in report["partials"]] == [f"org--left/{COMMIT[:12]}/left.gguf.part"]
    assert report["root"] is None
    assert str(running.folder) not in str(report)
    assert storage(admin)["root"] == str(running.folder / "data/models/hub")


def test_a_key_for_some_models_is_told_of_these_only(running: Gateway) -> None:
    with speaking(running, {"authorization": f"Bearer {RESTRICTED_KEY}"}) as http:
        report = storage(http)
    assert [one["id"] for one in report["models"]] == ["local/idle"]
    assert (report["partials"], report["orphans"], report["problems"]) == ([], [], [])


def test_who_may_read_may_not_remove(reader: httpx2.Client) -> None:
    refused = reader.post("/v1/storage/cleanup", json={"dry_run": True})
    assert (refused.status_code, error_of(refused)["code"]) == (403, "insufficient_scope")


@pytest.mark.parametrize(
    ("body", "param"), [({"kinds": ["everything"]}, "kinds"), ({"dry_run": 1}, "dry_run"), ({"dryrun": True}, "dryrun")]
)
def test_what_cannot_be_meant_is_refused_by_name(admin: httpx2.Client, body: dict[str, Any], param: str) -> None:
    refused = admin.post("/v1/storage/cleanup", json=body)
    assert refused.status_code == 400
    assert (error_of(refused)["param"] or "").startswith(param)


def test_nothing_goes_unless_that_is_said(admin: httpx2.Client) -> None:
    before = storage(admin)["models"]
    would = clean(admin)
    assert would["dry_run"] is True
    assert [one["model"] for one in would["removed"]] == ["local/busy", "local/idle"]
    assert storage(admin)["models"] == before


def test_what_is_in_use_stays_and_what_goes_stays_registered(running: Gateway, admin: httpx2.Client) -> None:
    assert admin.post("/v1/models/local%2Fbusy/load").status_code == 200
    gone = clean(admin, dry_run=False)
    assert [(one["model"], one["kind"]) for one in gone["removed"]] == [("local/idle", "model")]
    assert gone["total_bytes"] == gone["removed"][0]["size_bytes"] > 0
    assert "30 days" in gone["removed"][0]["reason"]
    assert not (running.folder / "data" / (FOLDER % "idle")).exists()
    left = {one["id"]: one for one in storage(admin)["models"]}
    assert set(left) == {"local/busy", "local/pinned"}
    assert (left["local/busy"]["in_use"], left["local/busy"]["protected"]) == (True, "in use")
    assert admin.post(CHAT, json=chat("local/busy", max_tokens=2)).status_code == 200
    assert admin.post(CHAT, json=chat("local/idle", max_tokens=2)).status_code in (404, 503)
    listed = {one["id"]: one for one in admin.get("/v1/models").json()["data"]}
    assert listed["local/idle"]["status"] == "registered"
    assert admin.get("/v1/audit?action=storage.cleanup").json()["data"][0]["detail"]["models"] == ["local/idle"]
    assert running.wait_for("storage_removed", kind="model")["model"] == "local/idle"
    assert metric(running.url, "pluggably_storage_removed_total", kind="model") == 1
    assert metric(running.url, "pluggably_storage_bytes", kind="limit") == 10 << 30
    assert metric(running.url, "pluggably_storage_bytes", kind="partials") == 1000


@pytest.mark.parametrize(
    ("tree", "at"),
    [
        ({"storage": {"model_bytes_max": "20 apples"}}, "storage.model_bytes_max"),
        ({"storage": {"min_free_bytes": "-1GiB"}}, "storage.min_free_bytes"),
        ({"storage": {"pin": ["a", " "]}}, "storage.pin[1]"),
        ({"hub": {"bytes_per_s": "fast"}}, "hub.bytes_per_s"),
        ({"hub": {"bytes_per_s": 0}}, "hub.bytes_per_s"),
        ({"hub": {"endpoint": "hub.example"}}, "hub.endpoint"),
        ({"hub": {"endpoint": "ftp://hub.example"}}, "hub.endpoint"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused_at_the_start(tmp_path: Path, tree: dict[str, Any], at: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_bytes(msgspec.yaml.encode({"data_dir": str(tmp_path), **tree}))
    with pytest.raises(ConfigError) as refused:
        check(load(path, {}))
    assert str(refused.value).startswith(f"{at}: ")
    assert len(str(refused.value).splitlines()) == 1

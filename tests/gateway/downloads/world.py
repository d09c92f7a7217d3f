"""A gateway beside a hub of its own, and what a client does with both."""

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx2

from tests.backends.local.bert import reranker
from tests.hub import Content, HubRepo, HubServer, Made, hub
from tests.process import Gateway, gateway

REPO, FILE, NAME = "acme/noise-gguf", "noise-Q8_0.gguf", "noise"
MIB = 1 << 20
TOKEN = "hf_" + "t" * 34
OVER = frozenset({"done", "failed", "cancelled"})


@cache
def ranker() -> bytes:
    """A small model that the engine really runs."""
    with TemporaryDirectory() as folder:
        return Path(reranker(Path(folder)).path).read_bytes()


def large(mib: int, seed: int = 0) -> Made:
    """The same, with so much behind it that it is on its way for a while."""
    return Made(mib * MIB, seed=seed, head=ranker())


def repository(id_: str = REPO, files: Mapping[str, bytes | Content] | None = None) -> HubRepo:
    return HubRepo(id_, {"README.md": b"# Noise\n", **(files or {FILE: ranker()})}, license="mit")


class World:
    def __init__(self, running: Gateway, hub_: HubServer, key: str | None = None) -> None:
        self.gateway = running
        self.hub = hub_
        headers = {} if key is None else {"x-api-key": key}
        self.http = httpx2.Client(base_url=running.url, timeout=30, headers=headers)

    @property
    def root(self) -> Path:
        return self.gateway.folder / "data" / "models" / "hub"

    def files(self) -> set[str]:
        """What lies in the folder of downloaded models."""
        found = [path.relative_to(self.root) for path in self.root.rglob("*") if path.is_file()]
        return {str(path) for path in found if not path.name.startswith(".")}

    def post(self, path: str, headers: Mapping[str, str] | None = None, **body: Any) -> httpx2.Response:
        return self.http.post(path, json=body, headers=headers)

    def download(self, headers: Mapping[str, str] | None = None, **body: Any) -> httpx2.Response:
        return self.post("/v1/models/download", headers, **({"repo": REPO, "name": NAME} | body))

    def begun(self, **body: Any) -> str:
        """The id of the job that a download gets."""
        answer = self.download(**body)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    def job(self, id_: str, headers: Mapping[str, str] | None = None) -> dict[str, Any]:
        answer = self.http.get(f"/v1/jobs/{id_}", headers=headers)
        assert answer.status_code == 200, answer.text
        told: dict[str, Any] = answer.json()
        return told

    def ended(self, id_: str, headers: Mapping[str, str] | None = None, within_s: float = 20) -> dict[str, Any]:
        return self.until(id_, lambda job: job["status"] in OVER, headers, within_s)

    def until(
        self, id_: str, fits: Any, headers: Mapping[str, str] | None = None, within_s: float = 20
    ) -> dict[str, Any]:
        end = time.monotonic() + within_s
        while not fits(job := self.job(id_, headers)):
            assert time.monotonic() < end, f"{job}\n" + "".join(self.gateway.lines[-30:])
            time.sleep(0.03)
        return job

    def configured(self, old: str, new: str) -> None:
        """Change the configuration file, and wait until that holds."""
        since = len(self.gateway.log)
        path = self.gateway.folder / "config.yaml"
        path.write_text(path.read_text().replace(old, new))
        self.gateway.wait_for("config_reloaded", since=since)

    def moving(self, id_: str, past: int = 0) -> dict[str, Any]:
        """The job when bytes have come."""
        return self.until(id_, lambda job: job["progress"]["bytes_done"] > past or job["status"] in OVER)

    def listed(self, id_: str = f"local/{NAME}") -> dict[str, Any] | None:
        models = self.http.get("/v1/models").json()["data"]
        return next((one for one in models if one["id"] == id_), None)

    def ranked(self, model: str = f"local/{NAME}") -> httpx2.Response:
        body = {"model": model, "query": "red", "documents": ["blue boat", "the house"]}
        return self.http.post("/v1/rerank", json=body)


@contextmanager
def world(
    folder: Path, *repos: HubRepo, prelude: str = "", hub_: HubServer | None = None, **config: Any
) -> Iterator[World]:
    """config: sections besides; those of the hub are added to."""
    with hub(*repos) as own, beside(folder, hub_ or own, prelude=prelude, **config) as there:
        yield there


@contextmanager
def beside(
    folder: Path, hub_: HubServer, *, prelude: str = "", key: str | None = None, **config: Any
) -> Iterator[World]:
    """A gateway beside a hub that goes on after it."""
    folder.mkdir(parents=True, exist_ok=True)
    tree = {
        "backends": {"local": {"kind": "local", "threads": 1, "slots": 1}},
        "storage": {"min_free_bytes": 0},
        **config,
        "hub": {"endpoint": hub_.url, **config.get("hub", {})},
    }
    with gateway(folder, tree, prelude=prelude, environ={"HF_TOKEN": ""}) as running:
        there = World(running, hub_, key)
        try:
            yield there
        finally:
            there.http.close()


def told(answer: httpx2.Response) -> dict[str, Any]:
    error: dict[str, Any] = json.loads(answer.text)["error"]
    return error

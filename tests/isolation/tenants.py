"""Two tenants of one gateway, each with one of everything."""

import asyncio
import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from msgspec import Struct

from gateway.db.engine import connect
from gateway.db.jobs import JobRows
from gateway.jobs.job import Job
from tests.gateway.auth.matrix import ACME_KEY, RIVAL_KEY, TREE, Answer, House
from tests.http import until
from tests.hub import hub
from tests.process import gateway

ACME, RIVAL = {"x-api-key": ACME_KEY}, {"x-api-key": RIVAL_KEY}
CANARY = "isolation-canary-5b1c"
"""In everything that the first tenant says."""
SLOW = "slow/fake"
"""A model whose answers take as long as anybody looks at them."""
PIXEL = {"model": "fake/fake", "modality": "image", "input": {"prompt": f"A cat. {CANARY}"}}
_TREE = TREE | {
    "backends": TREE["backends"] | {"slow": {"kind": "fake", "pause_s": 0.5, "words": ["word "] * 2000}},
}


class Things(Struct, frozen=True):
    """What a tenant has."""

    ids: dict[str, list[str]]
    """By the name that the id has in paths."""
    message_id: str
    """Of its session."""
    idempotency_key: str
    cursors: dict[str, str]
    """By the list that gave it out."""

    def first(self) -> dict[str, str]:
        return {name: ids[0] for name, ids in self.ids.items() if ids}

    def all(self) -> list[str]:
        return [*(id_ for ids in self.ids.values() for id_ in ids), self.message_id]


class Tenants:
    """The gateway, and the two."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.acme = Things({}, "", "", {})
        self.rival = Things({}, "", "", {})
        self._lines: list[HTTPConnection] = []

    def ask(
        self, method: str, path: str, who: Mapping[str, str], body: Any = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        content = None if body is None else json.dumps(body).encode()
        return self.house.ask(method, path, {**who, **(headers or {})}, content)

    def make(self, who: Mapping[str, str], path: str, body: Any, **headers: str) -> Any:
        answer = self.ask("POST", path, who, body, {name.replace("_", "-"): value for name, value in headers.items()})
        assert answer.status in (200, 201, 202), (path, answer)
        return answer.json

    def furnish(self, name: str, who: Mapping[str, str]) -> Things:
        """One of everything."""
        words = f"Hello. {CANARY} of {name}"
        said = {"model": "auto", "input": {"prompt": words}}
        session = self.make(who, "/v1/sessions", {"title": words})["id"]
        message = self.make(who, f"/v1/sessions/{session}/generate", said)["id"]
        self.make(who, "/v1/sessions", {"title": words})
        art = [one["id"] for n in range(2) for one in self._made(who, f"{name} {n}")]
        response = self.make(who, "/v1/responses", {"model": "auto", "input": words})["id"]
        conversation = self.make(
            who, "/v1/conversations", {"items": [{"role": "user", "content": words}], "metadata": {"a": words}}
        )["id"]
        self.make(who, "/v1/responses", {"model": "auto", "input": words, "conversation": conversation})
        items = self.ask("GET", f"/v1/conversations/{conversation}/items", who).json["data"]
        done, live, key = f"{name}-done", f"{name}-live", f"{name}-idempotency-key"
        self.make(who, "/v1/generate", said, x_request_id=done)
        self._live(who, live)
        detached = self.make(who, "/v1/generate", said, prefer="respond-async", x_request_id=f"{name}-detached")["id"]
        until(lambda: self.ask("GET", f"/v1/requests/{detached}", who).json["status"] == "done")
        self.make(who, "/v1/generate", said, idempotency_key=key)
        credential = self.make(
            who, "/v1/credentials", {"backend": "theirs", "api_key": f"sk-own-key-of-{name}-0123456789"}
        )["id"]
        cursors = {}
        for path in ("/v1/sessions", "/v1/artifacts", "/v1/requests", "/v1/usage"):
            following = self.ask("GET", f"{path}?limit=1", who).json.get("next_cursor")
            if following is not None:
                cursors[path] = following
        ids = {
            "session_id": [session],
            "artifact_id": art,
            "response_id": [response],
            "conversation_id": [conversation],
            "item_id": [items[0]["id"], items[-1]["id"]],
            "request_id": [done, live, detached],
            "credential_id": [credential],
            "key_id": [self.house.as_root("POST", "/v1/keys", name=name, tenant=name, scopes=["inference"])["id"]],
            "job_id": [_a_job(self.house, "acme")] if name == "acme" else [],
        }
        return Things(ids, message, key, cursors)

    def close(self) -> None:
        for line in self._lines:
            line.close()

    def _made(self, who: Mapping[str, str], prompt: str) -> Any:
        body = PIXEL | {"input": {"prompt": f"{prompt} {CANARY}"}}
        return self.make(who, "/v1/generate", body)["output"]["artifacts"]

    def _live(self, who: Mapping[str, str], id_: str) -> None:
        """Begin a request that nobody ends."""
        line = HTTPConnection("127.0.0.1", self.house.running.port, timeout=60)
        body = json.dumps({"model": SLOW, "input": {"prompt": f"Hello. {CANARY}"}, "stream": True})
        line.request("POST", "/v1/generate", body, {**who, "content-type": "application/json", "x-request-id": id_})
        self._lines.append(line)
        until(lambda: self.ask("GET", f"/v1/requests/{id_}", who).status == 200)


@contextmanager
def tenants(folder: Path) -> Iterator[Tenants]:
    with hub() as server, gateway(folder, _TREE | {"hub": {"endpoint": server.url}}) as running:
        house = House(running)
        both = Tenants(house)
        try:
            both.acme = both.furnish("acme", ACME)
            both.rival = both.furnish("rival", RIVAL)
            yield both
        finally:
            both.close()
            house.close()


def absent(id_: str) -> str:
    """An id that looks like this one, and that nobody has."""
    return id_[:-1] + ("0" if id_[-1] != "0" else "1")


def _a_job(running: House, tenant: str) -> str:
    """One that is over, written beside the gateway: there is no hub here to ask anything of."""
    now = time.time()
    job = Job(
        id="job_" + "7" * 32,
        kind="download",
        tenant=tenant,
        owner=tenant,
        status="done",
        target="local/absent",
        created_at=now,
        updated_at=now,
    )

    async def write() -> None:
        engine = connect(f"sqlite+aiosqlite:///{running.running.folder}/data/gateway.db")
        await JobRows(engine).put(job)
        await engine.dispose()

    asyncio.run(write())
    return job.id

"""A stand-in for Meshy: tasks that are created, polled and deleted, and the files they make.

Bodies are as in https://docs.meshy.ai/api/text-to-3d, /api/image-to-3d, /api/errors and /api/rate-limits.
"""

import asyncio
import json
from collections.abc import Callable
from typing import Any

from tests.exchange import Exchange, Script
from tests.provider import Provider

KEY = "msy_upstream_key_canary_7712"
ID = "018a210d-8ba4-705c-b111-1f1776f7f578"
GLB = b"glTF\x02\x00\x00\x00 a mesh"
TEXT, IMAGE = "/openapi/v2/text-to-3d", "/openapi/v1/image-to-3d"
FILE = f"/tasks/{ID}/output/model.glb?Expires=1&Signature=s~_&Key-Pair-Id=K"


def task(status: str, progress: int = 0, **fields: Any) -> bytes:
    """A task object."""
    body = {
        "id": ID,
        "type": "text-to-3d-preview",
        "model_urls": {},
        "thumbnail_url": "",
        "prompt": "a monster mask",
        "progress": progress,
        "started_at": 1692771667037 if progress else 0,
        "created_at": 1692771650657,
        "finished_at": 0,
        "status": status,
        "texture_urls": [],
        "preceding_tasks": 0,
        "task_error": {"message": ""},
        "consumed_credits": 20,
    }
    return json.dumps(body | fields, indent=2).encode()


def failed(type_: str, message: str, code: str | None = None) -> bytes:
    error = {"type": type_, "message": message} | ({"code": code} if code else {})
    return task("FAILED", 40, task_error=error, consumed_credits=0)


def said(message: str) -> bytes:
    """A refusal's body."""
    return json.dumps({"message": message}).encode()


class Tasks:
    """Plays Meshy; what it answers can be changed, method and path by method and path."""

    def __init__(self, upstream: Provider) -> None:
        self.upstream = upstream
        self.root = upstream.url.removesuffix("/v1")
        self.address = self.root + FILE
        """Of the mesh, as its task says it."""
        self.stages: list[bytes | Script] = [task("PENDING"), task("IN_PROGRESS", 50), b""]
        """What each poll is answered, the last from then on; nothing is a mesh that is done."""
        self.scripts: dict[tuple[str, str], Script] = {}
        self.created: list[dict[str, Any]] = []
        self.deleted: list[str] = []
        self.polls = 0
        upstream.scripts[""] = self.play

    def answer(self, method: str, path: str, body: bytes, status: str = "200 OK", **headers: str) -> None:
        async def script(x: Exchange) -> None:
            x.answer(body, status, **headers)

        self.scripts[method, path] = script

    def asked(self, method: str, path: str) -> list[Exchange]:
        return [x for x in self.upstream.seen if x.path.startswith(path) and x.head.startswith(method.encode())]

    async def play(self, x: Exchange) -> None:
        method, path = x.head.split(b" ", 1)[0].decode(), x.path.partition("?")[0]
        if (script := self.scripts.get((method, path))) is not None:
            await script(x)
        elif method == "POST" and path in (TEXT, IMAGE):
            self._check_key(x)
            self.created.append(x.json)
            x.answer(json.dumps({"result": ID}).encode(), "202 Accepted")
        elif method == "DELETE" and path in (f"{TEXT}/{ID}", f"{IMAGE}/{ID}"):
            self._check_key(x)
            self.deleted.append(path)
            x.answer(b"", "200 OK")
        elif method == "GET" and path in (f"{TEXT}/{ID}", f"{IMAGE}/{ID}"):
            self._check_key(x)
            self.polls += 1
            stage = self.stages.pop(0) if len(self.stages) > 1 else self.stages[0]
            if callable(stage):
                await stage(x)
            else:
                x.answer(stage or task("SUCCEEDED", 100, model_urls={"glb": self.address}))
        elif method == "GET" and path.startswith("/tasks/"):
            x.answer(GLB, content_type="application/octet-stream")
        else:
            x.answer(said("Task not found"), "404 Not Found")

    @staticmethod
    def _check_key(x: Exchange) -> None:
        assert x.headers["authorization"] == f"Bearer {KEY}"


async def until(true: Callable[[], object], within_s: float = 5.0) -> None:
    async with asyncio.timeout(within_s):
        while not true():
            await asyncio.sleep(0.005)

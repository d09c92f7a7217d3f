"""Secrets in every place that can hold one, traffic of every kind, and then: nowhere a trace of any of them."""

import os
import sqlite3
import subprocess
from base64 import b64encode
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx2
import msgspec
import pytest

from tests import wire
from tests.exchange import Exchange
from tests.gateway.conftest import config
from tests.gateway.db.conftest import KINDS
from tests.gateway.db.postgres import cluster, programs
from tests.http import CHAT, chat, until
from tests.otlp import Collector, collector
from tests.process import Gateway, gateway
from tests.provider import Provider
from tests.scripts import BODY_CANARY

APP, ADMIN, OLD = "key-canary-of-an-app-3f1", "key-canary-of-an-admin-8c2", "key-canary-before-a-reload-77"
UPSTREAM, HEADER = "provider-key-canary-41aa", 'header canary "quoted" 90bb'
ENVIRON = "environ-key-canary-5d5d"
DATABASE, VALKEY, USERINFO = "database/password canary", "valkey-password-canary-2e", "base-url-password-canary-6b"
OTLP = "collector key canary 33"
WRONG, QUERY, COOKIE, CREDENTIAL = "sent-canary-wrong-0a", "query-canary-1b", "cookie-canary-2c", "field-canary-3d"
REQUEST_ID = "sk-request-id-canary-4e4e4e"
EXCEPTION = "sk-exception-text-canary-5f5f"
REFUSED = "refused-config-canary-6a6a"
BROUGHT = "brought-along-canary-8d8d"
PROMPT = "prompt-canary-7b7b"
PROC = Path("/proc")
"""Where Linux shows what runs."""
OF_PROVIDER = (BODY_CANARY, "provider-cookie-canary", "provider-echo-canary", "10.1.2.3")
CANARIES = {
    APP, ADMIN, OLD, UPSTREAM, HEADER, ENVIRON, DATABASE, VALKEY, USERINFO, OTLP, WRONG, QUERY, COOKIE, CREDENTIAL,
    REQUEST_ID, EXCEPTION, REFUSED, BROUGHT, PROMPT, *OF_PROVIDER,
}  # fmt: skip

EXPLOSIVE = f"""
import os
os.dup2(2, 1)  # what is printed is part of the log
import gateway.app
import gateway.registry
import gateway.routing.router
gateway.app.RELOAD_S = 0.05
TEXT = {f"{EXCEPTION} and {UPSTREAM} and {HEADER}"!r}
def exploding(inner, when):
    async def call(self, *given, **named):
        if when(given):
            raise RuntimeError(TEXT)
        return await inner(self, *given, **named)
    return call
router, registry = gateway.routing.router.Router, gateway.registry.Registry
router.plan = exploding(router.plan, lambda given: given[0] == "explode")
registry.all = exploding(registry.all, lambda given: os.path.exists("FLAG"))
"""


class Scene:
    def __init__(self, house: Gateway, provider: Provider, receiver: Collector, flag: Path, *, local: bool) -> None:
        self.house = house
        self.provider = provider
        self.receiver = receiver
        self.flag = flag
        self.local = local
        """It has a local model."""
        self.seen: list[str] = []
        """What clients were told."""

    def ask(self, method: str, path: str, status: int, key: str | None = APP, **more: Any) -> httpx2.Response:
        headers = {"authorization": f"Bearer {key}"} if key else {}
        headers |= more.pop("headers", {})
        answer = httpx2.request(method, self.house.url + path, headers=headers, timeout=60, verify=False, **more)
        assert answer.status_code == status, answer.text
        self.seen.append(f"{dict(answer.headers)}\n{answer.text}")
        return answer

    def post(self, body: dict[str, Any], status: int = 200, path: str = CHAT, **more: Any) -> httpx2.Response:
        return self.ask("POST", path, status, json=body, **more)


@contextmanager
def database_of(kind: str, folder: Path) -> Iterator[str | None]:
    if kind == "sqlite":
        yield None
        return
    with cluster() as url:
        yield url.replace("@", f":{quote(DATABASE, safe='')}@")


@pytest.fixture(params=KINDS)
def scene(request: pytest.FixtureRequest, upstream: Provider, tmp_path: Path) -> Iterator[Scene]:
    with collector() as receiver, database_of(request.param, tmp_path) as url:
        tree = config(upstream.url)
        tree["backends"]["up"] |= {"api_key": UPSTREAM, "headers": {"x-of-ours": HEADER}}
        tree["backends"]["aside"] = {"kind": "openai", "base_url": f"http://user:{USERINFO}@127.0.0.1:9/v1"}
        if request.param == "sqlite":
            tree["backends"]["local"] = {"kind": "local", "threads": 1}
        else:
            tree["database"] = {"url": url}
        tree |= {
            "auth": {
                "mode": "api_key",
                "keys": [
                    {"name": "app", "key": APP, "scopes": ["inference", "models:read"]},
                    {"name": "root", "key": ADMIN, "scopes": ["admin"]},
                    {"name": "old", "key": OLD},
                ],
            },
            "limits": {
                "default": {"requests_per_minute": 100_000},
                "store": f"valkey://user:{VALKEY}@127.0.0.1:9/0",
            },
            "telemetry": {"otlp_endpoint": receiver.url, "log_level": "debug"},
        }
        environ = {
            "OPENAI_API_KEY": ENVIRON,
            "OTEL_EXPORTER_OTLP_HEADERS": f"x-collector-key={quote(OTLP)}",
            "OTEL_BSP_SCHEDULE_DELAY": "50",
            "OTEL_METRIC_EXPORT_INTERVAL": "200",
        }
        flag = tmp_path / "explode"
        with gateway(tmp_path, tree, environ, EXPLOSIVE.replace("FLAG", str(flag))) as house:
            yield Scene(house, upstream, receiver, flag, local="local" in tree["backends"])


def test_no_secret_gets_anywhere(scene: Scene) -> None:
    house = scene.house
    own = msgspec.json.decode((house.folder / "data" / "secrets.json").read_bytes(), type=dict[str, str])
    canaries = CANARIES | set(own.values())

    _succeed_and_fail(scene)
    _send_secrets(scene)
    _explode(scene)
    canaries.add(_issue(scene))
    processes = _descendants(house.process.pid)
    _reload(scene)
    last = scene.ask("GET", "/v1/models", 200)
    house.wait_for("request_finished", request_id=last.headers["x-request-id"])
    scene.receiver.request(last.headers["x-request-id"])
    metrics = [
        scene.ask("GET", "/metrics", 200, ADMIN, headers={"accept": accept}).text
        for accept in ("text/plain", "application/openmetrics-text")
    ]
    assert "# EOF" in metrics[1]
    commands, environs = _commands_and_environments([house.process.pid, *processes])
    if scene.local and PROC.exists():
        assert processes, "a local model's worker runs"
        assert environs
    rows = _dump(house, scene)
    assert "completions" in rows, "there are usage rows"
    house.stop()

    places = {
        "the log": "".join(house.lines),
        "answers": "\n".join(scene.seen),
        "metrics": "\n".join(metrics),
        "traces": b"\n".join(scene.receiver.raw).decode("utf-8", "replace"),
        "command lines": commands,
        "workers' environments": environs,
        "the database": rows,
    }
    for place, text in places.items():
        found = [canary for canary in canaries if any(form in text for form in _forms(canary))]
        assert found == [], f"{place}: {[line for line in text.splitlines() if any(c in line for c in found)][:3]}"
    assert "[redacted]" in places["the log"], "there was something to be masked"


def _succeed_and_fail(scene: Scene) -> None:
    async def quoting(x: Exchange) -> None:
        said = f"No: {x.headers['authorization']}, {x.headers['x-of-ours']}"
        x.answer(wire.error(said, "invalid_request_error"), "400 Bad Request")

    async def quoting_later(x: Exchange) -> None:
        x.begin()
        x.send(wire.opening(None) + wire.word("word", None))
        x.send(b'data: {"error": {"message": "You sent %s", "type": "invalid_request_error"}}\n\n' % UPSTREAM.encode())
        x.end()

    scene.provider.scripts |= {"quoting": quoting, "later": quoting_later}
    for stream in (False, True):
        for model, status in (
            ("up/answer", 200), ("up/quoting", 400), ("once-status:401", 502), ("once-status:500", 502),
            ("once-status:429", 429), ("once-html", 502), ("once-quota", 503), ("dead", 502), ("aside/x", 502),
        ):  # fmt: skip
            scene.post(chat(model, PROMPT, stream=stream), status)
    for model in ("once-tear:2", "once-error_event:2", "up/later"):
        scene.post(chat(model, PROMPT, stream=True))
    scene.post(
        {"model": "up/quoting", "max_tokens": 9, "messages": [{"role": "user", "content": PROMPT}]}, 400, "/v1/messages"
    )
    scene.post({"model": "up/quoting", "input": {"prompt": PROMPT}}, 400, "/v1/generate")
    if scene.local:
        scene.post(chat("local/smollm2-135m-instruct", "Hello", max_tokens=1))


def _send_secrets(scene: Scene) -> None:
    good = chat("up/answer", PROMPT)
    scene.post(good, 401, key=None)
    scene.post(good, 401, key=WRONG)
    scene.post(good, 400, headers={"x-api-key": WRONG})
    scene.ask("GET", f"/v1/models?api_key={QUERY}&key={QUERY}", 200)
    scene.ask("GET", f"/nowhere?api_key={QUERY}&key={QUERY}", 404)
    scene.post(good, 200, f"{CHAT}?api_key={QUERY}")
    for path in (CHAT, "/v1/messages", "/nowhere"):
        answer = scene.ask("POST", path, 401 if path != "/nowhere" else 404, None, headers={"x-request-id": REQUEST_ID})
        assert answer.headers["x-request-id"].startswith("req_")
        for id_ in (APP, UPSTREAM, "no-secret-of-anybody"):
            # Nobody is shown which of their words are secrets: what they named the request by comes back to them.
            told = httpx2.post(scene.house.url + path, headers={"x-request-id": id_, "anthropic-version": "2023-06-01"})
            assert told.headers["x-request-id"] == told.headers["request-id"] == id_
            assert told.json().get("request_id", id_) == id_, "where the dialect has one"
    for id_ in (APP, UPSTREAM):
        used = {"authorization": f"Bearer {APP}", "x-request-id": id_}
        assert httpx2.post(scene.house.url + CHAT, json=good, headers=used, timeout=60).status_code == 200
    scene.post(good, headers={"cookie": f"session={COOKIE}", "tracestate": f"vendor={UPSTREAM}"})
    for field in ("api_key", "api_base", "extra_headers"):
        scene.post(good | {field: CREDENTIAL}, 400)
    scene.ask("POST", CHAT, 400, content=f'{{"model": "up/answer", "password": "{CREDENTIAL}'.encode())
    scene.ask("DELETE", CHAT, 405)
    scene.post(chat("nothing", PROMPT), 404)


def _explode(scene: Scene) -> None:
    scene.post(chat("explode", PROMPT), 500)
    scene.flag.touch()
    scene.ask("GET", "/v1/models", 500)
    scene.flag.unlink()


def _issue(scene: Scene) -> str:
    """Use a key that was given out, and bring one along; returns the first."""
    url, root = scene.house.url, {"authorization": f"Bearer {ADMIN}"}
    made = httpx2.post(f"{url}/v1/keys", json={"name": "made"}, headers=root, timeout=30, verify=False)
    key: str = made.json()["key"]  # shown this once
    scene.ask("POST", "/v1/credentials", 201, key, json={"backend": "up", "api_key": BROUGHT})
    for model, status in (("up/answer", 200), ("once-status:401", 502), ("once-status:500", 502), ("explode", 500)):
        scene.post(chat(model, PROMPT), status, key=key)
    assert any(x.headers["authorization"] == f"Bearer {BROUGHT}" for x in scene.provider.seen), "it was used"
    scene.ask("GET", "/v1/credentials", 200, key)
    scene.ask("GET", "/v1/keys", 200, ADMIN)
    scene.ask("GET", "/v1/audit", 200, ADMIN)
    return key


def _reload(scene: Scene) -> None:
    path = scene.house.folder / "config.yaml"
    good = path.read_text()
    tree = msgspec.yaml.decode(good)

    def write(text: str, event: str) -> None:
        mark = len(scene.house.log)
        fresh = path.with_suffix(".new")
        fresh.write_text(text)
        fresh.replace(path)
        scene.house.wait_for(event, since=mark)

    keys = tree["auth"]["keys"]
    for change in (
        {"auth": tree["auth"] | {"keys": [{"name": "x", "key": [REFUSED]}]}},
        {"auth": tree["auth"] | {"keys": [*keys, {"name": "x", "key": REFUSED, "scope": "typo"}]}},
        {"auth": tree["auth"] | {"keys": [{"name": "x", "key": REFUSED, "scopes": ["typo"]}]}},
        {"limits": {"store": f"redis://user:{REFUSED}@127.0.0.1"}},
        {"backends": {"x": {"kind": "openai", "base_url": f"ftp://user:{REFUSED}@host"}}},
        {"backends": {"x": {"kind": "openai", "api_key": {"value": REFUSED}}}},
    ):
        write(msgspec.yaml.encode(tree | change).decode(), "config_refused")
    write(f"{good}\nauth: [key: {REFUSED}\n", "config_refused")
    tree["auth"]["keys"] = [key for key in keys if key["name"] != "old"]
    write(msgspec.yaml.encode(tree).decode(), "config_reloaded")
    scene.ask("GET", "/v1/models", 401, OLD)


def _forms(canary: str) -> set[str]:
    """A secret as it may be written."""
    escaped = msgspec.json.encode(canary).decode()[1:-1]
    return {canary, escaped, quote(canary, safe=""), quote(canary), b64encode(f"user:{canary}".encode()).decode()}


def _descendants(pid: int) -> list[int]:
    parents: dict[int, int] = {}
    for entry in PROC.iterdir() if PROC.exists() else ():
        if entry.name.isdigit():
            with suppress(OSError):
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    found = [pid]
    for parent in found:
        found += [child for child, of in parents.items() if of == parent]
    return found[1:]


def _commands_and_environments(pids: list[int]) -> tuple[str, str]:
    """The command lines of all, and the environments of those that the first has started."""
    commands, environments = [], []
    for pid in pids:
        with suppress(OSError):
            # What a test starts with `-c` is no secret of the gateway's.
            commands.append((PROC / str(pid) / "cmdline").read_text() if pid != pids[0] else "")
            if pid != pids[0]:
                environments.append((PROC / str(pid) / "environ").read_text())
    return "\n".join(commands), "\n".join(environments)


def _dump(house: Gateway, scene: Scene) -> str:
    """All that the database holds."""
    if (file := house.folder / "data" / "gateway.db").exists():

        def dumped() -> str | None:
            with closing(sqlite3.connect(file, timeout=10)) as database:
                text = "\n".join(database.iterdump())
            return text if "completions" in text else None

        return until(dumped)
    url = msgspec.yaml.decode((house.folder / "config.yaml").read_bytes())["database"]["url"]
    bin_ = programs()
    assert bin_ is not None
    return until(lambda: _pg_dump(bin_, url.replace("+asyncpg", "")))


def _pg_dump(bin_: Path, url: str) -> str | None:
    text = subprocess.run(
        [str(bin_ / "pg_dump"), url], check=True, capture_output=True, text=True, timeout=60, env={**os.environ}
    ).stdout
    return text if "completions" in text else None

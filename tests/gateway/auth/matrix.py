"""Every route of the running application, every kind of caller, and every form a credential may come in."""

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

from litestar.routes import HTTPRoute
from msgspec import Struct

from gateway.api.generation import SCOPE as GENERATING
from gateway.app import Application
from gateway.auth.guard import PUBLIC
from gateway.config import load
from gateway.settings import SCOPES
from tests.gateway.conftest import speaking
from tests.http import until
from tests.hub import hub
from tests.process import Gateway, gateway

ROOT_KEY, ACME_KEY, RIVAL_KEY = "matrix-root-key-0f1e2d3c", "matrix-acme-key-4b5a6978", "matrix-rival-key-8796a5b4"
UNLIKE = "sk-gw-0123456789ab_" + "0" * 64
"""Has the shape of an issued key."""
EVERYTHING = sorted(SCOPES - {"admin"})
TREE: dict[str, Any] = {
    "backends": {"fake": {"kind": "fake"}, "theirs": {"kind": "openai", "base_url": "https://x.test/v1"}},
    "models": {"auto": {"routes": ["fake/fake"]}},
    # Nobody is there.
    "hub": {"endpoint": "http://127.0.0.1:9"},
    "auth": {
        "mode": "api_key",
        "keys": [
            {"name": "root", "key": ROOT_KEY, "scopes": ["admin"]},
            {"name": "acme", "key": ACME_KEY, "scopes": EVERYTHING, "tenant": "acme"},
            {"name": "rival", "key": RIVAL_KEY, "scopes": EVERYTHING, "tenant": "rival"},
            *(
                {"name": f"all-but-{scope.replace(':', '-')}", "key": f"matrix-all-but-{scope}-key",
                 "scopes": [one for one in EVERYTHING if one != scope]}
                for scope in sorted(SCOPES)
            ),
        ],
    },
}  # fmt: skip


class Door(Struct, frozen=True):
    """A method of a route."""

    method: str
    template: str
    scope: str | None

    @property
    def path(self) -> str:
        """The route's path with ids that nothing has."""
        return self.with_ids({})

    def with_ids(self, ids: Mapping[str, str]) -> str:
        return re.sub(r"\{(\w+)\}", lambda match: ids.get(match[1], f"absent-{match[1]}"), self.template)

    @property
    def unsafe(self) -> bool:
        return self.method not in ("GET", "HEAD", "OPTIONS")

    @property
    def anthropic(self) -> bool:
        return self.template.startswith("/v1/messages")

    def __str__(self) -> str:
        return f"{self.method} {self.template}"


class Answer(Struct, frozen=True):
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def doors() -> list[Door]:
    """What the application answers to, asked of itself."""
    application = Application(load(None, {}))
    found = [Door("POST", path, GENERATING) for path in application.endpoints]
    for route in application.litestar.routes:
        assert isinstance(route, HTTPRoute), f"{route.path} is of a kind that nobody looks at here"
        for handler in route.route_handlers:
            scope = handler.opt.get("scope")
            found += [
                Door(method, route.path_format, scope)
                for method in sorted(handler.http_methods)
                # Litestar's own, which declares nothing.
                if method != "OPTIONS"
            ]
    return sorted(found, key=str)


DOORS = doors()
GUARDED = [door for door in DOORS if door.scope != PUBLIC]


class House:
    """A running gateway, and what was made in it."""

    def __init__(self, running: Gateway) -> None:
        self.running = running
        self._line = HTTPConnection("127.0.0.1", running.port, timeout=30)
        self.asked = 0

    def ask(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        *,
        host: str | None = None,
    ) -> Answer:
        """One request, exactly as given, on a connection that is kept."""
        self.asked += 1
        if body is None and method not in ("GET", "HEAD", "OPTIONS", "DELETE"):
            body = b"{}"
        for attempt in range(2):
            try:
                self._line.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
                self._line.putheader("host", host or "127.0.0.1")
                for name, value in (headers or {}).items():
                    self._line.putheader(name, value.encode("latin-1"))
                if body is not None:
                    self._line.putheader("content-type", "application/json")
                    self._line.putheader("content-length", str(len(body)))
                self._line.endheaders(body)
                response = self._line.getresponse()
                content = response.read()
                return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, content)
            except (ConnectionError, HTTPException):
                # It was closed after the last answer.
                self._line.close()
                if attempt:
                    raise
        raise AssertionError

    def close(self) -> None:
        self._line.close()

    def as_root(self, method: str, path: str, **body: Any) -> Any:
        answer = self.ask(method, path, {"x-api-key": ROOT_KEY}, json.dumps(body).encode() if body else None)
        assert answer.status < 300, answer
        return answer.json


class Keys(Struct, frozen=True):
    """Keys that were good once, and one that is."""

    good: str
    revoked: str
    expired: str


@contextmanager
def house(folder: Path) -> Iterator[House]:
    with hub() as server, gateway(folder, TREE | {"hub": {"endpoint": server.url}}) as running:
        one = House(running)
        try:
            yield one
        finally:
            one.close()


def keys(house: House) -> Keys:
    """Made and ended through the API."""

    def made(name: str, **fields: Any) -> Any:
        return house.as_root("POST", "/v1/keys", name=name, scopes=EVERYTHING, tenant="acme", **fields)

    expired = made("brief", expires_in_s=1)
    good, revoked = made("good"), made("ended")
    with speaking(house.running, {"x-api-key": revoked["key"]}) as http:
        assert http.get("/v1/models").status_code == 200
    house.as_root("DELETE", f"/v1/keys/{revoked['id']}")
    with speaking(house.running, {"x-api-key": expired["key"]}) as http:
        until(lambda: http.get("/v1/models").status_code == 401)
    return Keys(good["key"], revoked["key"], expired["key"])


def held_to_shape(door: Door, answer: Answer) -> None:
    """An error has the shape of the path's dialect, and tells nothing that was sent along."""
    if door.method == "HEAD":
        assert answer.body == b""
        return
    assert answer.headers["content-type"].startswith("application/json"), (str(door), answer)
    body = answer.json
    if door.anthropic:
        assert set(body) == {"type", "error", "request_id"}, str(door)
        assert (body["type"], set(body["error"])) == ("error", {"type", "message"}), str(door)
    else:
        assert set(body) == {"error"}, str(door)
        assert set(body["error"]) == {"message", "type", "param", "code"}, str(door)


def said(answer: Answer) -> tuple[int, bytes]:
    """What of an answer must not depend on how the credential was sent: ids and times do."""
    body = re.sub(rb'"request_id":"[^"]*"', b'"request_id":""', answer.body)
    return answer.status, re.sub(rb"\b\d{4}-\d\d-\d\dT[0-9:.]+Z|\b\d+\.\d+\b|\b\d{9,}\b", b"~", body)

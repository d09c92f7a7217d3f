"""Who may ask what."""

import httpx2
import pytest
from litestar.handlers import BaseRouteHandler
from litestar.routes import BaseRoute, HTTPRoute

from gateway.app import Application
from gateway.auth.guard import PUBLIC
from gateway.config import load
from gateway.settings import SCOPES
from tests.gateway.conftest import ADMIN_KEY, APP_KEY, READER_KEY
from tests.http import CHAT, chat, error_of


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": f"Bearer {APP_KEY}"},
        {"authorization": f"bearer  {APP_KEY}"},
        {"x-api-key": APP_KEY},
        {"api-key": APP_KEY},
        {"authorization": f"Bearer {APP_KEY}", "x-api-key": APP_KEY, "api-key": APP_KEY},
        {"authorization": f"Bearer {APP_KEY}", "x-api-key": ""},
        {"x-api-key": "", "authorization": f"Bearer {APP_KEY}"},
        {"authorization": "", "x-api-key": APP_KEY, "api-key": ""},
    ],
)
def test_a_key_is_taken_in_each_of_its_forms(anonymous: httpx2.Client, headers: dict[str, str]) -> None:
    assert anonymous.post(CHAT, json=chat("fake/fake"), headers=headers).status_code == 200


def test_two_keys_that_differ_are_400(anonymous: httpx2.Client) -> None:
    headers = {"authorization": f"Bearer {APP_KEY}", "x-api-key": ADMIN_KEY}
    answer = anonymous.post(CHAT, json=chat("fake/fake"), headers=headers)
    assert answer.status_code == 400
    assert APP_KEY not in answer.text
    error_of(answer)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": "Bearer wrong-key-000000000"},
        {"authorization": "Bearer"},
        {"authorization": "", "x-api-key": ""},
        {"authorization": "Bearer", "x-api-key": APP_KEY},
        {"authorization": APP_KEY},
        {"authorization": f"Basic {APP_KEY}"},
        {"x-api-key": APP_KEY[:-1]},
        {"api-key": APP_KEY + "x"},
        {"x-api-key": "\u00e9".encode("latin-1").decode("latin-1") * 20},
    ],
)
@pytest.mark.parametrize("path", [CHAT, "/v1/generate", "/v1/models"])
def test_no_key_or_a_bad_one_is_401(anonymous: httpx2.Client, headers: dict[str, str], path: str) -> None:
    raw = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    answer = anonymous.request("GET" if path == "/v1/models" else "POST", path, content=b"{not json", headers=raw)
    assert answer.status_code == 401
    error = error_of(answer)
    assert (error["type"], error["code"]) == ("invalid_request_error", "invalid_api_key")


def test_a_missing_scope_is_403(anonymous: httpx2.Client) -> None:
    reader = {"authorization": f"Bearer {READER_KEY}"}
    answer = anonymous.post(CHAT, json=chat("fake/fake"), headers=reader)
    assert answer.status_code == 403
    assert error_of(answer)["code"] == "insufficient_scope"
    assert anonymous.get("/v1/models", headers=reader).status_code == 200


def test_admin_includes_every_scope(anonymous: httpx2.Client) -> None:
    admin = {"authorization": f"Bearer {ADMIN_KEY}"}
    assert anonymous.post(CHAT, json=chat("fake/fake"), headers=admin).status_code == 200
    assert anonymous.get("/v1/models", headers=admin).status_code == 200


@pytest.mark.parametrize("path", ["/health", "/ready", "/docs", "/openapi.json", "/metrics"])
def test_what_describes_the_gateway_needs_no_key(anonymous: httpx2.Client, path: str) -> None:
    assert anonymous.get(path).status_code == 200


@pytest.mark.parametrize("key", ["", "anything", "sk-local"])
def test_without_auth_any_key_will_do(open_client: httpx2.Client, key: str) -> None:
    headers = {"authorization": f"Bearer {key}"} if key else {}
    assert open_client.post(CHAT, json=chat("fake/fake"), headers=headers).status_code == 200


def test_every_route_declares_a_scope_or_is_public() -> None:
    def handlers(route: BaseRoute) -> list[BaseRouteHandler]:
        found = route.route_handlers if isinstance(route, HTTPRoute) else [getattr(route, "route_handler", None)]
        return [h for h in found if h is not None and getattr(h, "http_methods", None) != {"OPTIONS"}]

    app = Application(load(None, {}))
    assert set(app.endpoints) >= {CHAT, "/v1/generate"}, "these ask for `inference` by themselves: see the tests above"
    routes = app.litestar.routes
    assert len(routes) > 6
    for route in routes:
        assert handlers(route), route.path
        for handler in handlers(route):
            scope = handler.opt.get("scope")
            assert scope == PUBLIC or scope in SCOPES, f"{route.path} {handler}"


@pytest.mark.parametrize("path", [CHAT, "/v1/models", "/health"])
def test_what_declares_nothing_is_closed(client: httpx2.Client, path: str) -> None:
    """Litestar answers OPTIONS by itself, with a handler that declares no scope."""
    answer = client.options(path)
    assert answer.status_code in (403, 405)
    error_of(answer)

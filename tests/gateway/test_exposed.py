"""A gateway that other machines can reach: keys, host names, browsers of other origins."""

from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from tests.gateway.conftest import ADMIN_KEY, APP_KEY, AUTH, config
from tests.http import CHAT, chat, error_of
from tests.process import gateway
from tests.provider import Provider

ORIGIN = "https://app.example"


@pytest.fixture(scope="module")
def exposed(running_provider: Provider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx2.Client]:
    server: dict[str, Any] = {"host": "0.0.0.0", "allowed_hosts": ["gw.example"], "cors_origins": [ORIGIN]}
    tree = config(running_provider.url) | {"auth": AUTH, "server": server}
    with gateway(tmp_path_factory.mktemp("exposed"), tree) as running:
        url, headers = f"http://127.0.0.1:{running.port}", {"host": "gw.example"}
        with httpx2.Client(base_url=url, headers=headers, timeout=30, verify=False) as http:
            yield http


def key(value: str) -> dict[str, str]:
    return {"authorization": f"Bearer {value}"}


def test_metrics_are_for_admins(exposed: httpx2.Client) -> None:
    assert exposed.get("/metrics").status_code == 401
    assert exposed.get("/metrics", headers=key(APP_KEY)).status_code == 403
    assert exposed.get("/metrics", headers=key(ADMIN_KEY)).status_code == 200


def test_only_its_own_names_are_answered_to(exposed: httpx2.Client) -> None:
    asked = chat("fake/fake")
    assert exposed.post(CHAT, json=asked, headers=key(APP_KEY)).status_code == 200
    for host in ("evil.example", "127.0.0.1", "xgw.example"):
        answer = exposed.post(CHAT, json=asked, headers=key(APP_KEY) | {"host": host})
        assert answer.status_code == 403
        assert error_of(answer)["code"] == "host_not_allowed"


def test_a_page_of_an_allowed_origin_can_call(exposed: httpx2.Client) -> None:
    preflight = exposed.options(
        CHAT,
        headers={
            "origin": ORIGIN,
            "access-control-request-method": "POST",
            "access-control-request-headers": "authorization,content-type",
        },
    )
    assert preflight.status_code in (200, 204)
    assert preflight.headers["access-control-allow-origin"] == ORIGIN
    assert "POST" in preflight.headers["access-control-allow-methods"]
    for stream in (False, True):
        answer = exposed.post(CHAT, json=chat("fake/fake", stream=stream), headers=key(APP_KEY) | {"origin": ORIGIN})
        assert answer.status_code == 200
        assert answer.headers["access-control-allow-origin"] == ORIGIN
    refused = exposed.post(CHAT, json=chat("fake/fake"), headers={"origin": ORIGIN})
    assert refused.status_code == 401
    assert refused.headers["access-control-allow-origin"] == ORIGIN, "else the page cannot read why"


def test_a_page_of_another_origin_cannot(exposed: httpx2.Client) -> None:
    foreign = {"origin": "https://evil.example", "access-control-request-method": "POST"}
    assert "access-control-allow-origin" not in exposed.options(CHAT, headers=foreign).headers
    answer = exposed.post(CHAT, json=chat("fake/fake"), headers=key(APP_KEY) | foreign)
    assert answer.status_code == 403
    assert "access-control-allow-origin" not in answer.headers

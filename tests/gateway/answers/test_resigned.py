"""Kept answers outlive the signed URLs in them: who is told one again gets good ones."""

import json
import re
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import httpx2
import pytest

from gateway.artifacts import resigning
from gateway.artifacts.signing import Signer
from gateway.house import House
from tests.gateway.answers.conftest import ended, unique
from tests.gateway.conftest import config, speaking
from tests.http import fetched
from tests.process import Gateway, gateway
from tests.provider import Provider

PATH = "/v1/generate"
_urls = re.compile(r'"(http[^"]*/v1/artifacts/[^"]+)"').findall
_signature = re.compile(rb"expires=[0-9]+|signature=[0-9a-f]{64}|\"expires_at\":\"[^\"]*\"").sub


@pytest.fixture(scope="module")
def brief(running_provider: Provider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    tree = config(running_provider.url) | {"artifacts": {"ttl_s": 1}}
    with gateway(tmp_path_factory.mktemp("brief"), tree) as running:
        yield running


@pytest.fixture
def http(brief: Gateway) -> Iterator[httpx2.Client]:
    with speaking(brief) as found:
        yield found


def asked(modality: str, stream: bool) -> dict[str, Any]:
    return {"model": "fake/fake", "modality": modality, "input": {"prompt": "a hat"}, "stream": stream}


def urls(text: str) -> list[str]:
    return [url.replace("\\u0026", "&") for url in _urls(text)]


def test_every_url_of_an_answer_told_again_is_good(http: httpx2.Client) -> None:
    bodies = [
        (PATH, asked("image", False), {}),
        (PATH, asked("image", True), {"accept": "text/event-stream"}),
        (PATH, asked("3d", False), {}),
        ("/v1/images/generations", {"model": "fake/fake", "prompt": "x", "response_format": "url"}, {}),
        ("/v1/3d/generations", {"model": "fake/fake", "prompt": "x"}, {}),
    ]
    keys = [unique("dead") for _ in bodies]

    def ask(n: int, **more: str) -> httpx2.Response:
        path, body, headers = bodies[n]
        return http.post(path, json=body, headers={"idempotency-key": keys[n], **headers, **more})

    firsts = [ask(n) for n in range(len(bodies))]
    later = http.post(PATH, json=asked("image", False), headers={"prefer": "respond-async"}).json()["id"]
    standing = ended(http, later)
    time.sleep(2.1)
    for n, first in enumerate(firsts):
        again = ask(n)
        assert (again.status_code, again.headers["idempotent-replayed"]) == (200, "true")
        assert len(urls(again.text)) == len(urls(first.text)) > 0
        for old, new in zip(urls(first.text), urls(again.text), strict=True):
            assert old.split("?")[0] == new.split("?")[0]
            assert fetched(new)
        assert _signature(b"", again.content) == _signature(b"", first.content), "and all else is as it was"
    old = standing["result"]["output"]["artifacts"][0]
    for told in (http.get(f"/v1/requests/{later}").json()["result"], http.get(f"/v1/requests/{later}/result").json()):
        [new] = told["output"]["artifacts"]
        assert fetched(new["url"])
        assert (new["url"] != old["url"], new["expires_at"] > old["expires_at"]) == (True, True)
        expiry = httpx2.URL(new["url"]).params["expires"]
        assert new["expires_at"] == time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(int(expiry)))


def _house(signer: Signer, mine: set[str]) -> House:
    async def several(tenant: str, ids: list[str]) -> list[Any]:
        assert tenant == "acme"
        return [SimpleNamespace(id=id_) for id_ in ids if id_ in mine]

    artifacts = SimpleNamespace(signer=signer, rows=SimpleNamespace(several=several))
    estate = SimpleNamespace(config=SimpleNamespace(artifacts=SimpleNamespace(ttl_s=900.0)))
    return cast(House, SimpleNamespace(cabinet=SimpleNamespace(artifacts=artifacts), estate=estate))


async def test_only_what_was_signed_here_for_this_tenant_is_signed_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    signer, other = Signer([b"k" * 32]), Signer([b"o" * 32])
    house = _house(signer, {"art_1"})

    def url(id_: str, by: Signer = signer, method: str = "GET") -> str:
        return "https://a.example" + by.signed(method, f"/v1/artifacts/{id_}/content", [("format", "png")], 5)

    stay = [url("art_2"), url("art_1", other), url("art_1", method="HEAD"), url("art_1") + "0", url("art_1")[:-1]]
    stay += ["/v1/artifacts/art_1/content", "/v1/artifacts/", "/v1/artifacts/art_1/content?expires=1"]
    body = json.dumps(stay).encode()
    assert await resigning.signed_anew(house, "acme", body) == body
    for step in (7, 64, resigning.STEP_BYTES):
        monkeypatch.setattr(resigning, "STEP_BYTES", step)
        for spelled in (url("art_1"), url("art_1").replace("&", "\\u0026")):
            text = f'{{"pad":"{"x" * 50}","url":"{spelled}","end":1}}'
            told = (await resigning.signed_anew(house, "acme", text.encode())).decode()
            assert told.startswith(text.partition("?")[0])
            assert told.endswith('","end":1}')
            assert ("\\u0026" in told) == ("\\u0026" in spelled)
            query = json.loads(told)["url"].partition("?")[2]
            pairs = [tuple(one.split("=")) for one in query.split("&")]
            assert pairs[0] == ("format", "png")
            signer.check("GET", "/v1/artifacts/art_1/content", cast(Any, pairs), time.time() + 800)

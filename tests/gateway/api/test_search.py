"""GET /v1/models/search, of a gateway before a hub on loopback."""

import time
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from tests.gateway.conftest import speaking
from tests.http import error_of
from tests.hub import HubRepo, HubServer, Made, hub
from tests.process import Gateway, gateway

MIB = 1 << 20
READER, APP = "reader-key-canary-3d1f", "app-key-canary-8b2a"
AUTH = {
    "mode": "api_key",
    "keys": [
        {"name": "reader", "key": READER, "scopes": ["models:read"]},
        {"name": "app", "key": APP, "scopes": ["inference"]},
    ],
}


def gguf(name: str, sizes: dict[str, int], **fields: Any) -> HubRepo:
    """sizes: quantization → MiB."""
    files = {f"{name}-{kind}.gguf": Made(size * MIB) for kind, size in sizes.items()}
    return HubRepo(f"org/{name}-GGUF", files, **{"tags": ["gguf"], "pipeline_tag": "text-generation"} | fields)


@pytest.fixture(scope="module")
def shelf() -> Iterator[HubServer]:
    # Sizes are small so that their hashes are quick; parameters and memory are as small.
    made = [
        gguf("small", {"Q4_K_M": 4, "Q8_0": 8}, license="mit", downloads=900, likes=3, gguf={"total": 1000}),
        gguf("medium", {"Q4_K_M": 55}, downloads=800, gguf={"total": 1000}),
        gguf("large", {"Q4_K_M": 80}, downloads=700, gated="manual", license="other", gguf={"total": 1000}),
        gguf("vectors", {"F16": 2}, downloads=600, pipeline_tag="sentence-similarity"),
        gguf("flux", {"Q4_0": 2}, downloads=500, pipeline_tag="text-to-image"),
        HubRepo(
            "evil/words-GGUF",
            {"w-Q4_0.gguf": b"w", "x\x1b.txt": b""},
            tags=["gguf", "\x1b]0;title\x07" + "long" * 1000, *(f"t{n}" for n in range(50))],
            card={"license": "l" * 5000, "summary": "one\r\nX-Injected: 1\x00 " + "many " * 1000},
            downloads=1,
        ),
        HubRepo(
            "org/paint",
            {"model_index.json": b"{}", "vae/model.safetensors": b"0" * 100, "vae/model.fp16.safetensors": b"0" * 50},
            tags=["diffusers", "safetensors"],
            pipeline_tag="text-to-image",
        ),
        HubRepo("org/secret-GGUF", {"s-Q4_0.gguf": b"s"}, tags=["gguf"], private=True),
    ]
    with hub(*made) as running:
        yield running


@pytest.fixture(scope="module")
def running(shelf: HubServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    tree = {
        "auth": AUTH,
        "hub": {"endpoint": shelf.url},
        "backends": {"local": {"kind": "local", "memory_max": 80 * MIB}},
    }
    with gateway(tmp_path_factory.mktemp("search"), tree, {"HF_TOKEN": "", "HF_HUB_OFFLINE": ""}) as one:
        yield one


@pytest.fixture
def reader(running: Gateway, shelf: HubServer) -> Iterator[httpx2.Client]:
    shelf.requests.clear()
    shelf.faults.clear()
    with speaking(running, {"authorization": f"Bearer {READER}"}) as http:
        yield http


def found(reader: httpx2.Client, **query: str | int) -> dict[str, Any]:
    answer = reader.get("/v1/models/search", params=query)
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    assert body["object"] == "list"
    return body


def ids(body: dict[str, Any]) -> list[str]:
    return [one["id"] for one in body["data"]]


def test_models_are_found_with_what_one_needs_to_choose(reader: httpx2.Client) -> None:
    body = found(reader, query="small")
    assert (ids(body), body["next_cursor"]) == (["org/small-GGUF"], None)
    (one,) = body["data"]
    kinds = one.pop("quantizations")
    assert one == {
        "id": "org/small-GGUF",
        "object": "model.search_result",
        "source": "huggingface",
        "modality": "text",
        "downloads": 900,
        "likes": 3,
        "updated_at": "2026-01-02T03:04:05Z",
        "license": "mit",
        "gated": False,
        "private": False,
        "tags": ["gguf", "license:mit"],
        "parameters": 1000,
        "context_length": None,
        "size_bytes": 8 * MIB,
        "fit": "fits",
        "summary": None,
    }
    assert kinds == [
        {"name": kind, "files": [f"small-{kind}.gguf"], "size_bytes": size * MIB, "fit": "fits"}
        for kind, size in (("Q8_0", 8), ("Q4_K_M", 4))
    ]


def test_each_says_whether_it_fits_and_the_most_downloaded_is_first(reader: httpx2.Client) -> None:
    body = found(reader)
    assert [(one["id"], one["fit"]) for one in body["data"]] == [
        ("org/small-GGUF", "fits"),
        ("org/medium-GGUF", "tight"),
        ("org/large-GGUF", "no"),
        ("org/vectors-GGUF", "fits"),
        ("evil/words-GGUF", "fits"),
    ]
    assert [one["gated"] for one in body["data"]] == [False, False, True, False, False]


@pytest.mark.parametrize(
    ("modality", "expected"),
    [
        ("text", ["org/small-GGUF", "org/medium-GGUF", "org/large-GGUF", "evil/words-GGUF"]),
        ("embedding", ["org/vectors-GGUF"]),
        ("image", ["org/paint"]),
        ("rerank", []),
        ("3d", []),
    ],
)
def test_a_modality_is_what_they_make(reader: httpx2.Client, modality: str, expected: list[str]) -> None:
    body = found(reader, modality=modality)
    assert ids(body) == expected
    assert {one["modality"] for one in body["data"]} <= {modality}


def test_a_pipelines_size_is_that_of_its_main_weights(reader: httpx2.Client) -> None:
    (one,) = found(reader, modality="image")["data"]
    assert (one["size_bytes"], one["fit"], one["quantizations"]) == (100, "no", [])


def test_pages_follow_each_other(reader: httpx2.Client, shelf: HubServer) -> None:
    whole = ids(found(reader))
    seen: list[str] = []
    query: dict[str, str | int] = {"limit": 2}
    while True:
        body = found(reader, **query)
        seen += ids(body)
        if body["next_cursor"] is None:
            break
        query["cursor"] = body["next_cursor"]
    assert seen == whole
    # What the hub's own link says is not followed, only its cursor is.
    assert {one.host for one in shelf.requests} == {shelf.url.removeprefix("http://")}


def test_a_strangers_words_are_bounded_and_say_nothing_to_a_terminal(reader: httpx2.Client) -> None:
    (one,) = found(reader, query="words")["data"]
    assert len(one["tags"]) == 20
    for text in (*one["tags"], one["license"], one["summary"]):
        assert text.isprintable()
        assert len(text) <= 400


@pytest.mark.parametrize(
    ("query", "named", "said"),
    [
        ({"source": "ollama"}, "source", "huggingface"),
        ({"modality": "smell"}, "modality", "embedding"),
        ({"limit": "0"}, "limit", "1 to 500"),
        ({"limit": "501"}, "limit", "1 to 500"),
        ({"limit": "many"}, "limit", "1 to 500"),
        ({"query": "a\x00b"}, "query", "printable"),
        ({"query": "x" * 301}, "query", "300"),
        ({"cursor": "%%%"}, "cursor", "next_cursor"),
        ({"cursor": "bm90IG9uZQ"}, "cursor", "next_cursor"),
        ({"cursor": "YWFh" * 1000}, "cursor", "next_cursor"),
    ],
)
def test_a_wrong_parameter_is_named(reader: httpx2.Client, query: dict[str, str], named: str, said: str) -> None:
    answer = reader.get("/v1/models/search", params=query)
    assert answer.status_code == 400, answer.text
    error = error_of(answer)
    assert error["param"] == named
    assert said in error["message"]


def test_the_scope_is_models_read(running: Gateway, reader: httpx2.Client) -> None:
    with speaking(running, {"authorization": f"Bearer {APP}"}) as http:
        assert http.get("/v1/models/search").status_code == 403
    with speaking(running) as http:
        assert http.get("/v1/models/search").status_code == 401


def test_sizes_that_cannot_be_had_are_null_and_no_error(reader: httpx2.Client, shelf: HubServer) -> None:
    for n in range(3):
        shelf.add(gguf(f"shy{n}", {"Q4_K_M": 1, "Q8_0": 1}, downloads=10))
    try:
        shelf.refuse("/api/models/org/shy0", 500)
        shelf.refuse("/api/models/org/shy1", 429, retry_after="60")
        bodies = {one["id"]: one for one in found(reader, query="shy")["data"]}
    finally:
        for n in range(3):
            del shelf.repos[f"org/shy{n}-GGUF"]
    for name in ("org/shy0-GGUF", "org/shy1-GGUF"):
        assert (bodies[name]["size_bytes"], bodies[name]["fit"]) == (None, None)
        assert [(one["name"], one["size_bytes"], one["fit"]) for one in bodies[name]["quantizations"]] == [
            ("Q8_0", None, None),
            ("Q4_K_M", None, None),
        ]
    assert bodies["org/shy2-GGUF"]["fit"] == "fits"


def test_a_hub_that_does_not_answer_is_an_error_in_words(reader: httpx2.Client, shelf: HubServer) -> None:
    shelf.refuse("/api/models?", 503)
    answer = reader.get("/v1/models/search")
    assert (answer.status_code, error_of(answer)["type"]) == (502, "server_error")
    shelf.refuse("/api/models?", 429, retry_after="9")
    answer = reader.get("/v1/models/search")
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "9")
    assert len(shelf.requests) == 2


def test_whoever_leaves_a_hub_that_hangs_hinders_nobody(reader: httpx2.Client, shelf: HubServer) -> None:
    shelf.hang("/api/models?", 1.0, times=3)
    for _ in range(3):
        with pytest.raises(httpx2.ReadTimeout):
            reader.get("/v1/models/search", timeout=0.2)
    begin = time.monotonic()
    assert ids(found(reader, query="small")) == ["org/small-GGUF"]
    assert reader.get("/v1/models").status_code == 200
    assert time.monotonic() - begin < 2

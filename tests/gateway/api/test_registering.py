"""Registering models, changing and removing them, and taking the registry elsewhere."""

import shutil
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from gateway import embedded
from tests.gateway.conftest import speaking
from tests.gateway.discovery import pipeline, write
from tests.http import CHAT, chat, error_of, until
from tests.process import Gateway, gateway

ROOT, LIMITED, BARE = "registry-root-key-0f1e2d", "registry-limited-key-9b8a", "registry-bare-key-7c6d5e"
MODELS = "/v1/models"
SLOW = """
import asyncio
from gateway.db.models import ModelRows
put = ModelRows.put
async def slow(self, entries, act=None):
    entries = list(entries)
    await asyncio.sleep(0.4 if any(entry.name == "raced" and entry.hidden for entry in entries) else 0)
    await put(self, entries, act)
ModelRows.put = slow
"""
"""A database that takes its time to write down that a model called `raced` is removed."""


class Place:
    """A gateway with folders of models."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.models = folder, folder / "models"
        self.models.mkdir(parents=True)
        (folder / "data").mkdir()
        self.tree: dict[str, Any] = {
            "backends": {
                "local": {
                    "kind": "local",
                    "threads": 1,
                    "slots": 1,
                    "context_max": 512,
                    "model_dirs": [str(self.models)],
                },
                "fake": {"kind": "fake"},
            },
            "models": {
                "auto": {"routes": ["fake/fake"]},
                "gone": {"routes": ["local/wanted"]},
                "glob-*": {"routes": ["fake/*"]},
            },
            "auth": {
                "mode": "api_key",
                "keys": [
                    {"name": "root", "key": ROOT, "scopes": ["admin"]},
                    {
                        "name": "limited",
                        "key": LIMITED,
                        "scopes": ["inference", "models:write", "models:read"],
                        "models": ["local/own-*"],
                    },
                    {"name": "bare", "key": BARE, "scopes": ["models:write", "models:read"], "models": ["mine"]},
                ],
            },
        }  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    place = Place(tmp_path_factory.mktemp("registering"))
    shutil.copyfile(embedded.models("local", Path())["smollm2-135m-instruct"].path, place.models / "Mine.gguf")
    return place


@pytest.fixture(scope="module")
def running(place: Place) -> Iterator[Gateway]:
    with gateway(place.folder, place.tree, prelude=SLOW) as running:
        yield running


@pytest.fixture
def http(running: Gateway) -> Iterator[httpx2.Client]:
    with speaking(running, {"x-api-key": ROOT}) as client:
        yield client


@pytest.fixture
def here(http: httpx2.Client, place: Place) -> Iterator[str]:
    """A small model in the model folder, which is registered by nobody."""
    write(place.models / "Small.gguf")
    until(lambda: http.get(f"{MODELS}/local/small").status_code == 200)
    yield "local/small"
    (place.models / "Small.gguf").unlink(missing_ok=True)
    http.delete(f"{MODELS}/local/small", params={"force": "true"})


def registered(http: httpx2.Client, **form: Any) -> dict[str, Any]:
    answer = http.post(MODELS, json=form)
    assert answer.status_code == 201, answer.text
    told: dict[str, Any] = answer.json()
    return told


def removed(http: httpx2.Client, id_: str, **query: str) -> dict[str, Any]:
    answer = http.delete(f"{MODELS}/{id_}", params=query)
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()
    return told


def listed(http: httpx2.Client, **query: str) -> dict[str, dict[str, Any]]:
    return {model["id"]: model for model in http.get(MODELS, params=query).json()["data"]}


def refused(answer: httpx2.Response, status: int, param: str | None = None) -> str:
    error = error_of(answer)
    assert (answer.status_code, error["param"]) == (status, param), answer.text
    return str(error["message"])


def test_a_found_model_is_changed_and_asked_for_by_its_alias(http: httpx2.Client) -> None:
    fields = {
        "aliases": ["my-own"],
        "tags": ["good"],
        "defaults": {"max_tokens": 3, "temperature": 0.0},
        "summary": "Mine.",
    }
    told = http.patch(f"{MODELS}/local/mine", json=fields).json()
    assert {name: told[name] for name in fields} == fields
    assert (told["status"], told["price"], told["memory_bytes"] > 50_000_000) == ("unloaded", "local", True)
    for name in ("my-own", "local/my-own", "local/mine", "mine"):
        answer = http.post(CHAT, json=chat(name))
        assert answer.status_code == 200, answer.text
        assert (answer.headers["x-gateway-model"], answer.json()["model"]) == ("local/mine", "mine")
        assert answer.json()["usage"]["completion_tokens"] <= 3, "the default holds"
    loaded = http.get(f"{MODELS}/my-own").json()
    assert (loaded["id"], loaded["status"]) == ("local/mine", "ready")
    assert list(listed(http, tag="good")) == ["local/mine"]
    assert "local/mine" in listed(http, status="ready")
    cleared = http.patch(
        f"{MODELS}/mine", json={"aliases": None, "tags": None, "defaults": None, "summary": None}
    ).json()
    assert (cleared["aliases"], cleared["tags"], cleared["defaults"], cleared["summary"]) == ([], [], {}, None)
    assert http.post(CHAT, json=chat("my-own")).status_code == 404


def test_one_in_memory_is_removed_by_force_only_and_what_runs_on_it_is_finished(
    running: Gateway, http: httpx2.Client, place: Place
) -> None:
    answers: list[httpx2.Response] = []

    def ask() -> None:
        with speaking(running, {"x-api-key": ROOT}) as own:
            answers.append(own.post(CHAT, json=chat("local/mine", max_tokens=40, temperature=0.0)))

    asking = threading.Thread(target=ask)
    asking.start()
    until(lambda: http.get(f"{MODELS}/local%2Fmine/status").json()["running"] == 1)
    assert "in memory" in refused(http.delete(f"{MODELS}/local/mine"), 409)
    assert removed(http, "local/mine", force="true") == {
        "id": "local/mine", "object": "model", "deleted": True, "freed_bytes": 0, "kept_for": [],
    }  # fmt: skip
    assert http.get(f"{MODELS}/loaded").json()["pools"]["local"]["loaded"] == 0, "it is out of memory by now"
    asking.join(20)
    assert (answers[0].status_code, answers[0].json()["choices"][0]["finish_reason"]) in (
        (200, "length"),
        (200, "stop"),
    )
    assert (place.models / "Mine.gguf").is_file()
    assert "local/mine" not in listed(http)
    assert http.post(CHAT, json=chat("local/mine")).status_code == 404
    assert registered(http, id="local/mine")["status"] == "unloaded"
    removed(http, "local/mine")
    assert http.patch(f"{MODELS}/local/mine", json={"hidden": False}).json()["id"] == "local/mine"
    assert "local/mine" in listed(http)


def test_files_are_deleted_where_that_is_asked_for(http: httpx2.Client, place: Place, here: str) -> None:
    size = (place.models / "Small.gguf").stat().st_size
    http.patch(f"{MODELS}/{here}", json={"pinned": True})
    assert "pinned" in refused(http.delete(f"{MODELS}/{here}", params={"files": "true"}), 409)
    http.patch(f"{MODELS}/{here}", json={"pinned": None})
    assert removed(http, here, files="true")["freed_bytes"] == size
    assert not (place.models / "Small.gguf").exists()
    assert http.get(f"{MODELS}/{here}").status_code == 404


def test_what_comes_with_the_gateway_is_hidden_and_never_deleted(http: httpx2.Client) -> None:
    assert "comes with" in refused(http.delete(f"{MODELS}/local/tiny-3d", params={"files": "true"}), 409)
    removed(http, "local/tiny-3d")
    assert "local/tiny-3d" not in listed(http)
    assert registered(http, id="local/tiny-3d")["modality"] == "3d"


def test_a_model_by_its_path_is_served_where_it_lies(http: httpx2.Client, place: Place) -> None:
    lying = write(place.folder / "data" / "extra" / "Elsewhere.gguf")
    told = registered(http, name="placed", path=str(lying), context_length=256, capabilities=["chat"])
    assert (told["id"], told["status"], told["context_length"]) == ("local/placed", "unloaded", 256)
    assert told["capabilities"] == ["chat"]
    assert "conflict" in http.post(MODELS, json={"id": "local/placed"}).text
    assert refused(http.delete(f"{MODELS}/local/placed", params={"files": "true"}), 409)
    lying.rename(lying.with_suffix(".away"))
    http.patch(f"{MODELS}/local/placed", json={"tags": ["x"]})
    missing = http.get(f"{MODELS}/local/placed").json()
    assert missing["status"] == "missing"
    assert missing["reason"]
    assert "missing" in refused(http.post(CHAT, json=chat("local/placed")), 503)
    lying.with_suffix(".away").rename(lying)
    http.patch(f"{MODELS}/local/placed", json={"tags": ["y"]})
    assert http.get(f"{MODELS}/local/placed").json()["status"] == "unloaded"
    removed(http, "local/placed")
    assert lying.is_file()
    assert http.get(f"{MODELS}/local/placed").status_code == 404


def test_a_path_outside_or_through_a_link_is_refused_in_the_same_words(http: httpx2.Client, place: Place) -> None:
    outside = write(place.folder / "outside" / "Secret.gguf")
    link = place.models / "link.gguf"
    link.symlink_to(outside)
    folder = place.models / "folder"
    folder.symlink_to(outside.parent)
    nowhere = place.folder / "outside" / "nothing.gguf"
    said = {
        refused(http.post(MODELS, json={"name": "x", "path": str(path)}), 400, "path")
        for path in (outside, link, folder / "Secret.gguf", nowhere, "/etc/passwd", "/")
    }
    assert len(said) == 1, said
    assert str(place.folder) not in said.pop()
    long = str(place.models / ("n" * 300))
    for path in (
        "relative.gguf",
        str(place.models / ".." / "outside"),
        "/\x00",
        str(place.models / "absent.gguf"),
        long,
    ):
        refused(http.post(MODELS, json={"name": "x", "path": path}), 400, "path")
    (place.models / "no.gguf").write_bytes(b"GGUF nothing")
    assert "served" in refused(
        http.post(MODELS, json={"name": "x", "path": str(place.models / "no.gguf")}), 400, "path"
    )
    for made in (link, folder, place.models / "no.gguf"):
        made.unlink()


def test_what_is_a_link_out_by_now_is_not_served(http: httpx2.Client, place: Place) -> None:
    outside = write(place.folder / "outer" / "Secret.gguf")
    folder = place.models / "leading"
    folder.mkdir()
    (folder / "out.gguf").symlink_to(outside)
    assert "leads out" in refused(http.post(MODELS, json={"name": "led", "path": str(folder)}), 400, "path")
    lying = write(place.folder / "data" / "extra" / "Swapped.gguf")
    assert registered(http, name="swapped", path=str(lying))["status"] == "unloaded"
    lying.unlink()
    lying.symlink_to(outside)
    http.patch(f"{MODELS}/local/swapped", json={"tags": ["looked-at"]})
    assert http.get(f"{MODELS}/local/swapped").json()["status"] == "missing"
    refused(http.post(CHAT, json=chat("local/swapped")), 503)
    removed(http, "local/swapped")
    shutil.rmtree(folder)


def test_a_folder_is_registered_if_it_holds_one_model(http: httpx2.Client, place: Place) -> None:
    folder = place.folder / "data" / "several"
    one, _ = write(folder / "One.gguf"), write(folder / "in" / "Two.gguf")
    said = refused(http.post(MODELS, json={"name": "which", "path": str(folder)}), 400, "path")
    assert "'One.gguf'" in said
    assert "'in/Two.gguf'" in said
    for path in (place.models, place.folder / "data"):
        assert "many models" in refused(http.post(MODELS, json={"name": "which", "path": str(path)}), 400, "path")
    one.unlink()
    assert registered(http, name="which", path=str(folder))["status"] == "unloaded"
    removed(http, "local/which")


def test_what_is_removed_does_not_come_back_by_a_change_that_was_under_way(
    running: Gateway, http: httpx2.Client
) -> None:
    registered(http, name="raced", source={"repo": "Org/Raced"})

    def remove() -> None:
        with speaking(running, {"x-api-key": ROOT}) as own:
            removed(own, "local/raced")

    removing = threading.Thread(target=remove)
    removing.start()
    time.sleep(0.15)
    changed = http.patch(f"{MODELS}/local/raced", json={"tags": ["late"]})
    removing.join(10)
    assert error_of(changed)["code"] == "model_not_found", changed.text
    assert http.get(f"{MODELS}/local/raced").status_code == 404
    assert "local/raced" not in http.get(f"{MODELS}/export", params={"all": "true"}).text


def test_what_comes_back_comes_back_if_its_names_are_free(http: httpx2.Client, here: str, place: Place) -> None:
    http.patch(f"{MODELS}/{here}", json={"aliases": ["taken"]})
    removed(http, here)
    http.patch(f"{MODELS}/local/tiny-3d", json={"aliases": ["taken"]})
    assert "local/tiny-3d" in refused(http.patch(f"{MODELS}/{here}", json={"hidden": False}), 409, "aliases[0]")
    http.patch(f"{MODELS}/local/tiny-3d", json={"aliases": ["small"]})
    refused(http.patch(f"{MODELS}/{here}", json={"hidden": False}), 409, "hidden")
    http.patch(f"{MODELS}/local/tiny-3d", json={"aliases": ["later"]})
    assert http.patch(f"{MODELS}/{here}", json={"hidden": False}).json()["aliases"] == ["taken"]
    # A file may take a name that somebody has for an alias: what is so is exported, and taken in again.
    write(place.models / "Later.gguf")
    until(lambda: "local/later" in listed(http))
    http.patch(f"{MODELS}/local/later", json={"tags": ["late"]})
    kept = http.get(f"{MODELS}/export").json()
    again = http.post(f"{MODELS}/import", json=kept)
    assert again.json()["unchanged"] == len(kept["models"]), again.text
    http.patch(f"{MODELS}/local/tiny-3d", json={"aliases": None})
    removed(http, "local/later", files="true")


def test_how_long_a_context_is_has_nothing_to_do_with_other_fields(http: httpx2.Client) -> None:
    registered(http, name="tight", source={"repo": "Org/Tight"}, context_length=1, defaults={"max_tokens": 5})
    assert http.patch(f"{MODELS}/local/tight", json={"modality": "text"}).status_code == 200
    assert "top_logprobs" in refused(
        http.patch(f"{MODELS}/local/tight", json={"defaults": {"top_logprobs": 99}}), 400, "defaults.top_logprobs"
    )
    removed(http, "local/tight")


@pytest.mark.parametrize(
    ("form", "param", "word"),
    [
        ({"capabilities": ["chat", "fly"]}, "capabilities[1]", "json_schema"),
        ({"context_length": 2**31}, "context_length", "1 to 2147483647"),
        ({"modality": "smell"}, "modality", "embedding"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_value_that_there_is_not_is_refused_with_those_that_there_are(
    http: httpx2.Client, form: dict[str, Any], param: str, word: str
) -> None:
    assert word in refused(http.patch(f"{MODELS}/local/mine", json=form), 400, param)


def test_a_key_that_is_held_to_a_bare_name_changes_that_model(running: Gateway) -> None:
    with speaking(running, {"x-api-key": BARE}) as bare:
        for name in ("mine", "local/mine"):
            assert bare.patch(f"{MODELS}/{name}", json={"tags": ["bare"]}).status_code == 200
        assert bare.patch(f"{MODELS}/mine", json={"tags": None}).status_code == 200
        assert bare.patch(f"{MODELS}/local/tiny-3d", json={"tags": ["x"]}).status_code == 404
        assert bare.post(MODELS, json={"id": "fake/mine"}).status_code == 403


def test_one_that_is_not_here_says_so_to_who_asks_for_it(http: httpx2.Client) -> None:
    told = registered(
        http, name="wanted", source={"repo": "Org/Name", "file": "a.gguf"}, aliases=["want"], modality="text"
    )
    assert (told["status"], told["source"], told["price"]) == ("registered", "huggingface:Org/Name", "local")
    assert "local/wanted" in listed(http, status="registered")
    for name in ("want", "wanted", "local/wanted", "local/want", "gone"):
        answer = http.post(CHAT, json=chat(name))
        assert "POST /v1/models/download" in refused(answer, 503)
        assert error_of(answer)["code"] == "model_unavailable"
    removed(http, "want")
    assert http.post(CHAT, json=chat("wanted")).status_code == 404


def test_a_model_that_its_provider_does_not_list_is_listed(http: httpx2.Client) -> None:
    told = registered(http, id="fake/unlisted", aliases=["un"], capabilities=["chat"], tags=["t"])
    assert (told["source"], told["price"], told["capabilities"]) == ("provider", "free", ["chat"])
    assert listed(http, backend="fake", tag="t").keys() == {"fake/unlisted"}
    assert http.post(CHAT, json=chat("un")).json()["model"] == "unlisted"
    refused(http.patch(f"{MODELS}/fake/unlisted", json={"defaults": {"temperature": 1}}), 400, "defaults")
    refused(http.post(MODELS, json={"id": "fake/x", "path": "/x"}), 400, "path")
    removed(http, "fake/unlisted")


BAD: list[tuple[dict[str, Any], int, str | None]] = [
    ({}, 400, "id"),
    ({"id": "nobody/x"}, 400, "id"),
    ({"id": "x"}, 400, "id"),
    ({"id": "local/x", "name": "x"}, 400, "id"),
    ({"name": "x", "backend": "nobody"}, 400, "backend"),
    ({"name": "search", "source": {"repo": "a/b"}}, 400, "name"),
    ({"id": "local/a/../b"}, 400, "id"),
    ({"name": "x"}, 400, "source"),
    ({"name": "x", "source": {"repo": "no-slash"}}, 400, "source.repo"),
    ({"name": "x", "source": {"repo": "a/b", "file": "../../etc/passwd"}}, 400, "source.file"),
    ({"name": "x", "source": {"repo": "a/b", "files": ["ok", "/etc"]}}, 400, "source.files[1]"),
    ({"name": "x", "source": {"repo": "a/b"}, "aliases": ["auto"]}, 409, "aliases[0]"),
    ({"name": "x", "source": {"repo": "a/b"}, "aliases": ["ok", "glob-7"]}, 409, "aliases[1]"),
    ({"name": "x", "source": {"repo": "a/b"}, "aliases": ["mine"]}, 409, "aliases[0]"),
    ({"name": "x", "source": {"repo": "a/b"}, "aliases": ["fake/y"]}, 400, "aliases[0]"),
    ({"name": "auto", "source": {"repo": "a/b"}}, 409, "name"),
    ({"name": "x", "source": {"repo": "a/b"}, "tags": [""]}, 400, "tags[0]"),
    ({"name": "x", "source": {"repo": "a/b"}, "capabilities": ["No"]}, 400, "capabilities[0]"),
    ({"name": "x", "source": {"repo": "a/b"}, "context_length": 0}, 400, "context_length"),
    ({"name": "x", "source": {"repo": "a/b"}, "modality": "smell"}, 400, "modality"),
    ({"name": "x", "source": {"repo": "a/b"}, "defaults": {"temprature": 1}}, 400, "defaults.temprature"),
    ({"name": "x", "source": {"repo": "a/b"}, "defaults": {"temperature": "hot"}}, 400, "defaults.temperature"),
    ({"name": "x", "source": {"repo": "a/b"}, "modality": "image", "defaults": {"size": 7}}, 400, "defaults.size"),
    ({"name": "x", "source": {"repo": "a/b"}, "nonsense": 1}, 400, "nonsense"),
]


@pytest.mark.parametrize(
    ("form", "status", "param"), BAD, ids=lambda value: str(value)[:60] if isinstance(value, dict) else ""
)
def test_a_bad_form_is_refused_by_the_name_of_its_field(
    http: httpx2.Client, form: dict[str, Any], status: int, param: str | None
) -> None:
    before = listed(http).keys()
    refused(http.post(MODELS, json=form), status, param)
    assert listed(http).keys() == before


def test_what_the_configuration_has_and_what_is_not_there_cannot_be_changed(http: httpx2.Client) -> None:
    assert "configuration file" in refused(http.patch(f"{MODELS}/auto", json={"tags": ["x"]}), 400, "model_id")
    assert "configuration file" in refused(http.delete(f"{MODELS}/auto"), 400, "model_id")
    for answer in (http.patch(f"{MODELS}/nobody", json={"tags": ["x"]}), http.delete(f"{MODELS}/local/nobody")):
        assert error_of(answer)["code"] == "model_not_found"


def test_a_key_registers_what_it_may_use(running: Gateway, http: httpx2.Client) -> None:
    with speaking(running, {"x-api-key": LIMITED}) as limited:
        source = {"repo": "Org/Own"}
        assert error_of(limited.post(MODELS, json={"name": "other", "source": source}))["code"] == "model_not_allowed"
        assert limited.delete(f"{MODELS}/local/mine").status_code == 404
        assert registered(limited, name="own-1", source=source)["id"] == "local/own-1"
        assert list(listed(limited)) == ["local/own-1"]
        kept = limited.get(f"{MODELS}/export").json()["models"]
        assert [model["id"] for model in kept] == ["local/own-1"]
        removed(limited, "local/own-1")
    acts = http.get("/v1/audit", params={"actor": "limited"}).json()["data"]
    assert [act["action"] for act in acts] == ["model.delete", "model.register"]


def test_the_registry_goes_elsewhere_and_comes_back(http: httpx2.Client, here: str, tmp_path: Path) -> None:
    registered(http, name="far", source={"repo": "Org/Far", "revision": "main", "files": ["a.gguf"]}, aliases=["f"])
    http.patch(f"{MODELS}/{here}", json={"aliases": ["s"], "tags": ["t"], "defaults": {"temperature": 0.5}})
    kept = http.get(f"{MODELS}/export").json()
    ids = {model["id"] for model in kept["models"]}
    assert {"local/far", here} <= ids
    assert len(http.get(f"{MODELS}/export", params={"all": "true"}).json()["models"]) > len(ids)
    again = http.post(f"{MODELS}/import", json=kept).json()
    assert (again["created"], again["updated"], again["unchanged"]) == (0, 0, len(ids))
    whole = http.get(f"{MODELS}/export", params={"all": "true"}).json()
    assert http.post(f"{MODELS}/import", json=whole).json()["updated"] == 0
    broken = {**kept, "models": [*kept["models"], {"id": "local/new", "source": {"repo": "a/b"}, "aliases": ["auto"]}]}
    broken["models"][0] = broken["models"][0] | {"tags": ["changed"]}
    refused(http.post(f"{MODELS}/import", json=broken), 409, f"models[{len(ids)}].aliases[0]")
    refused(
        http.post(f"{MODELS}/import", json={"models": [{"id": "local/x", "aliases": [7]}]}), 400, "models[0].aliases[0]"
    )
    assert http.get(f"{MODELS}/export").json() == kept, "all or nothing"
    other = Place(tmp_path)
    with gateway(other.folder, other.tree) as there, speaking(there, {"x-api-key": ROOT}) as away:
        # Nobody has asked for a list yet.
        refused(away.patch(f"{MODELS}/local/tiny-3d", json={"aliases": ["fake"]}), 409, "aliases[0]")
        assert away.post(f"{MODELS}/import", json=kept).json()["created"] == len(ids - {"local/tiny-3d"})
        found = listed(away)
        assert (found["local/far"]["status"], found[here]["status"]) == ("registered", "missing")
        assert (found["local/far"]["aliases"], found[here]["tags"]) == (["f"], ["t"])
        removed(away, "local/tiny-shapes")
        kept = away.get(f"{MODELS}/export").json()
        there.stop(signal.SIGKILL)
    write(other.models / "Small.gguf")
    with gateway(other.folder, other.tree) as there, speaking(there, {"x-api-key": ROOT}) as away:
        assert away.get(f"{MODELS}/export").json() == kept, "nothing is lost with the process"
        found = listed(away)
        assert "local/tiny-shapes" not in found
        assert (found[here]["status"], found[here]["tags"]) == ("unloaded", ["t"]), "it is there now"
    removed(http, "local/far")


def test_a_folder_is_removed_whole_and_its_neighbours_stay(http: httpx2.Client, place: Place) -> None:
    folder, beside = pipeline(place.models / "pictures", onnx=True), pipeline(place.models / "others", onnx=True)
    until(lambda: {"local/pictures", "local/others"} <= listed(http).keys())
    assert removed(http, "local/pictures", files="true")["freed_bytes"] > 0
    assert not folder.exists()
    assert beside.is_dir()
    assert "local/others" in listed(http)
    removed(http, "local/others", files="true")

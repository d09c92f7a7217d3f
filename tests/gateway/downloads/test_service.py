"""Models downloaded by name, through a gateway from a hub: there, verified and answering, or refused in words."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.discovery import pipeline, sentences
from tests.gateway.downloads.world import (
    FILE,
    MIB,
    NAME,
    REPO,
    TOKEN,
    World,
    beside,
    large,
    ranker,
    repository,
    told,
)
from tests.hub import HubRepo, hub
from tests.hub.files import twist


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("downloads")
    repos = (
        repository(),
        repository("acme/several", {"m-Q4_0.gguf": ranker(), "m-Q8_0.gguf": ranker() + b"8" * 32}),
        HubRepo("acme/gated", {FILE: ranker()}, gated="manual"),
        HubRepo("acme/private", {FILE: ranker()}, private=True, readers=["ann"]),
        HubRepo("acme/others", {FILE: ranker()}, private=True),
        HubRepo("acme/pickled", {"pytorch_model.bin": b"x"}),
        HubRepo("acme/pictures", files(pipeline(folder / "pictures"))),
        HubRepo("acme/coded", files(pipeline(folder / "coded")) | {"unet/config.json": b'{"auto_map": {"a": "b"}}'}),
        HubRepo("acme/sentences", files(sentences(folder / "sentences")), library="sentence-transformers"),
        HubRepo("acme/junk", {"junk-Q4_0.gguf": b"not a model at all" * 100}),
        repository("acme/large", {FILE: large(40)}),
        repository("acme/spoilt"),
    )
    with hub(*repos) as server:
        server.tokens[TOKEN] = "ann"
        limits = {"min_free_bytes": 0, "model_bytes_max": "32MiB"}
        with beside(folder, server, hub={"retries": 0, "token": TOKEN}, storage=limits) as one:
            yield one


def test_a_model_asked_for_by_name_is_there_and_answers(there: World) -> None:
    answer = there.download()
    assert answer.status_code == 202
    job = answer.json()
    assert answer.headers["location"] == f"/v1/jobs/{job['id']}"
    seen: list[str] = []
    while not seen or seen[-1] != "unloaded":
        seen.append(there.http.get(f"/v1/models/local/{NAME}").json()["status"])
        assert seen[-1] in ("downloading", "verifying", "unloaded"), seen
    done = there.ended(job["id"])
    assert done["status"] == "done", done
    assert done["progress"]["bytes_done"] == len(ranker())
    assert done["result"]["model"] == f"local/{NAME}"
    commit = there.hub.repos[REPO].commits[-1].id
    assert there.files() >= {f"acme--noise-gguf/{commit[:12]}/{FILE}"}
    model = there.listed()
    assert model is not None
    assert (model["modality"], model["version"], model["license"]) == ("rerank", commit, "mit")
    assert there.ranked().status_code == 200


def test_what_is_here_already_is_not_fetched_again(there: World) -> None:
    there.ended(there.download().json()["id"])
    before = len(there.hub.asked("/resolve/"))
    again = there.download()
    assert (again.status_code, again.json()["status"]) == (200, "done")
    assert len(there.hub.asked("/resolve/")) == before


def test_the_quantization_that_is_named_is_the_one_that_comes(there: World) -> None:
    for kind, size in (("Q4_0", len(ranker())), ("Q8_0", len(ranker()) + 32)):
        job = there.ended(there.begun(repo="acme/several", name=f"m-{kind}", quantization=kind))
        assert (job["result"]["quantization"], job["result"]["size_bytes"]) == (kind, size)
    wrong = there.download(repo="acme/several", name="m", quantization="Q2_K")
    assert (wrong.status_code, told(wrong)["param"]) == (400, "quantization")
    assert "Q4_0" in told(wrong)["message"]


def test_a_licence_to_be_accepted_is_told_with_where(there: World) -> None:
    refused = there.download(repo="acme/gated")
    assert (refused.status_code, told(refused)["code"]) == (403, "gated_repo")
    assert f"{there.hub.url}/acme/gated" in told(refused)["message"]
    assert there.download(repo="acme/others").status_code in (403, 404)


def test_what_could_run_code_is_refused_before_a_byte_is_fetched(there: World) -> None:
    refused = there.download(repo="acme/pickled", name="pickled")
    assert (refused.status_code, told(refused)["code"]) == (400, "unsafe_repo")
    assert not there.hub.asked("/acme/pickled/resolve/")
    assert there.listed("local/pickled") is None
    coded = there.download(repo="acme/coded", name="coded")
    assert (coded.status_code, told(coded)["code"]) == (400, "unsafe_repo")
    assert not there.hub.asked("/acme/coded/resolve/", cdn=True)


def test_a_pipeline_comes_as_a_folder(there: World) -> None:
    job = there.ended(there.begun(repo="acme/pictures", name="pictures"))
    assert (job["status"], job["result"]["format"]) == ("done", "diffusers"), job
    model = there.listed("local/pictures")
    assert model is not None
    assert (model["modality"], model["status"]) == ("image", "unloaded")


def test_a_folder_that_could_not_be_served_is_refused_before_a_byte_is_fetched(there: World) -> None:
    refused = there.download(repo="acme/sentences", name="sentences")
    assert (refused.status_code, told(refused)["param"]) == (400, "repo"), refused.text
    assert "model_dirs" in told(refused)["message"]


def test_what_is_no_model_fails_and_leaves_nothing(there: World) -> None:
    job = there.ended(there.begun(repo="acme/junk", name="junk"))
    assert (job["status"], job["error"]["code"]) == ("failed", "model_unreadable")
    assert str(there.root) not in job["error"]["message"]
    assert not [name for name in there.files() if "junk" in name]
    model = there.listed("local/junk")
    assert model is None or model["status"] == "failed"
    assert there.ranked("local/junk").status_code in (404, 409, 503)


def test_a_taken_name_names_the_way_out(there: World) -> None:
    there.ended(there.download().json()["id"])
    taken = there.download(repo="acme/several", quantization="Q4_0")
    assert (taken.status_code, told(taken)["param"]) == (409, "name")
    shipped = there.download(name="smollm2-135m-instruct")
    assert (shipped.status_code, told(shipped)["param"]) == (409, "name")


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"repo": "../etc"}, "repo"),
        ({"name": "../x"}, "name"),
        ({"backend": "nowhere"}, "backend"),
        ({"file": "/etc/passwd"}, "repo"),
        ({"revision": ".."}, "revision"),
        ({"priority": "high"}, "priority"),
        ({"file": FILE, "quantization": "Q8_0"}, "quantization"),
        ({"api_key": "sk-1"}, "api_key"),
        ({"model": "local/x"}, "repo"),
    ],
)
def test_a_wrong_field_is_named(there: World, body: dict[str, Any], param: str) -> None:
    refused = there.download(**body)
    assert (refused.status_code, told(refused)["param"]) == (400, param)


def test_a_repository_that_is_not_there_and_a_hub_that_is_gone(there: World) -> None:
    absent = there.download(repo="acme/absent")
    assert absent.status_code in (403, 404), absent.text
    with hub() as gone:
        pass
    there.configured(there.hub.url, gone.url)
    refused = there.download(repo="acme/large")
    there.configured(gone.url, there.hub.url)
    assert (refused.status_code, told(refused)["code"]) == (502, "upstream_unreachable")
    assert gone.url not in refused.text


def test_no_room_is_told_at_once(there: World) -> None:
    refused = there.download(repo="acme/large", name="large")
    assert (refused.status_code, told(refused)["code"]) == (507, "insufficient_storage")
    assert there.listed("local/large") is None
    assert not there.hub.asked("/acme/large/resolve/")


def test_the_token_is_for_the_hub_alone(there: World) -> None:
    assert there.ended(there.begun(repo="acme/private", name="private"))["status"] == "done"
    there.gateway.wait_for("model_downloaded", model="local/private")
    assert {one.token for one in there.hub.asked("/acme/private/", cdn=False)} == {TOKEN}
    assert {one.token for one in there.hub.asked("/acme/private", cdn=True)} == {None}
    assert all(TOKEN not in line for line in there.gateway.lines)
    for path in (there.gateway.folder / "data").rglob("*"):
        if path.is_file() and path.stat().st_size < MIB:
            assert TOKEN.encode() not in path.read_bytes(), path.name


def test_a_byte_that_is_wrong_is_noticed(there: World) -> None:
    twist(there.hub, "/repos/acme/spoilt", times=9, cdn=True, corrupt_at=len(ranker()) // 2)
    id_ = there.begun(repo="acme/spoilt", name="spoilt")
    job = there.ended(id_)
    assert (job["status"], job["error"]["code"]) == ("failed", "checksum_mismatch")
    model = there.listed("local/spoilt")
    assert model is None or model["status"] == "failed"
    assert not [name for name in there.files() if "spoilt" in name]
    there.hub.faults.clear()
    assert there.post(f"/v1/jobs/{id_}/resume").status_code == 200
    assert there.ended(id_)["status"] == "done"
    assert there.ranked("local/spoilt").status_code == 200

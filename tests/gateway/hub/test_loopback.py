"""The loopback hub as the real client sees it: were it another, the other tests would show nothing."""

from pathlib import Path

import pytest
from huggingface_hub import HfApi, get_hf_file_metadata, hf_hub_url
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError

from tests.hub import HubRepo, Made, hub


def test_lists_are_paged_filtered_and_sorted() -> None:
    repos = [HubRepo(f"org/m{n}", {"a.gguf": b"a"}, tags=["gguf"], downloads=n) for n in range(7)]
    with hub(*repos, HubRepo("org/m-other", {"a": b"a"})) as server:
        server.page_max = 2
        api = HfApi(endpoint=server.url, token=False)
        found = list(api.list_models(search="m", filter=["gguf"], sort="downloads", expand=["siblings", "downloads"]))
        assert [one.id for one in found] == [f"org/m{n}" for n in range(6, -1, -1)]
        assert found[0].siblings is not None
        assert len(server.requests) == 4
        assert [one.id for one in api.list_models(search="OTHER")] == ["org/m-other"]


def test_trees_references_and_paths() -> None:
    with hub(HubRepo("org/one", {"a.json": b"{}", "in/b.gguf": Made(2_000_000), "in/deep/c.txt": b"c"})) as server:
        api = HfApi(endpoint=server.url, token=False)
        commit = server.repos["org/one"].commits[0].id
        every = list(api.list_repo_tree("org/one", recursive=True, expand=True))
        assert [one.path for one in every] == ["a.json", "in", "in/b.gguf", "in/deep", "in/deep/c.txt"]
        assert [one.path for one in api.list_repo_tree("org/one", "in")] == ["in/b.gguf", "in/deep"]
        assert [(one.name, one.target_commit) for one in api.list_repo_refs("org/one").branches] == [("main", commit)]
        assert [one.path for one in api.get_paths_info("org/one", ["in/b.gguf", "none"])] == ["in/b.gguf"]


def test_files_are_described_and_handed_out(tmp_path: Path) -> None:
    with hub(HubRepo("org/one", {"a.json": b'{"a": 1}', "b.gguf": Made(100_000)})) as server:
        api = HfApi(endpoint=server.url, token=False)
        there = server.repos["org/one"]
        large = get_hf_file_metadata(hf_hub_url("org/one", "b.gguf", endpoint=server.url), token=False)
        assert (large.etag, large.size) == (there.files["b.gguf"].sha256, 100_000)
        assert large.commit_hash == there.commits[0].id
        for name in ("a.json", "b.gguf"):
            path = api.hf_hub_download("org/one", name, cache_dir=tmp_path)
            file = there.files[name]
            assert Path(path).read_bytes() == file.content.read(0, file.size)
        assert server.asked(cdn=True)


def test_refusals_are_the_real_ones() -> None:
    gated = HubRepo("org/gated", {"a": b"a"}, gated="auto", readers=["me"])
    private = HubRepo("org/private", {"a": b"a"}, private=True, readers=["me"])
    with hub(gated, private) as server:
        server.tokens |= {"hf_me": "me", "hf_you": "you"}
        for token, status in ((False, 401), ("hf_you", 403)):
            api = HfApi(endpoint=server.url, token=token)
            with pytest.raises(GatedRepoError) as refused:
                api.auth_check("org/gated")
            assert refused.value.response.status_code == status
            assert api.model_info("org/gated").gated == "auto"
            with pytest.raises(RepositoryNotFoundError) as hidden:
                api.model_info("org/private")
            assert hidden.value.response.status_code == (401 if token is False else 404)
        mine = HfApi(endpoint=server.url, token="hf_me")
        mine.auth_check("org/gated")
        assert mine.whoami()["name"] == "me"
        with pytest.raises(RevisionNotFoundError):
            mine.model_info("org/private", revision="none")
        with pytest.raises(HfHubHTTPError, match="Invalid credentials"):
            HfApi(endpoint=server.url, token="hf_no").model_info("org/gated")

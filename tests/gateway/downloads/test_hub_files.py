"""The loopback hub hands files out so that the real library takes them: what is tried against it says something."""

from pathlib import Path

import pytest
from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
from huggingface_hub.errors import EntryNotFoundError, GatedRepoError

from tests.gateway.downloads.fetching import LARGE, MIB, REPO, SMALL, TOKEN, contents, repository
from tests.hub import hub


@pytest.mark.parametrize("path", [LARGE, SMALL])
def test_the_real_library_downloads_from_it(tmp_path: Path, path: str) -> None:
    with hub(repository()) as server:
        file = server.repos[REPO].files[path]
        told = get_hf_file_metadata(hf_hub_url(REPO, path, endpoint=server.url), token=False)
        assert (told.commit_hash, told.etag, told.size) == (server.repos[REPO].commits[-1].id, file.etag, file.size)
        got = hf_hub_download(REPO, path, cache_dir=tmp_path, endpoint=server.url, token=False)
        assert Path(got).read_bytes() == contents(server, path)


def test_the_real_library_is_refused_as_by_the_real_hub(tmp_path: Path) -> None:
    with hub(repository(MIB, gated="auto", readers={"reader"})) as server:
        server.tokens[TOKEN] = "reader"
        with pytest.raises(GatedRepoError):
            get_hf_file_metadata(hf_hub_url(REPO, LARGE, endpoint=server.url), token=False)
        with pytest.raises(EntryNotFoundError):
            get_hf_file_metadata(hf_hub_url(REPO, "nothing", endpoint=server.url), token=TOKEN)
        assert get_hf_file_metadata(hf_hub_url(REPO, LARGE, endpoint=server.url), token=TOKEN).size == MIB

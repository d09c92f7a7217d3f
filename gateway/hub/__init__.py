"""The hub whence models come: what repositories there are, and what is in them.

Asked through `huggingface_hub`, in threads; bytes of models are fetched by `gateway.downloads`.
"""

from gateway.hub.repo import Repo
from gateway.settings import Hub as Settings


class Hub:
    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    @property
    def endpoint(self) -> str:
        """Without a slash at the end."""
        raise NotImplementedError

    @property
    def token(self) -> str | None:
        raise NotImplementedError

    async def repo(self, id_: str, revision: str | None = None) -> Repo:
        """A repository with its files, at one commit.  revision: a branch, tag or commit; None is the main branch.

        Raises GatedRepo with the licence's URL, NotFound, Unreachable, BadResponse, TimedOut or RateLimited.
        """
        raise NotImplementedError

    async def contents(self, repo: Repo, path: str, *, most_bytes: int = 1 << 20) -> bytes:
        """A small file of it: a card, a config.json.  Raises as `repo` does."""
        raise NotImplementedError

    def url(self, repo: str, commit: str, path: str) -> str:
        """Where the bytes of a file are to be asked for: `{endpoint}/{repo}/resolve/{commit}/{path}`, quoted."""
        raise NotImplementedError

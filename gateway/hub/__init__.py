"""The hub whence models come: what repositories there are, and what is in them.

Asked through `huggingface_hub`, in threads, within a deadline, without its caches, retries and telemetry; bytes of
models are fetched by `gateway.downloads`.  The token is the configured one and is sent to the endpoint alone.
"""

import asyncio
import os
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import parse_qs, quote, urlsplit

import msgspec
from msgspec.structs import replace

from compat.canonical.error import BadResponse, GatewayError, NotFound, TimedOut
from gateway.hub import card, failures, session
from gateway.hub.folder import documents_of
from gateway.hub.reading import repo_of
from gateway.hub.repo import Repo, check_id, check_revision
from gateway.hub.threads import Threads
from gateway.settings import Hub as Settings

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import ModelInfo

DEADLINE_S = 15.0
"""For all that one question takes."""
CARD_S = 5.0
FRESH_S = 60.0
"""How long what is known of a repository is good for."""
KEPT = 256
THREADS = 8
DOCUMENTS_AT_ONCE = 4
_DEFAULT = "https://huggingface.co"
_AGENT = "pluggably"
T = TypeVar("T")


class Hub:
    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._threads = Threads(THREADS)
        self._known: dict[tuple[str, str, bool], tuple[float, Repo]] = {}

    @property
    def endpoint(self) -> str:
        """Without a slash at the end."""
        return (self.settings.endpoint or os.environ.get("HF_ENDPOINT") or _DEFAULT).strip().rstrip("/")

    @property
    def token(self) -> str | None:
        return (self.settings.token or os.environ.get("HF_TOKEN") or "").strip() or None

    async def repo(self, id_: str, revision: str | None = None, *, fresh: bool = False) -> Repo:
        """A repository with its files, at one commit, that may be downloaded from.

        revision: a branch, tag or commit; None is the main branch.  fresh: not what was known a minute ago.
        Raises GatedRepo with the licence's URL, NotFound, Unreachable, BadResponse, TimedOut or RateLimited.
        """
        async with _within(DEADLINE_S):
            repo = await self.described(id_, revision, fresh=fresh)
            if repo.gated:
                await self._ask(lambda api: _check(api, id_), id_, revision)
            if wanted := documents_of(repo):
                repo = replace(repo, documents=await self._documents(repo, wanted))
            return repo

    async def described(
        self, id_: str, revision: str | None = None, *, fresh: bool = False, within_s: float | None = None
    ) -> Repo:
        """The same without its documents, and whether or not its licence was accepted: for listing it.

        within_s: sooner than the deadline.
        """
        check_id(id_)
        if revision is not None:
            check_revision(revision)
        key = (id_, revision or "", self.token is not None)
        known = self._known.get(key)
        if known is not None and not fresh and time.monotonic() - known[0] < FRESH_S:
            return known[1]

        def look(api: "HfApi") -> Repo:
            return repo_of(api.model_info(id_, revision=revision, files_metadata=True), revision, self.endpoint)

        async with _within(within_s or DEADLINE_S):
            repo = await self._ask(look, id_, revision, within_s=within_s)
        self._known.pop(key, None)
        self._known[key] = time.monotonic(), repo
        while len(self._known) > KEPT:
            del self._known[next(iter(self._known))]
        return repo

    async def contents(
        self, repo: Repo, path: str, *, most_bytes: int = 1 << 20, within_s: float | None = None
    ) -> bytes:
        """A small file of it: a card, a config.json.  Raises as `repo` does."""
        known = next((file for file in repo.files if file.path == path), None)
        if known is None:
            raise NotFound(f"The repository '{repo.id}' has no file '{path[:100]}'.", param="file")
        if known.size_bytes > most_bytes:
            raise BadResponse(f"The file '{path[:100]}' of '{repo.id}' is too large to be what its name says.")
        address = self.url(repo.id, repo.commit, path)

        def fetch(api: "HfApi") -> bytes:
            from huggingface_hub.utils._http import get_session, hf_raise_for_status

            response = get_session().get(address, headers=_headers(api))
            hf_raise_for_status(response)
            return bytes(response.content)

        async with _within(DEADLINE_S):
            return await self._ask(fetch, repo.id, repo.revision, most_bytes, within_s=within_s)

    async def listed(self, query: Mapping[str, Any]) -> tuple[list["ModelInfo"], str | None]:
        """A page of the hub's list of models, and its cursor for the next one.  Raises as `repo` does."""

        def look(api: "HfApi") -> tuple[list["ModelInfo"], str | None]:
            from huggingface_hub.hf_api import ModelInfo
            from huggingface_hub.utils._http import get_session, hf_raise_for_status

            # As `list_models` asks, which has no parameter for where to go on.
            response = get_session().get(f"{self.endpoint}/api/models", params=dict(query), headers=_headers(api))
            hf_raise_for_status(response)
            # Only the cursor of the address is taken: what asks next is asked of the endpoint.
            following = parse_qs(urlsplit(response.links.get("next", {}).get("url", "")).query)
            rows = [ModelInfo(**row) for row in response.json()]  # type: ignore[no-untyped-call]
            return rows, following.get("cursor", [None])[0]

        async with _within(DEADLINE_S):
            return await self._ask(look)

    async def enrich(self, repo: Repo) -> Repo:
        """The repository with what its card says of it, where it says it and can be had soon; never raises."""
        path = next((file.path for file in repo.files if file.path.lower() == "readme.md"), None)
        if path is None:
            return repo
        try:
            async with asyncio.timeout(CARD_S):
                text = await self.contents(repo, path, most_bytes=card.BYTES_MAX, within_s=CARD_S)
        except (GatewayError, TimeoutError):
            return repo
        said = await asyncio.to_thread(card.read, text)
        return replace(
            repo,
            summary=repo.summary or said.summary,
            license=repo.license or said.license,
            tags=repo.tags or said.tags,
        )

    def url(self, repo: str, commit: str, path: str) -> str:
        """Where the bytes of a file are to be asked for: `{endpoint}/{repo}/resolve/{commit}/{path}`, quoted."""
        return f"{self.endpoint}/{quote(repo)}/resolve/{quote(commit, safe='')}/{quote(path)}"

    async def _documents(self, repo: Repo, wanted: tuple[str, ...]) -> dict[str, Any]:
        gate = asyncio.Semaphore(DOCUMENTS_AT_ONCE)

        async def one(path: str) -> Any:
            async with gate:
                text = await self.contents(repo, path)
            try:
                return await asyncio.to_thread(msgspec.json.decode, text, type=dict[str, Any])
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                return None

        tasks = [asyncio.create_task(one(path)) for path in wanted]
        try:
            read = await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
        return dict(zip(wanted, read, strict=True))

    async def _ask(
        self,
        question: Callable[["HfApi"], T],
        repo: str | None = None,
        revision: str | None = None,
        most_bytes: int = session.BYTES_MAX,
        *,
        within_s: float | None = None,
    ) -> T:
        """What the hub answers, in a thread.  Raises GatewayError."""
        endpoint, token = self.endpoint, self.token
        ends = time.monotonic() + (within_s or DEADLINE_S)

        def ask() -> T:
            try:
                with session.bounded(ends, most_bytes):
                    from huggingface_hub import HfApi

                    # False, for None would have it look for a token in the user's home.
                    headers = {"user-agent": _AGENT, "accept-encoding": "identity"}
                    return question(HfApi(endpoint=endpoint, token=token or False, headers=headers))
            except Exception as e:
                raise failures.told(
                    e, endpoint=endpoint, repo=repo, revision=revision, has_token=token is not None
                ) from e

        return await self._threads.run(ask)


def _check(api: "HfApi", id_: str) -> None:
    """Raises what the library raises where the licence was not accepted."""
    from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError

    try:
        api.auth_check(id_)
    except RepositoryNotFoundError:
        raise
    except HfHubHTTPError as e:
        # A mirror need not know the question; its files will say.
        if e.response is None or e.response.status_code not in (404, 405, 501):
            raise


def _headers(api: "HfApi") -> dict[str, str]:
    from huggingface_hub.utils._headers import build_hf_headers

    return build_hf_headers(token=api.token, headers=api.headers)


@asynccontextmanager
async def _within(seconds: float) -> AsyncGenerator[None, None]:
    """A deadline around a block, whose end is our error."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise TimedOut("The model hub does not answer in time.") from None

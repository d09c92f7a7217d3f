"""The hub whence models come: what repositories there are, and what is in them.

Asked through `huggingface_hub`, in threads, within a deadline, without its caches, retries and telemetry; bytes of
models are fetched by `gateway.downloads`.  The token is the configured one and is sent to the endpoint alone.
"""

import asyncio
import os
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import parse_qs, quote, urlsplit

import msgspec
from msgspec.structs import replace

from compat.canonical.error import BadResponse, GatewayError, NotFound, TimedOut
from gateway.hub import card, failures, questions, session
from gateway.hub.folder import documents_of
from gateway.hub.reading import info_of, is_large, repo_of
from gateway.hub.repo import Repo, RepoFile, check_id, check_revision
from gateway.hub.threads import Threads
from gateway.keeping import Hub as Settings

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
MEASURED_AT_ONCE = 4
MEASURED_MAX = 64
"""Files that are measured before one of them is chosen."""
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
            if repo.gated or repo.private:
                await self._check(repo)
            repo = await self._sized(repo)
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
            found = repo_of(info_of(questions.described(api, id_, revision)), revision, self.endpoint)
            if found.files and all(file.sized for file in found.files):
                return found
            listed = questions.tree(api, id_, found.commit)
            if not found.files:
                return replace(found, files=tuple(listed.values()))
            return replace(found, files=tuple(_fuller(file, listed.get(file.path)) for file in found.files))

        async with _within(within_s or DEADLINE_S):
            repo = await self._ask(look, id_, revision, within_s=within_s)
        self._known.pop(key, None)
        self._known[key] = time.monotonic(), repo
        while len(self._known) > KEPT:
            del self._known[next(iter(self._known))]
        return repo

    async def measured(self, repo: Repo, files: tuple[RepoFile, ...]) -> tuple[RepoFile, ...]:
        """The files with their sizes and, where the hub tells it, a hash; those that have both are not asked about.

        Raises as `repo` does, and BadResponse where the hub does not tell a size.
        """
        found = tuple(await self._measured(repo, files))
        if unknown := next((file for file in found if not file.sized), None):
            raise BadResponse(f"The model hub does not say how large '{unknown.path[:100]}' of '{repo.id}' is.")
        return found

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
            return bytes(questions.get(api, address).content)

        async with _within(DEADLINE_S):
            return await self._ask(fetch, repo.id, repo.revision, most_bytes, within_s=within_s)

    async def listed(self, query: Mapping[str, Any]) -> tuple[list["ModelInfo"], str | None]:
        """A page of the hub's list of models, and its cursor for the next one.  Raises as `repo` does."""

        def look(api: "HfApi") -> tuple[list["ModelInfo"], str | None]:
            # As `list_models` asks, which has no parameter for where to go on.
            response = questions.get(api, f"{self.endpoint}/api/models", dict(query))
            # Only the cursor of the address is taken: what asks next is asked of the endpoint.
            following = parse_qs(urlsplit(response.links.get("next", {}).get("url", "")).query)
            return [info_of(row) for row in response.json()], following.get("cursor", [None])[0]

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

    async def _check(self, repo: Repo) -> None:
        """Raises GatedRepo where its files are not for us."""
        withheld = failures.gated(self.endpoint, repo.id, has_token=self.token is not None)
        try:
            if await self._ask(lambda api: questions.may_read(api, repo.id), repo.id, repo.revision):
                return
        except NotFound as e:
            raise withheld from e  # it was described a moment ago
        # A mirror need not know the question; its files do.  Cards are for everybody.
        files = [file for file in repo.files if not file.path.startswith(".") and not file.path.endswith(".md")]
        if not files:
            return
        try:
            await self._measure(repo, max(files, key=lambda file: (is_large(file), file.size_bytes)))
        except NotFound as e:
            if repo.private:
                raise withheld from e
        except BadResponse:
            return  # it does not know HEAD either: the download will say

    async def _sized(self, repo: Repo) -> Repo:
        """With the sizes of its GGUF files, by which one is chosen, as far as they can be had."""
        wanted = [file for file in repo.files if not file.sized and file.path.lower().endswith(".gguf")]
        if not wanted or len(wanted) > MEASURED_MAX:
            return repo
        found = {file.path: file for file in await self._measured(repo, tuple(wanted), lenient=True)}
        return replace(repo, files=tuple(found.get(file.path, file) for file in repo.files))

    async def _measured(self, repo: Repo, files: tuple[RepoFile, ...], *, lenient: bool = False) -> list[RepoFile]:
        """lenient: a file that is not there is as it was."""
        gate = asyncio.Semaphore(MEASURED_AT_ONCE)

        async def one(file: RepoFile) -> RepoFile:
            if file.sized and (file.sha256 or file.blob):
                return file
            async with gate:
                try:
                    return await self._measure(repo, file)
                except (NotFound, BadResponse):
                    # What its list says is enough, if need be.
                    if not lenient and not file.sized:
                        raise
                    return file

        async with _within(DEADLINE_S):
            return await _all([one(file) for file in files])

    async def _measure(self, repo: Repo, file: RepoFile) -> RepoFile:
        address = self.url(repo.id, repo.commit, file.path)
        return await self._ask(lambda api: questions.measured(api, address, file), repo.id, repo.revision)

    async def _documents(self, repo: Repo, wanted: tuple[str, ...]) -> dict[str, Any]:
        gate = asyncio.Semaphore(DOCUMENTS_AT_ONCE)

        async def one(path: str) -> Any:
            async with gate:
                text = await self.contents(repo, path)
            try:
                return await asyncio.to_thread(msgspec.json.decode, text, type=dict[str, Any])
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                return None

        return dict(zip(wanted, await _all([one(path) for path in wanted]), strict=True))

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


def _fuller(file: RepoFile, other: RepoFile | None) -> RepoFile:
    """The file with what only the other knows of it."""
    if other is None:
        return file
    size = file if file.sized else other
    hashed = file if file.sha256 or file.blob else other
    return replace(file, size_bytes=size.size_bytes, sized=size.sized, sha256=hashed.sha256, blob=hashed.blob)


async def _all(coroutines: list[Coroutine[Any, Any, T]]) -> list[T]:
    """What they return, in order; the first error ends the others."""
    tasks = [asyncio.create_task(one) for one in coroutines]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()


@asynccontextmanager
async def _within(seconds: float) -> AsyncGenerator[None, None]:
    """A deadline around a block, whose end is our error."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise TimedOut("The model hub does not answer in time.") from None

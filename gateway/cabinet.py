"""What requests leave behind: artifacts, sessions and kept answers.  Open while the application runs."""

import asyncio
from typing import TYPE_CHECKING

from gateway.answers import Answers
from gateway.artifacts import Artifacts
from gateway.artifacts.signing import Signer
from gateway.artifacts.store import Store
from gateway.fetching import Fetcher
from gateway.secrets import OwnSecrets
from gateway.sessions import Sessions
from gateway.settings import Config

if TYPE_CHECKING:
    from gateway.archive import Archive
    from gateway.house import House


class Cabinet:
    def __init__(self, house: "House", archive: "Archive", own: OwnSecrets) -> None:
        config = house.estate.config
        self._watching: list[asyncio.Task[None]] = []
        signer = Signer([own.signing_key, *(key.encode() for key in config.artifacts.old_signing_keys)])
        self.artifacts = Artifacts(house, archive.artifact_rows, Store(config.artifacts, config.data_dir), signer)
        self.sessions = Sessions(house, archive.session_rows, archive.turns)
        self.answers = Answers(house, archive.answer_rows)
        self.fetcher = Fetcher(config.fetch)

    def adopt(self, config: Config) -> None:
        """Go by another configuration from now on; where artifacts are stays until the next start."""
        self.fetcher.settings = config.fetch

    async def open(self) -> None:
        """Begin to look after what is here."""
        await self.answers.open()
        await self.sessions.open()
        self._watching = [asyncio.create_task(one.watch()) for one in (self.artifacts, self.sessions, self.answers)]

    async def aclose(self) -> None:
        for task in self._watching:
            task.cancel()
        await asyncio.gather(*self._watching, return_exceptions=True)
        await self.answers.aclose()
        await self.sessions.aclose()

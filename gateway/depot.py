"""What brings models here and takes them away again: the hub, downloads, and the room they have.

Open while the application runs.
"""

import asyncio
from typing import TYPE_CHECKING

from gateway.downloads import KIND, Downloads
from gateway.hub import Hub
from gateway.jobs import Jobs
from gateway.settings import Config
from gateway.storage import Storage

if TYPE_CHECKING:
    from gateway.archive import Archive
    from gateway.house import House


class Depot:
    def __init__(self, house: "House", archive: "Archive") -> None:
        self._house = house
        self._watching: list[asyncio.Task[None]] = []
        self.hub = Hub(house.estate.config.hub)
        self.storage = Storage(house, house.entries)
        self.downloads = Downloads(house, self.hub, self.storage, house.entries)
        self.jobs = self.downloads.jobs = Jobs(
            archive.job_rows, archive.queue, {KIND: self.downloads.work}, {KIND: self.downloads.settled}
        )

    def adopt(self, config: Config) -> None:
        """Go by another configuration from now on, in what has begun as well."""
        self.hub.settings = config.hub
        self.downloads.adopt()
        self.jobs.resize(config.hub.downloads)

    async def open(self) -> None:
        """Go on with what was begun before, and begin to look after what is here."""
        await self.jobs.open(at_once=self._house.estate.config.hub.downloads)
        self._watching = [asyncio.create_task(one.watch()) for one in (self.storage, self.downloads)]

    async def aclose(self) -> None:
        for task in self._watching:
            task.cancel()
        await asyncio.gather(*self._watching, return_exceptions=True)
        await self.downloads.aclose()
        await self.jobs.aclose()

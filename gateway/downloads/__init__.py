"""Downloads: what to fetch is planned while the client waits, and fetched by a job, which registers the model."""

from typing import TYPE_CHECKING, Any

from gateway.hub import Hub
from gateway.hub.choice import Wanted
from gateway.jobs.job import Job, Report
from gateway.registry.entries import Entries
from gateway.storage import Storage

if TYPE_CHECKING:
    from gateway.house import House
    from gateway.jobs import Jobs

KIND = "download"


class Downloads:
    def __init__(self, house: "House", hub: Hub, storage: Storage, entries: Entries) -> None:
        self._house = house
        self._hub = hub
        self._storage = storage
        self._entries = entries
        self.jobs: Jobs
        """Lent when they are there: they need `work`."""

    async def begin(
        self,
        wanted: Wanted,
        *,
        tenant: str,
        owner: str,
        name: str | None = None,
        backend: str | None = None,
        priority: int = 0,
    ) -> tuple[Job, bool]:
        """Plan a download and have it done; the job, and whether it is new.  Raises what planning meets with."""
        raise NotImplementedError

    async def work(self, job: Job, report: Report) -> dict[str, Any]:
        """Do a download: a `Work`."""
        raise NotImplementedError

    async def update(self, id_: str, *, tenant: str, owner: str) -> Job | None:
        """Fetch a newer revision of a model beside the one that is here; None: there is none."""
        raise NotImplementedError

    async def roll_back(self, id_: str, commit: str | None = None) -> None:
        """Serve another of the versions that are on the disk; None is the one before."""
        raise NotImplementedError

    async def watch(self) -> None:
        """Look for newer revisions now and then, until cancelled."""

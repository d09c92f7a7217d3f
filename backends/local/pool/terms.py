"""What a pool goes by: its models, how they are run, and what they may take."""

from collections.abc import Callable, Hashable, Mapping

from msgspec import Struct

from backends.local.planning import Plan
from backends.local.pool.keeper import Build, Planned
from backends.local.pool.scheduler import Room
from backends.local.pool.seat import Seat
from backends.ports import Local, Reckoning


class Terms(Struct, frozen=True, kw_only=True):
    """A configuration's, replaced in whole by those of the next."""

    catalogue: Callable[[], Mapping[str, Local]]
    """The models there are, by name."""
    planned: Planned
    """How a model is run on a rung of the ladder; None: there is no such rung."""
    glance: Callable[[Local, Plan], Hashable] | None
    """Looks whether the model can be run at all, off the event loop, and says how its files are.  Raises Failed."""
    build: Build
    limits: Room
    queue_max: int
    """How many may wait for one model."""
    idle_unload_s: Callable[[str], float]
    pinned: frozenset[str]
    hang_s: float
    reckoning: Reckoning | None
    available: Callable[[], int]
    """The bytes that the machine has free now."""

    def seat(self, local: Local) -> Seat:
        """An empty one."""
        return Seat(local, pinned=local.name in self.pinned, idle_unload_s=self.idle_unload_s(local.name))

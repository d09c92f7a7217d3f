"""Every scene by its name."""

from collections.abc import Awaitable, Callable
from functools import partial

import uvloop

from tests.load import crowds, endings, soak
from tests.load.plan import Size
from tests.load.result import Progress, Result
from tests.load.stage import Stage

Play = Callable[[Stage, Progress, Size], Awaitable[Result]]


def scenes(command: str, size: Size) -> dict[str, Play]:
    """Each plays before a gateway of its own."""
    load: dict[str, Play] = {f"streams-{count}": partial(crowds.streams, count=count) for count in size.streams}
    load |= {"stalled": crowds.stalled_readers, "slow": crowds.slow_headers}
    lasting: dict[str, Play] = {
        "soak": soak.soak,
        "failing": soak.failing_provider,
        "departures": endings.departures,
        "stopping": endings.stopping,
    }
    return {"load": load, "soak": lasting, "all": load | lasting}[command]


def play(scene: Play, here: Stage, say: Progress, size: Size) -> Result:
    async def run() -> Result:
        return await scene(here, say, size)

    return uvloop.run(run())

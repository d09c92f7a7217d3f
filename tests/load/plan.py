"""How large the scenes are: in full, and small enough for `make test`."""

from msgspec import Struct


class Size(Struct, frozen=True, kw_only=True):
    streams: tuple[int, ...]
    """Streams at once, one scene for each."""
    stream_events: int
    stream_pause_s: float
    stalled: int
    stalled_s: float
    flood_pause_s: float
    """Between events of 20 kB for a reader that does not read: how soon the sockets between are full."""
    write_timeout_s: float
    """The gateway's, within which it gives such a reader up; well below `stalled_s`."""
    slow: int
    slow_s: float
    header_timeout_s: float
    """The gateway's, for a request that is not said in full; well below `slow_s`."""
    soak_s: float
    soak_rate: float = 30.0
    soak_streams: int = 30
    fault_share: float = 0.05
    failing_s: float
    departures: int
    stops: int
    slack: float = 1.0
    """By how much bounds of memory are widened, where few connections share what is fixed; counts never are."""
    patience: float = 1.0
    """By how much bounds of time are widened: of few samples the slowest counts, on whatever machine."""


FULL = Size(
    # SDKs' pools end at 1,000 connections.
    streams=(1000, 1200),
    stream_events=60,
    stream_pause_s=1.0,
    stalled=200,
    stalled_s=30.0,
    flood_pause_s=0.05,
    write_timeout_s=8.0,
    slow=500,
    slow_s=30.0,
    header_timeout_s=15.0,
    soak_s=600.0,
    failing_s=60.0,
    departures=500,
    stops=50,
)
QUICK = Size(
    streams=(100,),
    stream_events=15,
    stream_pause_s=0.2,
    stalled=20,
    stalled_s=4.5,
    flood_pause_s=0.005,
    write_timeout_s=1.0,
    slow=50,
    slow_s=3.5,
    header_timeout_s=1.0,
    soak_s=5.0,
    failing_s=3.0,
    departures=60,
    stops=1,
    slack=4.0,
    patience=15.0,
)

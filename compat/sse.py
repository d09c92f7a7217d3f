"""Server-sent events: bytes to whole events, and back.

Source: https://html.spec.whatwg.org/multipage/server-sent-events.html.  Line ends come out as LF,
whatever they were; JSON has no raw line ends, so nothing is lost.
"""

EVENT_MAX_BYTES = 32 * 1024 * 1024
"""The largest single event let through: a picture in base64 fits, a flood does not."""

DONE = b"data: [DONE]\n\n"
KEEP_ALIVE = b": keep-alive\n\n"


class TooLong(Exception):
    """An event grew beyond its limit."""


class Cutter:
    """Cuts a stream of bytes, however it arrives, at event boundaries."""

    def __init__(self, limit: int = EVENT_MAX_BYTES) -> None:
        self._limit = limit
        self._rest: list[bytes] = []
        """Pieces of the event that is not whole yet: one growing buffer would be copied again and again."""
        self._size = 0
        self._after_cr = False

    def feed(self, data: bytes) -> bytes:
        """Take what arrived and return the events that are whole now: none, one or several.

        Raises TooLong.
        """
        if self._after_cr or b"\r" in data:
            data = self._with_lf(data)
        end = data.rfind(b"\n\n") + 2
        if end == 1:  # not found; the boundary may lie across the seam
            end = 1 if self._rest and data.startswith(b"\n") and self._rest[-1].endswith(b"\n") else 0
        if not self._rest:
            if end == len(data):
                return data
            if end:
                self._keep(data[end:])
                return data[:end]
        elif end:
            whole = b"".join((*self._rest, data[:end]))
            self._rest.clear()
            self._size = 0
            self._keep(data[end:])
            return whole
        self._keep(data)
        return b""

    def flush(self) -> bytes:
        """The end has come: what is left, made an event if it has a line."""
        rest = b"".join(self._rest).strip(b"\n")
        self._rest.clear()
        self._size = 0
        return rest + b"\n\n" if rest else b""

    def _keep(self, data: bytes) -> None:
        if data:
            self._rest.append(data)
            self._size += len(data)
            if self._size > self._limit:
                raise TooLong

    def _with_lf(self, data: bytes) -> bytes:
        if self._after_cr and data.startswith(b"\n"):
            data = data[1:]
        self._after_cr = data.endswith(b"\r")
        return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


def split(events: bytes) -> list[bytes]:
    """Whole events, one each, without their separators."""
    return [event for event in events.split(b"\n\n") if event.strip(b"\n")]


def data_of(event: bytes) -> bytes:
    """The event's data: its `data:` lines joined; empty for a comment."""
    if event.startswith(b"data: ") and b"\n" not in event:
        return event[6:]
    lines = []
    for line in event.split(b"\n"):
        if line.startswith(b"data:"):
            lines.append(line[6:] if line.startswith(b"data: ") else line[5:])
    return b"\n".join(lines)


def name_of(event: bytes) -> str:
    """The event's type: its `event:` line, else "message"."""
    for line in event.split(b"\n"):
        if line.startswith(b"event:"):
            return line[6:].strip().decode("utf-8", "replace")
    return "message"


def frame(data: bytes, name: str | None = None) -> bytes:
    """One event as bytes; `data` has no line ends (JSON never has)."""
    if name is None:
        return b"data: " + data + b"\n\n"
    return b"event: " + name.encode() + b"\ndata: " + data + b"\n\n"

"""The HTTP under `huggingface_hub`, which by itself waits for ever and reads whatever comes.

What it may take, in seconds and bytes, is said by whoever asks, around the question; a question that is asked of the
library outside of that is not bounded.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any

BYTES_MAX = 32 << 20
"""Of an answer; the longest lists of files are a few MiB."""
PACKED_MAX = 128 << 10
"""Of one that is packed though it was asked for plain, and could be a thousand times as long."""
_PACKINGS = ("gzip", "deflate")
"""Others could be a million times as long."""
_preparing = threading.Lock()
_ends: ContextVar[float | None] = ContextVar("hub_ends", default=None)
_most: ContextVar[int] = ContextVar("hub_most", default=BYTES_MAX)


@contextmanager
def bounded(ends: float, most_bytes: int = BYTES_MAX) -> Iterator[None]:
    """ends: by time.monotonic."""
    with _preparing:
        _prepare()
    told, most = _ends.set(ends), _most.set(most_bytes)
    try:
        yield
    finally:
        _ends.reset(told)
        _most.reset(most)


@cache
def _prepare() -> None:
    """Have the library use our client; it has one for the whole process."""
    import httpx2
    from huggingface_hub import constants, set_client_factory
    from huggingface_hub.utils._http import hf_request_event_hook

    # Else the first headers it writes make it ask huggingface.co, whatever mirror is configured, which coding agents
    # there are.
    constants.HF_HUB_DISABLE_TELEMETRY = True

    class Counted(httpx2.SyncByteStream):
        """An answer's body, up to the bounds."""

        def __init__(self, stream: Any, most: int) -> None:
            self._stream = stream
            self._most = most

        def __iter__(self) -> Iterator[bytes]:
            seen, ends = 0, _ends.get()
            for piece in self._stream:
                seen += len(piece)
                if seen > self._most:
                    raise httpx2.DecodingError("the answer is too long")
                if ends is not None and time.monotonic() > ends:
                    raise httpx2.ReadTimeout("the answer takes too long")
                yield piece

        def close(self) -> None:
            self._stream.close()

    def begin(request: httpx2.Request) -> None:
        hf_request_event_hook(request)
        if (ends := _ends.get()) is not None:
            left = ends - time.monotonic()
            if left <= 0:
                raise httpx2.ConnectTimeout("no time is left")
            request.extensions["timeout"] = dict.fromkeys(("connect", "read", "write", "pool"), left)

    def bound(response: httpx2.Response) -> None:
        packing = response.headers.get("content-encoding", "identity").strip().lower()
        if packing not in ("", "identity", *_PACKINGS):
            raise httpx2.DecodingError("the answer is packed in a way that was not asked for")
        response.stream = Counted(response.stream, PACKED_MAX if packing in _PACKINGS else _most.get())

    def client() -> httpx2.Client:
        return httpx2.Client(
            event_hooks={"request": [begin], "response": [bound]},
            follow_redirects=True,
            max_redirects=5,
            timeout=60.0,
            limits=httpx2.Limits(max_connections=32, max_keepalive_connections=4, keepalive_expiry=30.0),
        )

    set_client_factory(client)

"""Decompresses a body within bounds: a few bytes may unpack to any number."""

import zlib

MIN_BYTES = 1024 * 1024
MAX_RATIO = 100
"""A body may become this many times as large, or MIN_BYTES.  JSON becomes 5 to 20 times."""


class TooLong(Exception):
    """It unpacks to more than it may."""

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self.limit = limit


class Broken(Exception):
    """It is not one complete gzip or deflate stream."""


def inflated(body: bytes, limit: int) -> bytes:
    """What was compressed with gzip or deflate (it sees which).  Raises TooLong and Broken."""
    limit = min(limit, max(MIN_BYTES, MAX_RATIO * len(body)))
    inflater = zlib.decompressobj(zlib.MAX_WBITS | 32)
    try:
        plain = inflater.decompress(body, limit + 1)
    except zlib.error as e:
        raise Broken from e
    if len(plain) > limit:
        raise TooLong(limit)
    if not inflater.eof or inflater.unused_data:
        raise Broken
    return plain

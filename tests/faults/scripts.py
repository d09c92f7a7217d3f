"""How the fault provider fails: each script plays one exchange.

Where a script takes a count of words, these come first; a whole answer breaks off in the middle of its
body instead.  0 sends the head only.
"""

import asyncio
import zlib
from collections.abc import Iterator, Sequence

from tests.faults.dialects import CANARY, OTHER_TEXT, OTHER_TOKENS, TEXT
from tests.faults.exchange import JSON, SETTLE_S, SSE, Exchange, Script, forever

MEBIBYTE = 1024 * 1024


async def _whole(x: Exchange, tokens: Sequence[str]) -> None:
    if x.ask.streams:
        await x.head()
        for event in (*x.dialect.opening(), *map(x.dialect.word, tokens)):
            await x.piece(event)
        for event in (*x.dialect.closing(tokens), x.dialect.end()):
            await x.piece(event)
        await x.end()
    else:
        await x.answer(x.dialect.whole(tokens))


async def _begun(x: Exchange, count: int) -> None:
    """So many words, or half a body, in chunks that have not ended."""
    body = x.dialect.whole(x.ask.tokens())
    await x.head(media=SSE if x.ask.streams else JSON)
    if count and x.ask.streams:
        for event in (*x.dialect.opening(), *map(x.dialect.word, x.ask.tokens()[:count])):
            await x.piece(event)
    elif count:
        await x.piece(body[: len(body) // 2])


# --- Good answers, one way or another ---------------------------------------------------------------


async def ok(x: Exchange) -> None:
    """An answer that goes on from a prefill."""
    if x.ask.path.endswith("/messages") and x.ask.prefill != x.ask.prefill.rstrip():
        await x.answer(x.dialect.error("space"), "400 Bad Request")
    else:
        await _whole(x, x.ask.tokens())


async def noprefill(x: Exchange) -> None:
    """Refuses a conversation that ends with the assistant."""
    if x.ask.prefill:
        await x.answer(x.dialect.error("prefill"), "400 Bad Request")
    else:
        await _whole(x, x.ask.tokens())


async def restart(x: Exchange) -> None:
    """Begins anew, whatever was prefilled."""
    x.ask.prefill = ""
    await _whole(x, x.ask.tokens(TEXT))


async def other(x: Exchange) -> None:
    """Says something else than the rest of the providers, whatever was prefilled."""
    x.ask.prefill = ""
    await _whole(x, x.ask.tokens(OTHER_TEXT) or OTHER_TOKENS)


async def slow(x: Exchange, seconds: str) -> None:
    """The head comes late."""
    await asyncio.sleep(float(seconds))
    await ok(x)


async def late(x: Exchange, seconds: str) -> None:
    """The head comes at once, content late."""
    await x.head(media=SSE if x.ask.streams else JSON)
    await asyncio.sleep(float(seconds))
    tokens = x.ask.tokens()
    await x.piece(b"".join(_events(x, tokens)) if x.ask.streams else x.dialect.whole(tokens))
    await x.end()


async def trickle(x: Exchange, size: str = "32") -> None:
    """So many bytes at a time."""
    tokens = x.ask.tokens()
    data = b"".join(_events(x, tokens)) if x.ask.streams else x.dialect.whole(tokens)
    await x.head(media=SSE if x.ask.streams else JSON)
    for start in range(0, len(data), int(size)):
        await x.piece(data[start : start + int(size)])
        await asyncio.sleep(0.001)
    await x.end()


async def drip(x: Exchange, seconds: str) -> None:
    """A word, or a sixtieth of a body, at a time: never silent, never done in time."""
    tokens = x.ask.tokens()
    body = x.dialect.whole(tokens)
    step = len(body) // 60 + 1
    pieces = _events(x, tokens) if x.ask.streams else (body[n : n + step] for n in range(0, len(body), step))
    await x.head(media=SSE if x.ask.streams else JSON)
    for piece in pieces:
        await x.piece(piece)
        await asyncio.sleep(float(seconds))
    await x.end()


async def malformed(x: Exchange, count: str = "20") -> None:
    """An event in the middle that is no JSON."""
    events = list(_events(x, x.ask.tokens()))
    at = len(x.dialect.opening()) + int(count)
    await x.head()
    for event in (*events[:at], b'data: {"choices": [{"index": 0, "del\n\n', *events[at:]):
        await x.piece(event)
    await x.end()


async def nodone(x: Exchange, then: str = "end") -> None:
    """Everything but the last event; `open` then says no more."""
    await x.head()
    for event in list(_events(x, x.ask.tokens()))[:-1]:
        await x.piece(event)
    if then == "open":
        await forever()
    await x.end()


async def dup(x: Exchange) -> None:
    """The last event twice, and then one more word."""
    await x.head()
    for event in (*_events(x, x.ask.tokens()), x.dialect.end(), x.dialect.word(" again")):
        await x.piece(event)
    await x.end()


def _events(x: Exchange, tokens: Sequence[str]) -> Iterator[bytes]:
    yield from x.dialect.opening()
    yield from map(x.dialect.word, tokens)
    yield from x.dialect.closing(tokens)
    yield x.dialect.end()


# --- Refusals ---------------------------------------------------------------------------------------


async def status(x: Exchange, code: str, retry_after: str = "") -> None:
    headers = {"retry_after": retry_after} if retry_after else {}
    await x.answer(x.dialect.error(code), f"{code} Refused", **headers)


async def context(x: Exchange) -> None:
    await x.answer(x.dialect.error("context"), "400 Bad Request")


async def filtered(x: Exchange, shape: str = "filter") -> None:
    await x.answer(x.dialect.error(shape), "400 Bad Request")


async def redirect(x: Exchange) -> None:
    await x.answer(b"", "307 Temporary Redirect", location="/elsewhere" + x.ask.path)


# --- Connections that fail --------------------------------------------------------------------------


async def reset(x: Exchange) -> None:
    await x.reset()


async def hangup(x: Exchange) -> None:
    await x.close()


async def silence(x: Exchange) -> None:
    await forever()


async def stall(x: Exchange, count: str) -> None:
    """Words, then silence."""
    await _begun(x, int(count))
    await forever()


async def cut(x: Exchange, count: str) -> None:
    """Words, then the proper end of the response: nothing on the wire says that it is not complete."""
    await _begun(x, int(count))
    await x.end()


async def tear(x: Exchange, count: str) -> None:
    """Words, half an event and a closed connection."""
    await _begun(x, int(count))
    await x.piece(x.dialect.word(" torn")[:40])
    await x.close()


async def rst(x: Exchange, count: str) -> None:
    """Words, then a reset."""
    await _begun(x, int(count))
    await x.reset()


async def short(x: Exchange, count: str) -> None:
    """A body that ends before its Content-Length."""
    tokens = x.ask.tokens()
    body = b"".join(_events(x, tokens)) if x.ask.streams else x.dialect.whole(tokens)
    await x.head(media=SSE if x.ask.streams else JSON, content_length=str(len(body)))
    await x.raw(body[: len(body) * int(count) // 60])
    await x.close()


async def half(x: Exchange, count: str) -> None:
    """Words, then the connection is closed in one direction."""
    await _begun(x, int(count))
    await x.half_close()


async def badchunk(x: Exchange, count: str) -> None:
    """Words, then what is no chunk."""
    await _begun(x, int(count))
    await asyncio.sleep(SETTLE_S)
    await x.raw(b"not a length\r\nnot a chunk\r\n")
    x.broken = True
    await forever()


# --- Answers that are none --------------------------------------------------------------------------


async def html(x: Exchange) -> None:
    await x.answer(f"<html><body>{CANARY}</body></html>".encode(), media="text/html")


async def empty(x: Exchange) -> None:
    await x.answer(b"", media=SSE if x.ask.streams else JSON)


async def hollow(x: Exchange) -> None:
    """An answer of the right shape that has no content."""
    if not x.ask.streams:
        await x.answer(x.dialect.hollow())
        return
    await x.head()
    await x.piece(x.dialect.opening()[0])
    await x.end()


async def badjson(x: Exchange) -> None:
    if not x.ask.streams:
        await x.answer(x.dialect.whole(x.ask.tokens())[:-1])
        return
    await x.head()
    for event in _events(x, x.ask.tokens()):
        await x.piece(event.replace(b"{", b"[", 1))
    await x.end()


async def error(x: Exchange, count: str) -> None:
    """Words, then an error inside an answer of status 200; whole, the error only."""
    if not x.ask.streams:
        await x.answer(x.dialect.error("500"))
        return
    await _begun(x, int(count))
    await x.piece(x.dialect.error_event())
    await x.end()


async def wrongtype(x: Exchange) -> None:
    """A sound answer of another media type."""
    tokens = x.ask.tokens()
    await x.answer(b"".join(_events(x, tokens)) if x.ask.streams else x.dialect.whole(tokens), media="text/plain")


async def nofinish(x: Exchange) -> None:
    """All words and an end, but no reason for it."""
    await _begun(x, len(x.ask.tokens()))
    if not x.ask.path.endswith("/messages"):
        await x.piece(x.dialect.end())
    await x.end()


async def bomb(x: Exchange, mebibytes: str = "256") -> None:
    """A small body that is a large one once unpacked, although nobody asked for gzip."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    start = packer.compress(b"data: ") + packer.flush(zlib.Z_FULL_FLUSH)
    # After a full flush a block refers to nothing before it, so one does for all.
    block = packer.compress(b" " * MEBIBYTE) + packer.flush(zlib.Z_FULL_FLUSH)
    await x.head(media=SSE if x.ask.streams else JSON, content_encoding="gzip")
    await x.piece(start + block * int(mebibytes) + packer.flush())
    await x.end()


async def huge(x: Exchange, mebibytes: str) -> None:
    """A body of this size, or an event of half of it, which does not end."""
    await x.head(media=SSE if x.ask.streams else JSON)
    await x.piece(b'data: {"x":"' if x.ask.streams else b'{"x":"')
    for _ in range(int(mebibytes) // (2 if x.ask.streams else 1)):
        await x.piece(b"x" * MEBIBYTE)
    await forever()


async def bighead(x: Exchange) -> None:
    """A header of 64 KiB."""
    await x.answer(x.dialect.whole(x.ask.tokens()), vendor="x" * 65_536)


SCRIPTS: dict[str, Script] = {
    "filter": filtered,
    **{
        script.__name__: script
        for script in (
            ok, noprefill, restart, other, slow, late, trickle, drip, malformed, nodone, dup, context, redirect, reset,
            hangup, silence, stall, cut, tear, rst, short, half, badchunk, html, empty, hollow, badjson, error,
            wrongtype, nofinish, bomb, huge, bighead,
        )
    },
}  # fmt: skip


def script_of(fault: str) -> tuple[Script, list[str]] | None:
    """The script of `NAME:ARGUMENT:…`, where a number names a status, and its arguments."""
    name, *arguments = fault.split(":")
    if name.isdigit():
        return status, [name, *arguments]
    return (SCRIPTS[name], arguments) if name in SCRIPTS else None


def fault_of(spec: str, number: int, age_s: float) -> str:
    """What a request meets, by how many came before it and how old its model is.

    `A,B,C` plays one after another and stays with the last; `flap:BAD:GOOD[:FAULT…]` counts requests and
    `beat:GOOD:BAD[:FAULT…]` seconds, in turns; the fault is 500 unless named.
    """
    name, *arguments = spec.split(":")
    if name == "flap":
        bad, good = int(arguments[0]), int(arguments[1])
        return (":".join(arguments[2:]) or "500") if number % (bad + good) < bad else "ok"
    if name == "beat":
        good_s, bad_s = float(arguments[0]), float(arguments[1])
        return "ok" if age_s % (good_s + bad_s) < good_s else (":".join(arguments[2:]) or "500")
    steps = spec.split(",")
    return steps[min(number, len(steps) - 1)]

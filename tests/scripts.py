"""How a provider behaves, well and badly: each script plays one exchange."""

import asyncio
import json
from collections.abc import AsyncIterator

from compat.openai.fold import fold_chat
from tests import wire
from tests.exchange import Exchange, Script

BODY_CANARY = "provider-body-canary-5519"
"""Stands in the text of provider errors that nobody but the provider's operator should read."""


async def _frames(x: Exchange, frames: list[bytes], pause_s: float = 0.0) -> None:
    x.begin()
    for frame in frames:
        x.send(frame)
        await asyncio.sleep(pause_s)


async def tell(x: Exchange, frames: list[bytes], sent: list[bytes] | None = None) -> None:
    """Answer as asked: frame by frame, or with the body that they fold to.

    sent: what comes of the frames when they are streamed, where that is something else.
    """

    async def each() -> AsyncIterator[bytes]:
        for frame in frames:
            yield frame

    if not x.streams:
        x.answer(await fold_chat(each()))
        return
    await _frames(x, frames if sent is None else sent)
    x.end()


async def _begin(x: Exchange, words: int) -> None:
    """The head of an answer and so many words of it; of a whole one, half the body that has these words."""
    said = [f"word{n} " for n in range(words)]
    if x.streams:
        await _frames(x, [wire.opening(None), *(wire.word(word, None) for word in said)] if said else [])
        return
    x.begin("application/json")
    if said:
        body = wire.completion("".join(said))
        x.send(body[: len(body) // 2])


async def events(x: Exchange, count: str = "3", pause_s: str = "0") -> None:
    """So many words, with a pause before each next one; whole, the time they would have taken."""
    words = [f"word{n} " for n in range(int(count))]
    if not x.streams:
        await asyncio.sleep(len(words) * float(pause_s))
        x.answer(wire.completion("".join(words)))
        return
    await _frames(x, wire.stream(words, include_usage=x.wants_usage), float(pause_s))
    x.end()


async def tools(x: Exchange) -> None:
    await tell(x, wire.tool_call(x.wants_usage))


async def status(x: Exchange, code: str, *retry_after: str) -> None:
    headers = {"retry_after": ":".join(retry_after)} if retry_after else {}
    x.answer(wire.error(f"Refused. {BODY_CANARY}", "some_error"), f"{code} Refused", **headers)


async def quota(x: Exchange) -> None:
    x.answer(wire.error(f"You exceeded your quota {BODY_CANARY}", "insufficient_quota", "insufficient_quota"), "429 No")


async def context(x: Exchange) -> None:
    words = "This model's maximum context length is 8192 tokens."
    x.answer(wire.error(words, code="context_length_exceeded", param="messages"), "400 Bad Request")


async def html(x: Exchange) -> None:
    x.answer(f"<html><body>{BODY_CANARY}</body></html>".encode(), content_type="text/html")


async def error_in_200(x: Exchange) -> None:
    body = wire.error(f"upstream exploded {BODY_CANARY}", "server_error")
    if x.streams:
        x.begin()
        x.send(b"data: " + wire.dump(json.loads(body)) + b"\n\n")
        x.end()
    else:
        x.answer(body)


async def cut(x: Exchange, count: str = "0") -> None:
    """So many words, then the end of the response, without finish_reason or [DONE]."""
    await _begin(x, int(count))
    x.end()


async def tear(x: Exchange, count: str = "2") -> None:
    """So many words, then half an event and a closed connection."""
    await _begin(x, int(count))
    if x.streams:
        x.send(wire.word("torn", None)[:40])
    x.close()


async def reset(x: Exchange) -> None:
    x.reset()


async def silent(x: Exchange) -> None:
    await asyncio.Event().wait()


async def stall(x: Exchange, count: str = "1") -> None:
    """So many words, then silence; 0 sends the headers only."""
    await _begin(x, int(count))
    await silent(x)


async def redirect(x: Exchange) -> None:
    x.answer(b"", "307 Temporary Redirect", location="/v1/elsewhere")


async def crlf(x: Exchange) -> None:
    frames = wire.stream(["a", "b"], include_usage=x.wants_usage)
    await tell(x, frames, [frame.replace(b"\n", b"\r\n") for frame in frames])


async def malformed(x: Exchange) -> None:
    frames = wire.stream(["good ", "better"], include_usage=x.wants_usage)
    await tell(x, frames, [*frames[:2], b'data: {"choices": [{"index": 0, "del\n\n', *frames[2:]])


async def error_event(x: Exchange, count: str = "2") -> None:
    """So many words, then an error inside the stream; no words, where nothing is streamed."""
    words = [wire.word(f"word{n} ", None) for n in range(int(count))]
    body = {"error": {"message": f"The server had an error {BODY_CANARY}", "type": "server_error", "code": None}}
    if not x.streams:
        x.answer(wire.dump(body), "500 Internal Server Error")
        return
    await _frames(x, [wire.opening(None), *words, b"data: " + wire.dump(body) + b"\n\n"])
    x.end()


async def no_done(x: Exchange) -> None:
    await tell(x, wire.stream(["a", "b"], include_usage=x.wants_usage)[:-1])


async def usage_unasked(x: Exchange) -> None:
    """Usage on the chunk that finishes, whether asked for or not, as some providers send it."""
    await tell(x, [wire.opening(None), wire.word("a", None), wire.finish(usage=wire.dump(wire.USAGE)), wire.DONE])


SCRIPTS: dict[str, Script] = {
    "answer": events,
    wire.MODEL: events,
    **{
        s.__name__: s
        for s in (
            events, tools, status, quota, context, html, error_in_200, cut, tear, reset, silent, stall, redirect, crlf,
            malformed, error_event, no_done, usage_unasked,
        )
    },
}  # fmt: skip

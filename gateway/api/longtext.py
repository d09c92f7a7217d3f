"""Long texts of native answers: kept as artifacts as well, so that they can be handed on by URL."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

from compat.body import LARGE_BYTES
from compat.canonical.error import GatewayError
from compat.canonical.event import Event, Finished, Produced, TextDelta
from compat.canonical.message import Media, Stored
from gateway.api.generation import Context
from gateway.house import House
from gateway.telemetry.logging import logger

MIME = "text/plain; charset=utf-8"
_UTF8_MAX = 4
"""Bytes of a character."""


async def texts_kept(
    house: House, events: AsyncGenerator[Event, None], context: Context
) -> AsyncGenerator[Event, None]:
    """An answer's events and, before it finishes, its text as an artifact if it is long.  Closes them."""
    least = house.estate.config.artifacts.text_bytes
    pieces, length = list[str](), 0
    async with aclosing(events):
        async for event in events:
            if isinstance(event, TextDelta) and event.choice == 0:
                pieces.append(event.text)
                length += len(event.text)
            elif isinstance(event, Finished) and length * _UTF8_MAX >= least:
                text = "".join(pieces)
                data = text.encode() if length < LARGE_BYTES else await asyncio.to_thread(text.encode)
                if len(data) >= least and (media := await _kept(house, data, context)) is not None:
                    yield Produced(media=media)
                length = 0
            yield event


async def _kept(house: House, data: bytes, context: Context) -> Media | None:
    """None where it cannot be kept: the answer has the text all the same."""
    visit, artifacts = context.visit, house.cabinet.artifacts
    assert visit.grant is not None, "the guard lets nobody in without one"
    try:
        artifact = await artifacts.put(
            visit.grant, data, kind="text", mime=MIME, name="text.txt", request_id=visit.request_id
        )
    except GatewayError as e:
        logger().warning("text_not_kept", request_id=visit.request_id, error=e.word)
        return None
    url, expires_at = artifacts.url(artifact, context.base_url)
    stored = Stored(
        id=artifact.id, url=url, expires_at=expires_at, size_bytes=artifact.size_bytes, sha256=artifact.sha256
    )
    return Media(mime=MIME, data=data, name=artifact.name, extra={"stored": stored})

"""`Idempotency-Key`: whoever asks the same under the same key gets the same answer, and it is made once.

The first one's answer is taken down before it is begun and kept, durably, before its last event is sent.  Those who
ask meanwhile wait for it; when it comes to nothing, the next of them begins it anew.
"""

import asyncio
import hashlib
import re
from time import perf_counter, time
from typing import TYPE_CHECKING

from litestar.types import Receive, Send
from msgspec.structs import replace

from compat import amount
from compat.canonical.error import InvalidRequest, TimedOut
from compat.canonical.request import Envelope
from gateway.answers.answer import Answer
from gateway.api.detached import Perform, Wish, accepted, answer_later, apart, begun, result_anew, sent_again
from gateway.api.recording import Recording
from gateway.api.reply import Header, Reply
from gateway.artifacts.resigning import signed_anew
from gateway.requests import shown
from gateway.visit import Visit

if TYPE_CHECKING:
    from gateway.api.generation import Job

HASHED_BYTES = 256 * 1024
"""From here on a body is hashed in a thread, not to hold up the loop."""
REPLAYED: Header = (b"idempotent-replayed", b"true")


async def answer_as_wished(job: "Job", wish: Wish, body: bytes, perform: Perform, receive: Receive, send: Send) -> None:
    """Answer a job later, or as somebody has been answered already, or so that others can be."""
    visit, answers = job.visit, job.house.cabinet.answers
    # Whoever only waits for another's answer generates nothing.
    requested, visit.requested = visit.requested, None
    mine: Answer | None = None

    async def find_or_begin() -> None:
        nonlocal mine
        flight = fingerprint = None
        if wish.key is not None:
            flight, fingerprint = _flight(visit, wish.key), await _fingerprint(body, job.envelope)
        working = replace(job, visit=replace(visit, requested=requested))
        if wish.later:
            working = apart(working)
        patience = asyncio.get_running_loop().time() + wish.wait_s
        while True:
            standing = shown(working.visit)
            answer = answers.of(working.visit, standing, flight=flight, fingerprint=fingerprint)
            answer, there = await begun(working if wish.later else job, answer)
            if there is None:
                mine = answer
                if wish.later:
                    await answer_later(working, wish, answer, perform, visit)
                return
            if there.fingerprint != fingerprint:
                raise InvalidRequest(
                    "This Idempotency-Key came with another body before; send a new key with a new request.",
                    param="Idempotency-Key",
                    code="idempotency_key_reused",
                )
            if await _answered_as(job, there, wish, patience):
                return

    await job.reply.attend(find_or_begin())
    if mine is not None and not wish.later:
        visit.requested = requested
        await _answer_and_keep(job, mine, perform, receive, send)


async def _answered_as(job: "Job", there: Answer, wish: Wish, patience: float) -> bool:
    """Answer with another's answer, as soon as it is there; False where it has come to nothing.

    patience: until when one who need not be answered at once waits for it, by the loop's clock.
    """
    answers, loop = job.house.cabinet.answers, asyncio.get_running_loop()
    due = patience if wish.later else None if job.timeout_s is None else loop.time() + job.timeout_s
    found: Answer | None = there
    try:
        async with asyncio.timeout_at(due):
            while found is not None and found.status in ("running", "cancelled") and found.flight == there.flight:
                await answers.landed(found)
                found = await answers.get(there.tenant, there.id, 0)
    except TimeoutError as e:
        if not wish.later:
            raise TimedOut("The first request under this Idempotency-Key was not answered in time.") from e
    if found is None or found.flight != there.flight:
        return False
    if wish.later and (found.status != "done" or not wish.wait_s):
        standing = await job.house.requests.standing(there.tenant, there.id)
        if standing is None:
            return False
        await accepted(job.reply, await result_anew(job.house, there.tenant, standing), [REPLAYED])
        return True
    whole = await answers.get(there.tenant, there.id)
    if whole is None or whole.body is None:
        return False
    body = await signed_anew(job.house, there.tenant, whole.body)
    await sent_again(job.reply, replace(whole, body=body), [REPLAYED])
    return True


async def _answer_and_keep(job: "Job", mine: Answer, perform: Perform, receive: Receive, send: Send) -> None:
    """Answer, and keep the answer for those who ask the same; if it cannot be kept, the next begins anew."""
    house, visit, language = job.house, job.visit, job.language
    answers, kept = house.cabinet.answers, False

    async def keep(recording: Recording) -> None:
        nonlocal kept
        if not recording.is_whole or recording.body is None:
            return
        over = replace(visit, ended=perf_counter(), at=time())
        answer = replace(
            answers.of(over, shown(over)),
            id=mine.id,
            request_id=mine.request_id,
            flight=mine.flight,
            fingerprint=mine.fingerprint,
            created_at=mine.created_at,
            http_status=recording.status,
            headers=recording.headers,
            body=recording.body,
        )
        kept = await answers.end(answer, tries=1)

    limit = amount.parse(job.estate.config.requests.answer_bytes)
    recording = Recording(visit, limit, send, keep_alive=language.keep_alive, finish=keep)
    reply = Reply(
        house,
        visit,
        receive,
        recording.send,
        language.errors,
        keep_alive=language.keep_alive,
        id_header=language.id_header,
    )
    try:
        await perform(replace(job, reply=reply))
    finally:
        if not kept:
            await answers.drop(mine)


def _flight(visit: Visit, key: str) -> str:
    """Who asks, where, and under what key.  (A tenant's are told apart by its own column.)"""
    assert visit.principal is not None, "the guard lets nobody in without one"
    said = "".join(f"{len(part)}:{part}" for part in (visit.principal.id, visit.path, key))
    return hashlib.sha256(said.encode()).hexdigest()


async def _fingerprint(body: bytes, envelope: Envelope) -> str:
    """What is asked: the body as it is, but for the boundary of a form, which is another each time."""

    def hashed() -> str:
        text = body
        if envelope.content_type and (match := _boundary(envelope.content_type)) is not None:
            text = body.replace((match[1] or match[2]).encode("latin-1"), b"")
        return hashlib.sha256(text).hexdigest()

    return hashed() if len(body) < HASHED_BYTES else await asyncio.to_thread(hashed)


_boundary = re.compile(r'boundary=(?:"([^"]+)"|([^\s;,]+))', re.IGNORECASE).search

"""`Prefer: respond-async`: requests that go on without a connection, and whose answers are kept.

The work is the same as that of a connection, in a task of its own, with a visit of its own under the request's id:
that one is metered, limited, logged, shown and cancelled, and the connection's own counts for nothing.
"""

import asyncio
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from time import perf_counter, time
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from backends.base import Wait
from compat import amount
from compat.canonical.error import Conflict, InvalidRequest, LimitReached
from gateway.answers.answer import Answer
from gateway.answers.partial import Seen
from gateway.api.recording import Recording, nobody
from gateway.api.reply import Header, Reply
from gateway.artifacts.resigning import signed_anew
from gateway.db.answers import SameId
from gateway.house import House
from gateway.requests import RequestStatus, shown
from gateway.telemetry.logging import logger
from gateway.visit import Visit, new_id

if TYPE_CHECKING:
    from gateway.api.generation import Job

WAIT_MAX_S = 60.0
"""How long a client may wait for a quick answer before it is told to come back."""
COME_BACK_S = 1
KEY_MAX = 255
"""Characters of an Idempotency-Key."""
PREFER_MAX = 4096
"""Characters of a Prefer header; a longer one is as good as none."""
PREFER, KEY = b"prefer", b"idempotency-key"
PIECE_BYTES = 64 * 1024
# Nothing is read twice (`++`, `*+`), however long the header is and whatever is in it.
_one = re.compile(r'((?:[^,"]++|"(?:[^"\\]++|\\.)*+")*+)(?:,|\Z)').match
_preference = re.compile(r'\s*([^\s=;,"]+)\s*(?:=\s*("(?:[^"\\]|\\.)*"|[^\s;,"]*))?').match

Perform = Callable[["Job"], Awaitable[None]]
"""Answers a job by its reply, whatever becomes of it."""


class Wish(Struct, frozen=True, kw_only=True):
    """How a client wants to be answered, besides at once and anew."""

    later: bool = False
    """It need not be answered on this connection."""
    wait_s: float = 0.0
    """How long it waits for that all the same."""
    key: str | None = None
    """The same answer is for everybody who sends this one."""


def wish_of(said: Mapping[bytes, bytes]) -> Wish | None:
    """What its headers wish for; None: nothing.  Raises InvalidRequest."""
    if PREFER not in said and KEY not in said:
        return None
    later, wait_s = _preferred(said.get(PREFER, b"").decode("latin-1"))
    key = said[KEY].decode("latin-1").strip() if KEY in said else None
    if key is not None and not (0 < len(key) <= KEY_MAX and key.isascii() and key.isprintable()):
        raise InvalidRequest(
            f"The header 'Idempotency-Key' must be 1 to {KEY_MAX} printable ASCII characters.",
            param="Idempotency-Key",
            code="invalid_value",
        )
    return Wish(later=later, wait_s=wait_s, key=key) if later or key is not None else None


def _preferred(header: str) -> tuple[bool, float]:
    """Whether `respond-async` is among the preferences (RFC 7240), and `wait`.  What is not understood is nothing."""
    found: dict[str, str] = {}
    for text in _listed(header):
        if (match := _preference(text)) is not None:
            found.setdefault(match[1].lower(), (match[2] or "").strip('"'))
    wait = found.get("wait", "")
    wait_s = min(float(wait), WAIT_MAX_S) if wait.isascii() and wait.isdigit() and len(wait) < 10 else 0.0
    return "respond-async" in found, wait_s


def _listed(header: str) -> list[str]:
    """The parts between commas that are in no quotes; none where a quote is not closed, or it is too long."""
    found, at = [], 0
    while at < len(header) <= PREFER_MAX:
        if (match := _one(header, at)) is None:
            return []
        found.append(match[1])
        at = match.end()
    return found


async def _detached(job: "Job", answer: Answer, perform: Perform) -> "asyncio.Task[None]":
    """Begin to work on an answer that has been taken down, in a task of its own; it is a guest when this returns."""
    began = asyncio.Event()
    task = job.house.cabinet.answers.detach(answer.tenant, _work(job, answer, perform, began))
    begins = asyncio.ensure_future(began.wait())
    await asyncio.wait({begins, task}, return_when=asyncio.FIRST_COMPLETED)
    begins.cancel()
    return task


def apart(job: "Job") -> "Job":
    """The same job, as it goes on without its connection."""
    mine = job.visit
    visit = replace(mine, presence=None, trail=list(mine.trail), lost=list(mine.lost), wait=Wait(), detached=True)
    return replace(job, visit=visit)


async def _work(job: "Job", answer: Answer, perform: Perform, began: asyncio.Event) -> None:
    house, visit = job.house, job.visit
    recording = Recording(visit, amount.parse(job.estate.config.requests.answer_bytes))
    reply = Reply(
        house, visit, nobody, recording.send, job.language.errors, keep_alive=b"", id_header=job.language.id_header
    )
    house.enter(visit)
    began.set()
    try:
        await perform(replace(job, reply=reply))
    except asyncio.CancelledError:
        visit.code = visit.code or "server_shutting_down"
    except Exception as e:
        logger().error("request_failed", request_id=visit.request_id, exc_info=e)
        visit.code, visit.status = "internal_error", 500
    finally:
        await _kept(house, answer, visit, recording)
        house.leave(visit)
        house.ledger.settle(visit)


async def _kept(house: House, answer: Answer, visit: Visit, recording: Recording) -> None:
    """Keep what was answered, whoever wants this to end meanwhile."""
    visit.too_large = recording.too_large
    over = replace(visit, ended=perf_counter(), at=time())
    standing = shown(over)
    known = house.cabinet.answers.of(over, standing)
    ended = replace(
        known,
        id=answer.id,
        flight=None if recording.too_large else answer.flight,
        fingerprint=answer.fingerprint,
        created_at=answer.created_at,
        http_status=recording.status,
        headers=recording.headers,
        body=recording.body,
    )
    keeping = asyncio.ensure_future(house.cabinet.answers.end(ended))
    while not keeping.done():
        try:
            await asyncio.shield(keeping)
        except asyncio.CancelledError:
            if keeping.cancelled():
                return


async def answer_later(job: "Job", wish: Wish, answer: Answer, perform: Perform, connection: Visit) -> None:
    """Answer a job whose answer has been taken down: 202, unless it is there soon enough."""
    answers, reply = job.house.cabinet.answers, job.reply
    connection.handed_on, connection.trace = True, None
    task = await _detached(job, answer, perform)
    if wish.wait_s:
        await asyncio.wait({task}, timeout=wish.wait_s)
        there = await answers.get(answer.tenant, answer.id) if task.done() else None
        if there is not None and there.http_status is not None and there.body is not None:
            await sent_again(reply, there, [(b"preference-applied", b"wait=%d" % wish.wait_s)])
            return
    await accepted(reply, await _standing(job, answer))


async def _standing(job: "Job", answer: Answer) -> RequestStatus:
    found = await job.house.requests.standing(answer.tenant, answer.id)
    if found is None:  # it has been forgotten already
        raise Conflict("The answer has expired; ask again.")
    return found


async def accepted(reply: Reply, standing: RequestStatus, more: list[Header] | None = None) -> None:
    """Tell a client where it finds its answer."""
    headers = [
        (b"location", standing.url.encode()),
        (b"preference-applied", b"respond-async"),
        (b"retry-after", b"%d" % COME_BACK_S),
        *(more or ()),
    ]
    await reply.whole(headers, msgspec.json.encode(standing), status=202)


async def result_anew(house: House, tenant: str, standing: RequestStatus) -> RequestStatus:
    """A request's standing, the signed URLs of its result good again."""
    if not isinstance(standing.result, msgspec.Raw):
        return standing
    return replace(standing, result=msgspec.Raw(await signed_anew(house, tenant, bytes(standing.result))))


async def sent_again(reply: Reply, answer: Answer, more: list[Header]) -> None:
    """Send an answer that is kept, as it was."""
    assert answer.body is not None, "it is kept"
    headers = [(n.encode("latin-1"), v.encode("latin-1")) for n, v in answer.headers if n != "content-type"]
    if answer.is_json:
        await reply.whole([*headers, *more], answer.body, status=answer.http_status or 200)
    else:
        late = (b"cache-control", b"x-accel-buffering")
        await reply.stream([*(one for one in headers if one[0] not in late), *more], pieces(answer.body))


async def pieces(body: bytes) -> AsyncGenerator[bytes, None]:
    for start in range(0, len(body), PIECE_BYTES):
        yield body[start : start + PIECE_BYTES]
        await asyncio.sleep(0)  # whoever else is there has a turn as well


async def begun(job: "Job", answer: Answer) -> tuple[Answer, Answer | None]:
    """Take an answer down that this job makes: as it was taken down, and the one of the same flight in its place, if
    there is one.  Raises Conflict where the id is taken, and LimitReached.
    """
    answers = job.house.cabinet.answers
    if answer.asynchronous and not answers.has_room(answer.tenant):
        raise LimitReached(
            "Too many requests of yours go on without a connection; wait until some are done, or cancel them.",
            code="too_many_detached",
            retry_after_s=5.0,
        )
    try:
        return answer, await answers.begin(answer, job.visit)
    except SameId as e:
        if answer.asynchronous:  # its client will ask for it by that
            raise Conflict(
                "There is a request of this id, whose answer is kept; send another 'x-request-id', or none."
            ) from e
    answer = replace(answer, id=new_id("req"), request_id=answer.id)
    return answer, await answers.begin(answer, job.visit)


def with_seen(visit: Visit) -> Seen:
    """Begin to note what there is of an answer."""
    visit.seen = seen = Seen()
    return seen

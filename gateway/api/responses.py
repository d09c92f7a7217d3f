"""/v1/responses: OpenAI's Responses API.

A provider that speaks it keeps its own responses: the gateway only remembers whose they are and which
backend to ask.  For every other backend the request is translated, and the turn is kept here.
Invariant: a client that has been told of a response which is stored can ask for it again.
"""

import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

import msgspec
from litestar.types import ASGIApp

from compat.canonical.error import GatewayError, InvalidRequest, NotFound
from compat.canonical.event import Event, Result, Usage
from compat.canonical.request import Envelope, TextRequest
from compat.openai.conversations import whole_items
from compat.openai.error import render_error
from compat.openai.responses import (
    ResponsesRequest,
    customs,
    expanded,
    given_items,
    parse_request,
    peek,
    previous_of,
    read_request,
    references_of,
    render_settings,
    resolved,
    summarizes,
)
from compat.openai.responses_answer import Writer, render_failure, render_response, unfold
from compat.openai.responses_item import Item, normalized, parse_items
from compat.openai.responses_tap import ResponsesTap, adopted, adopted_event, done_in
from compat.openai.responses_usage import parse_usage
from compat.sse import split
from gateway.api.conversing import Conversation, within
from gateway.api.generation import Context, Language, Prepared, endpoint
from gateway.api.pictured import written_out
from gateway.api.resource import could_be_id
from gateway.db.responses import ResponseRows, Turn
from gateway.house import House
from gateway.routing.attempt import Answer
from gateway.routing.dispatch import relays
from gateway.routing.router import Plan
from gateway.sessions.seeing import seen_of
from gateway.visit import Visit, new_id


class _Exchange:
    """One request on its way, and what is kept of its answer.  It speaks its dialect's errors, too."""

    def __init__(
        self,
        rows: ResponseRows,
        visit: Visit,
        asked: Envelope,
        known: dict[str, Item],
        conversation: Conversation | None = None,
    ) -> None:
        self._rows = rows
        self._visit = visit
        self._asked = asked
        self._known = known
        self._conversation = conversation
        self._began_at = time.time()
        self._request = ResponsesRequest()
        self.given: Sequence[Item] = ()
        self._writer = self._fresh_writer()
        self._tap: ResponsesTap | None = None
        self._last_words: bytes | None = None

    def parse(self, envelope: Envelope) -> TextRequest:
        self._request = read_request(self._asked)
        self.given = normalized(resolved(self._request.input, self._known), new_id)
        self._writer = self._fresh_writer()
        past = envelope.fields.get("input") is not self._asked.fields.get("input")
        if past:  # what is new is refused by the names that its client knows
            parse_items(item for item in self.given if item["type"] != "artifact" or self._conversation is None)
        return parse_request(envelope, past=past)

    def whole(self, result: Result, context: Context) -> bytes:  # noqa: ARG002
        for event in unfold(result):
            self._writer.feed(event)
        return render_response(self._writer.response())

    async def stream(self, events: AsyncGenerator[Event, None], context: Context) -> AsyncGenerator[bytes, None]:  # noqa: ARG002
        writer = self._writer
        async with aclosing(events):
            try:
                async for event in events:
                    if out := writer.feed(event):
                        yield out
                last = writer.end()
            except GatewayError as e:
                self._last_words = writer.fail(_named(e))
                await self._store()
                raise
        await self._store()
        yield last

    async def keep(self, answer: Answer, body: bytes) -> None:
        if self._conversation is not None and isinstance(answer.tally, ResponsesTap):
            answer.body = adopted(body, self._writer.id, self._conversation.id)
            await self._adopt(self._conversation, answer.body, ())
        elif isinstance(answer.tally, ResponsesTap):
            await self._remember(answer.tally)
        else:
            await self._store()

    async def watch(self, answer: Answer) -> AsyncGenerator[bytes, None]:
        assert answer.frames is not None
        assert isinstance(answer.tally, ResponsesTap)
        self._tap = tap = answer.tally
        if self._conversation is not None:
            async with aclosing(self._adopted(self._conversation, answer.frames, tap)) as frames:
                async for piece in frames:
                    yield piece
            return
        early = bytes(self._asked.fields.get("background", b"")) == b"true"  # it can be asked for while it runs
        remembered = False
        async with aclosing(answer.frames) as frames:
            async for piece in frames:
                if not remembered and (tap.done or early):
                    remembered = await self._remember(tap)
                yield piece

    async def _adopted(
        self, conversation: Conversation, frames: AsyncGenerator[bytes, None], tap: ResponsesTap
    ) -> AsyncGenerator[bytes, None]:
        """A provider's stream as one of a conversation that is kept here."""
        done: list[Item] = []
        last = b""
        async with aclosing(frames):
            async for piece in frames:
                out = b""
                for event in split(piece):
                    shown, response = adopted_event(event, self._writer.id, conversation.id)
                    out += shown
                    done += done_in(event)
                    last = response or last
                if tap.done and last:
                    await self._adopt(conversation, last, done)
                yield out

    async def _adopt(self, conversation: Conversation, body: bytes, done: Sequence[Item]) -> None:
        """Keep a relayed turn of a conversation, contents and all.

        done: its items as the stream told of them.
        """
        response: Item = msgspec.json.decode(body)
        status = response.get("status")
        if status not in ("completed", "incomplete"):
            return
        assert self._visit.principal is not None
        shown = response | {"output": []}
        if self._unstored:
            shown["store"] = False
        await conversation.add(
            Turn(
                id=self._writer.id,
                created_at=self._began_at,
                backend=self._visit.backend or "",
                model=self._visit.model or "",
                status=status,
                body=shown,
                usage=parse_usage(msgspec.json.encode(response.get("usage"))) or Usage(),
                given=self.given,
                output=whole_items(response.get("output") or done, new_id),
            )
        )

    def body(self, error: GatewayError) -> bytes:
        return render_error(_named(error))

    def frame(self, error: GatewayError) -> bytes:
        if self._last_words is not None:
            return self._last_words
        tap = self._tap
        if tap is not None and tap.told:
            return b""
        if tap is not None and (head := tap.head) is not None:
            if self._conversation is not None:
                head |= {"id": self._writer.id, **self._conversation.settings}
            return render_failure(head, tap.count, _named(error))
        return self._writer.fail(_named(error))

    def _fresh_writer(self) -> Writer:
        request = self._request
        settings = render_settings(request)
        if self._conversation is not None:
            settings |= self._conversation.settings
        return Writer(
            new_id("resp"),
            settings,
            model=self._asked.model or "auto",
            created_at=int(self._began_at),
            new_id=new_id,
            clock=time.time,
            summary=summarizes(request),
            include=request.include or (),
            custom=customs(request),
        )

    @property
    def _unstored(self) -> bool:
        return bytes(self._asked.fields.get("store", b"")) == b"false"

    async def _store(self) -> None:
        """Keep a translated turn, contents and all."""
        writer, conversation = self._writer, self._conversation
        added = conversation is not None and writer.status != "failed"
        if self._request.store is False and not added:
            return
        turn = Turn(
            id=writer.id,
            created_at=self._began_at,
            backend=self._visit.backend or "",
            model=self._visit.model or "",
            status=writer.status,
            previous_id=self._request.previous_response_id,
            body=writer.response() | {"output": []},
            usage=writer.usage or Usage(),
            given=self.given,
            output=writer.output,
        )
        if conversation is not None and added:
            await conversation.add(turn)
        else:
            await self._put(turn)

    async def _remember(self, tap: ResponsesTap) -> bool:
        """Keep in mind who may ask which backend for a relayed turn; whether there was anything to."""
        seen = tap.response
        if seen is None or seen.id is None:
            return False
        if seen.store is False or self._unstored:
            return True
        await self._put(
            Turn(
                id=seen.id,
                created_at=self._began_at,
                backend=self._visit.backend or "",
                model=self._visit.model or "",
                status=seen.status or "",
                previous_id=previous_of(self._asked),
                remote=True,
                usage=tap.usage or Usage(),
                output=[{"id": item.id, "type": item.type} for item in seen.output if item.id],
            )
        )
        return True

    async def _put(self, turn: Turn) -> None:
        assert self._visit.principal is not None, "the guard lets nobody in without one"
        await self._rows.put(self._visit.principal, turn)


def _named(error: GatewayError) -> GatewayError:
    """The error with this dialect's name for what backends call the messages."""
    if error.param == "messages":
        error.param = "input"
    return error


async def _prepare(
    house: House, visit: Visit, asked: Envelope, plan: Plan, conversation: Conversation | None = None
) -> Prepared:
    rows, tenant = house.archive.turns, tenant_of(visit)
    previous = previous_of(asked)
    chain = await _chain(rows, tenant, previous) if previous is not None else []
    known, keepers = await _references(rows, tenant, references_of(asked))
    history: list[Item] | None = None
    if chain and chain[-1].remote:
        keepers.add(chain[-1].backend)
    elif chain:
        items = [item for turn in chain for item in (*turn.given, *turn.output)]
        history = await written_out(house, tenant, items, seen_of(chain, plan))
    if keepers:
        plan = _pinned(plan, asked, keepers)
    envelope, relayed = asked, any(relays(route.backend, asked, route.model) for route in plan.routes)
    turn = _Exchange(rows, visit, asked, known, conversation)
    if conversation is not None:
        turn.given = normalized(given_items(asked, known), new_id)
        envelope = await conversation.expanded(
            plan, turn.given, lambda own, before: expanded(own, before, known, relayed=relayed)
        )
    elif history is not None or known:
        envelope = expanded(asked, history, known, relayed=relayed)
    language = Language(
        peek=peek,
        parse=turn.parse,
        whole=turn.whole,
        stream=turn.stream,
        errors=turn,
        keep=turn.keep,
        watch=turn.watch,
        shorten=None if conversation is None else conversation.shorten,
    )
    return Prepared(language, envelope, plan)


async def _chain(rows: ResponseRows, tenant: str, previous: str) -> list[Turn]:
    chain = await rows.chain(tenant, previous) if could_be_id(previous) else []
    # One that was deleted, or was not to be stored, is a turn of its conversation only.
    if chain and chain[-1].body.get("store") is False:
        chain = []
    lost = previous if not chain else None if chain[-1].remote else chain[0].previous_id
    if lost is not None:
        raise InvalidRequest(
            f"Previous response with id '{lost}' not found.",
            param="previous_response_id",
            code="previous_response_not_found",
        )
    return chain


async def _references(rows: ResponseRows, tenant: str, ids: list[str]) -> tuple[dict[str, Item], set[str]]:
    """The items that a request refers to, as far as they are kept here, and who keeps the others."""
    if not ids:
        return {}, set()
    found = await rows.known(tenant, filter(could_be_id, ids))
    for id_ in ids:
        if id_ not in found:
            raise NotFound(f"Item with id '{id_}' not found.", param="input")
    here = {id_: known.item for id_, known in found.items() if known.remote_backend is None}
    return here, {known.remote_backend for known in found.values() if known.remote_backend is not None}


def _pinned(plan: Plan, asked: Envelope, keepers: set[str]) -> Plan:
    """The plan with only those routes that know what the request refers to."""
    routes = tuple(r for r in plan.routes if {r.backend.name} == keepers and relays(r.backend, asked, r.model))
    if not routes:
        raise InvalidRequest(
            "The previous response was made by another provider than the one of this model, which keeps it.",
            param="previous_response_id",
            code="previous_response_not_found",
        )
    return msgspec.structs.replace(plan, routes=routes)


class _Plainly:
    """The errors of a request that has not been prepared yet."""

    def body(self, error: GatewayError) -> bytes:
        return render_error(error)

    def frame(self, error: GatewayError) -> bytes:
        raise AssertionError("nothing streams before it is prepared") from error


def _unprepared(*_: Any) -> Any:
    raise AssertionError("a request is prepared before it is answered")


def _of(conversation: Conversation) -> Language:
    """How a request in a conversation is read and answered."""

    async def prepare(house: House, visit: Visit, asked: Envelope, plan: Plan) -> Prepared:
        return await _prepare(house, visit, asked, plan, conversation)

    return msgspec.structs.replace(LANGUAGE, prepare=prepare, within=None)


LANGUAGE = Language(
    peek=peek,
    parse=_unprepared,
    whole=_unprepared,
    stream=_unprepared,
    errors=_Plainly(),
    within=lambda job: within(job, _of),
    prepare=_prepare,
)


def endpoints(house: House) -> dict[str, ASGIApp]:
    path = "/v1/responses"
    return {path: endpoint(house, path, LANGUAGE)}


def tenant_of(visit: Visit) -> str:
    assert visit.principal is not None, "the guard lets nobody in without one"
    return visit.principal.tenant

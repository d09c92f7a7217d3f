"""One turn of a session: what its model is told, and what is kept of it.

It is written once, when it is over, before its client is told so.  A turn that ends early is kept as far as it was
shown; one that was not shown at all leaves the session as it was.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from compat import nativeturn
from compat.body import read
from compat.canonical.error import Conflict, ContextTooLong, GatewayError, InvalidRequest, NotFound
from compat.canonical.event import Event, Result, Usage
from compat.canonical.message import Media, Message
from compat.canonical.model import Modality
from compat.canonical.request import Envelope, Request, TextRequest
from compat.native import Generation, InSession, LeftOut, as_modality, modality_of
from compat.nativetask import TAKES, Input, Parameters, references, task
from compat.openai.responses_item import Item
from gateway import inputs
from gateway.asking import Origin
from gateway.db.responses import Turn
from gateway.inputs import Given, Named
from gateway.limits.estimate import BYTES_PER_TOKEN
from gateway.routing.router import NAME_MAX, Plan
from gateway.sessions import answered, form, refuse_closed
from gateway.sessions.brought import last_picture, put
from gateway.sessions.context import Line, room
from gateway.sessions.holding import Held, absent
from gateway.sessions.said import said
from gateway.sessions.seeing import pictures, seen_of
from gateway.sessions.session import Summary
from gateway.sessions.summary import asker, summarized
from gateway.sessions.title import title_of
from gateway.telemetry.logging import logger
from gateway.visit import new_id

LAST = "last"
"""Names the newest picture of a session."""
_GIVEN = "given:"
"""Begins the place of a picture that came with the request."""
LONG = 60
"""Turns that are not laid out on the event loop any more."""

_read_input = msgspec.json.Decoder(Input)
_read_parameters = msgspec.json.Decoder(Parameters)
_read_said = msgspec.json.Decoder(dict[str, Any] | None)
_write = msgspec.json.Encoder().encode
_T = TypeVar("_T")


class Exchange:
    def __init__(self, origin: Origin, held: Held) -> None:
        self.id = new_id("gen")
        """Of the answer, which is its message's as well."""
        self._origin = origin
        self._house, self._estate = origin.house, origin.estate
        self._grant, self._visit = origin.grant, origin.visit
        self._held = held
        self._session = held.session
        self._began_at = time.time()
        self._asked = Envelope(dialect="native", model="", stream=False, fields={}, body=b"")
        self._model = ""
        self._modality: Modality = "text"
        self._parameters: dict[str, Any] = {}
        self._own: dict[str, Any] = {}
        """Of the parameters, those that the request gave."""
        self._state: dict[str, Any] = {}
        self._plan: Plan | None = None
        self._previous: str | None = None
        """The turn it goes on from."""
        self._given: list[Item] = []
        """What is new, with pictures as `given:N`."""
        self._line = Line((), (), "error", None, lambda _: False)
        self._brought: dict[str, Given] = {}
        """The pictures that came with it, by their places."""
        self._shown: dict[str, Media] = {}
        """Those that were there before and the model is shown, by their places."""
        self._seen = frozenset[str]()
        """The artifacts whose pictures the model is shown again."""
        self._told: list[Item] = []
        self._messages: tuple[Message, ...] = ()
        """The same, as it is parsed."""
        self._left_out: LeftOut | None = None
        self._long = False
        self._kept = False

    async def begin(self, asked: Envelope) -> Envelope:
        """Take a request in; returns it as it is sent.  Raises GatewayError."""
        refuse_closed(self._session)
        turns = await self._turns(self._session.head)
        given = read(bytes(asked.fields["input"]), _read_input, "input")
        model = asked.model or self._session.model or ""
        self._own = _read_said.decode(asked.fields.get("parameters", b"null")) or {}
        await self._choose(asked, model, modality_of(asked))
        if self._modality != "text" and given.messages:
            raise InvalidRequest(
                f"Modality '{self._modality}' takes 'input.prompt', not messages.",
                param="input.messages",
                code="invalid_value",
            )
        await self._bring(given, nativeturn.items_of(given, new_id), turns)
        return await self._lay(turns)

    async def again(self, asked: Envelope) -> Envelope:
        """Take in a request to answer a message anew; returns it as it is sent.  Raises GatewayError."""
        refuse_closed(self._session)
        wanted: str | None = msgspec.json.decode(asked.fields.get("message_id", b"null"))
        turn = await self._meant(wanted)
        older = turn.body.get("asked") or {}
        model = asked.model or older.get("model") or self._session.model or ("" if older else _route(turn))
        own = _read_said.decode(asked.fields.get("parameters", b"null")) or {}
        self._own = (older.get("parameters") or {}) | own
        modality: Modality | None = turn.body.get("modality", "text")
        if asked.model and asked.model != older.get("model"):
            modality = None
            plan = await self._routes(model, "text")
            takes = TAKES.get(plan.routes[0].modality or "text", frozenset())
            self._own = {name: value for name, value in self._own.items() if name in takes or name in own}
        await self._choose(asked, model, modality)
        turns = await self._turns(turn.previous_id)
        places = {place: Named("message_id", place) for place in nativeturn.places_of(turn.given)}
        await self._take([*turn.given], places)
        return await self._lay(turns)

    def parse(self, envelope: Envelope) -> Request:
        """The request that this becomes.  Raises InvalidRequest."""
        parameters = read(_write(self._parameters), _read_parameters, "parameters")
        if self._modality != "text":
            pictures = {place: one.media for place, one in self._brought.items()}
            texts = [part["text"] for item in self._given for part in item.get("content", ()) if "text" in part]
            given = Input(prompt="\n".join(texts) or None, images=list(nativeturn.places_of(self._given)))
            return task(self._modality, envelope.model, given, parameters, pictures, self._state)
        request = task("text", envelope.model, Input(prompt="-"), parameters, {}, self._state)
        assert isinstance(request, TextRequest), "it is one of text"
        return msgspec.structs.replace(request, messages=self._messages)

    async def shorten(self, error: ContextTooLong) -> Envelope:
        """The request with less of what came before.  Raises ContextTooLong where there is no less."""
        if self._modality != "text" or not self._line.shorten():
            raise self._too_long(error) from error
        await self._sum_up()
        return await self._told_again()

    @property
    def place(self) -> InSession:
        return InSession(self._session.id, self.id, self._left_out)

    async def complete(self, result: Result, generation: Generation) -> None:
        """Keep the turn, whole.  Raises NotFound where the session was deleted meanwhile."""
        finish, output = result.choices[0].finished, answered.items_of(result, self._modality)
        body = {"finish_reason": finish.reason, "model": generation.model, "selection": generation.selection}
        await self._keep("completed", output, result.usage, body, generation.state)

    async def interrupted(self, seen: Sequence[Event]) -> None:
        """Keep what was shown, if that was anything, of a turn that ended early.  Raises nothing."""
        if self._kept or not (output := answered.items_so_far(seen, self._modality)):
            return
        try:
            await self._keep("incomplete", output, self._visit.usage or Usage(), {"finish_reason": None}, None)
        except Exception as e:  # what ended it is what its client is told
            logger().error("turn_not_kept", session=self._session.id, error=type(e).__name__)

    async def _turns(self, last: str | None) -> list[Turn]:
        if last is None:
            return []
        turns = await self._house.archive.turns.line(self._session.tenant, self._session.id, last)
        self._long = len(turns) > LONG
        return turns

    async def _aside(self, work: Callable[[], _T]) -> _T:
        """Do what takes the longer the longer the session is: off the event loop where that may be long."""
        return await asyncio.to_thread(work) if self._long else work()

    async def _meant(self, wanted: str | None) -> Turn:
        """The turn with an answer, or the message that it answers.  Raises NotFound, InvalidRequest."""
        turns = await self._turns(self._session.head)
        if wanted is None:
            if not turns:
                raise InvalidRequest("There is nothing to answer in this session yet.", param="message_id")
            return turns[-1]
        found = await self._aside(
            lambda: next((turn for turn in turns if any(wanted == one.id for one in said(turn))), None)
        )
        if found is not None:
            return found
        rows = self._house.cabinet.sessions.rows
        if await rows.has(self._session.tenant, self._session.id, wanted):
            return (await rows.turns(self._session.tenant, [wanted]))[wanted]
        raise NotFound(f"Message with id '{wanted[:200]}' not found.", param="message_id")

    async def _choose(self, asked: Envelope, model: str, modality: Modality | None) -> None:
        """Who is asked for what, and how."""
        self._visit.requested = model[:NAME_MAX] or "auto"
        plan = await self._routes(model, modality or "text")
        modality = modality or plan.routes[0].modality or "text"
        if modality == "embedding":
            raise InvalidRequest(
                "An embedding is no part of a conversation: ask for it by /v1/generate without a session.",
                param="modality",
                code="invalid_value",
            )
        own = msgspec.structs.replace(asked, fields=asked.fields | {"parameters": msgspec.Raw(_write(self._own))})
        as_modality(own, modality)
        of_session = {name: value for name, value in self._session.parameters.items() if name in TAKES[modality]}
        self._parameters = of_session | {name: value for name, value in self._own.items() if value is not None}
        self._state = self._session.state
        if given := _read_said.decode(asked.fields.get("state", b"null")):
            self._state = form.within("state", self._state | given, form.STATE_BYTES, form.STATE_DEPTH)
        self._asked, self._model, self._modality, self._plan = asked, model, modality, plan
        if modality != "text":
            await self._house.cabinet.artifacts.room(self._grant)

    async def _routes(self, model: str, modality: Modality) -> Plan:
        accounts = self._house.archive.accounts
        own = None if accounts.idle else await accounts.of(self._visit, self._estate)
        router = self._estate.router
        if model.endswith("/"):
            model = await router.only(model[:-1], modality, self._grant)
        return await router.plan(model, modality, own, self._grant)

    async def _bring(self, given: Input, items: list[Item], turns: Sequence[Turn]) -> None:
        """Have the pictures that a request names."""
        at = {place: path for path, place in references(given)}
        named: dict[str, Named] = {}
        for place in nativeturn.places_of(items):
            path, found = at.get(place, "input.images"), place
            if place == LAST:
                found = await last_picture(self._house, self._session.tenant, turns, path)
            named[place] = Named(path, found)
        await self._take(items, named)

    async def _take(self, items: list[Item], named: Mapping[str, Named]) -> None:
        if not named:
            self._given = items
            return
        assert self._plan is not None, "it has been chosen"
        due = asyncio.get_running_loop().time() + self._plan.timeouts.total_s
        found = await inputs.pictures(self._house, self._session.tenant, list(named.values()), due)
        places = {place: f"{_GIVEN}{n}" for n, place in enumerate(named)}
        self._brought = {places[place]: found[one.place] for place, one in named.items()}
        self._given = nativeturn.moved(items, places)
        if any(one.artifact_id is None for one in self._brought.values()):
            await self._house.cabinet.artifacts.room(self._grant)

    async def _lay(self, turns: Sequence[Turn]) -> Envelope:
        """Say what the model is told."""
        assert self._plan is not None, "it has been chosen"
        self._previous = turns[-1].id if turns else None
        if self._modality != "text":
            self._told = self._given
            return self._envelope()
        plan, policy = self._plan, self._session.context or self._estate.config.sessions.context

        def fit() -> bool:
            self._seen = seen_of(turns, plan)
            self._line = Line(turns, self._given, policy, self._session.summary, self._seen.__contains__)
            return self._line.fit(self._room, self._system_tokens)

        if await self._aside(fit):
            await self._sum_up()
        return await self._told_again()

    @property
    def _room(self) -> int | None:
        assert self._plan is not None, "it has been chosen"
        return room(self._plan.routes, self._parameters.get("max_tokens"))

    @property
    def _system_tokens(self) -> int:
        return len((self._session.system or "").encode()) // BYTES_PER_TOKEN

    async def _told_again(self) -> Envelope:
        there = await self._aside(lambda: list(dict.fromkeys(pictures(self._line.kept))))
        for id_ in there:
            if id_ not in self._seen:
                continue
            place = f"{nativeturn.ARTIFACT_URL}{id_}"
            if place not in self._shown:
                try:
                    self._shown[place] = await self._house.cabinet.artifacts.media(self._session.tenant, id_)
                except (NotFound, InvalidRequest):
                    self._seen -= {id_}

        def lay() -> Envelope:
            self._told = self._line.laid(self._given, self._session.system or "", self._seen.__contains__)
            media = self._shown | {place: given.media for place, given in self._brought.items()}
            self._messages = nativeturn.parse_shown(self._told, media)
            self._left_out = self._line.told([id_ for id_ in there if id_ not in self._seen])
            return self._envelope()

        return await self._aside(lay)

    def _envelope(self) -> Envelope:
        return nativeturn.rebuilt(
            self._asked,
            self._told,
            model=self._model,
            modality=self._modality,
            parameters=self._parameters,
            state=self._state,
        )

    async def _sum_up(self) -> None:
        """Have a summary stand for what is left out, if that is the policy; if nobody can write it, it stays out."""
        line, left_out = self._line, self._line.unsummed
        if line.policy != "summarize" or not left_out:
            return
        assert self._plan is not None, "it has been chosen"
        items = [item for turn in left_out for item in (*turn.given, *turn.output)]
        text = await self._aside(lambda: nativeturn.transcript(items))
        model = self._estate.config.sessions.summary_model or self._model or "auto"
        before = None if line.summary is None else line.summary.text
        due = self._visit.deadline or asyncio.get_running_loop().time() + self._plan.timeouts.total_s
        try:
            summary = await summarized(asker(self._origin), model, before, text, due)
        except (GatewayError, TimeoutError) as e:
            logger().warning("session_not_summarized", session=self._session.id, error=type(e).__name__)
            return
        line.summary = Summary(text=summary, until=line.dropped[-1].id)

    def _too_long(self, error: ContextTooLong) -> ContextTooLong:
        cure = self._line.cure(self._system_tokens, self._room)
        return ContextTooLong(f"{error.message.rstrip('. ')}. {cure}", param="input", details=error.details)

    async def _keep(
        self, status: str, output: list[Item], usage: Usage, body: dict[str, Any], state: dict[str, Any] | None
    ) -> None:
        self._kept = True
        task = asyncio.create_task(self._write(status, output, usage, body, state))
        self._held.writing = task
        # Whoever leaves meanwhile: what has begun to be written is written.
        await asyncio.shield(task)

    async def _write(
        self, status: str, output: list[Item], usage: Usage, body: dict[str, Any], state: dict[str, Any] | None
    ) -> None:
        sessions, session, visit = self._house.cabinet.sessions, self._session, self._visit
        assert visit.principal is not None, "the guard lets nobody in without one"
        given = nativeturn.moved(self._given, await put(self._house, self._grant, visit.request_id, self._brought))
        about = {
            "object": "generation",
            "modality": self._modality,
            **body,
            "parameters": self._parameters,
            "asked": {"model": self._asked.model or None, "parameters": self._own},
            "dropped": [] if self._left_out is None else self._left_out.dropped,
        }
        turn = Turn(
            id=self.id,
            created_at=self._began_at,
            backend=visit.backend or "",
            model=visit.model or "",
            status=status,
            previous_id=self._previous,
            session_id=session.id,
            body=msgspec.to_builtins(about),
            usage=usage,
            given=given,
            output=output,
        )
        uses = {*nativeturn.made_ids(output), *pictures(given)}
        now = await sessions.rows.append(
            session,
            turn,
            principal=visit.principal,
            uses=uses,
            title=title_of(given),
            state=state,
            summary=self._line.summary,
            worker=self._held.worker,
        )
        if now is None:
            if await sessions.rows.get(session.tenant, session.id) is None:
                raise absent(session.id)
            raise Conflict("Somebody else went on with the session meanwhile; this answer is not kept.")
        self._held.over = True
        self._held.leave()
        if status == "completed" and session.head is None and not session.titled:
            sessions.titles.begin(asker(self._origin), now, [*given, *output])


def _route(turn: Turn) -> str:
    """Who answered it; empty where nobody has."""
    return f"{turn.backend}/{turn.model}" if turn.backend else ""

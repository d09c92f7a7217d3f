"""The cases of the matrix, the gateway's configuration for them, and how they are asked."""

import asyncio
import json
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import httpx2
import pytest
from msgspec import Struct

from tests.claude import events as messages_events
from tests.faults.dialects import CANARY, TEXT
from tests.faults.matrix import (
    EXCEPTIONS,
    FAULTS,
    HEAVY,
    HEAVY_TIMEOUTS,
    RETRIES,
    SPECIAL,
    STATUSES,
    TCP_FAULTS,
    TIMEOUTS,
    TYPES,
)
from tests.http import CHAT, events_of, shaped, text_of

MESSAGES = "/v1/messages"
REASONS = ("stop", "length")
PACE_S = 0.015
"""From one request to the next: time-outs are tried, not what the machine can do at once."""


class Lane(Struct, frozen=True):
    path: str
    """What the client speaks."""
    kind: str
    """What the provider speaks."""
    fallback: str
    """The backend of the second route."""


LANES = {
    "OpenAI": Lane(CHAT, "openai", "good-openai"),
    "Anthropic": Lane(MESSAGES, "anthropic", "good-anthropic"),
    "OpenAI → Anthropic": Lane(CHAT, "anthropic", "good-openai"),
}


class Expected(Struct, frozen=True):
    status: int
    code: str | None
    """None for the whole answer, "null" for an error that has no code."""
    primary: int
    fallback: int
    seconds: float

    @classmethod
    def read(cls, cell: str) -> "Expected":
        found = re.fullmatch(r"(\d+) (\w+) (\d)(?:\+(\d))?(?: @([\d.]+))?", cell)
        assert found, cell
        status, code, primary, fallback, seconds = found.groups()
        answered = code == "answer"
        assert answered or code == "null" or status in ("200", str(STATUSES[code])), cell
        return cls(int(status), None if answered else code, int(primary), int(fallback or 0), float(seconds or 0))


class Case(Struct, frozen=True):
    fault: str
    dialect: str
    streamed: bool
    backed: bool
    cell: str
    tcp: bool = False

    @property
    def lane(self) -> Lane:
        return LANES[self.dialect]

    @property
    def name(self) -> str:
        """Of the model that clients ask for."""
        how = "streamed" if self.streamed else "whole"
        return f"{self.fault} {self.dialect} {how} {'with' if self.backed else 'without'} fallback"

    @property
    def primary(self) -> str:
        return f"{'ok' if self.tcp else self.fault}@{self.name}"

    @property
    def fallback(self) -> str:
        return f"ok@{self.name}, the fallback"

    @property
    def backend(self) -> str:
        return f"{self.lane.kind}-{self.fault.replace(':', '-')}" if self.tcp else self.lane.kind


class Outcome(Struct):
    status: int
    headers: Mapping[str, str]
    body: bytes
    ended: float
    """On the monotonic clock."""
    seconds: float
    primary: list[dict[str, Any]] = []
    """What the provider saw, as `Exchange.record` has it."""
    fallback: list[dict[str, Any]] = []


class Said(Struct):
    """An answer as its client reads it."""

    text: str
    code: str | None
    """Of its error: OpenAI's code ("null" for none), Anthropic's type; None if there is none."""


def cases() -> list[Case]:
    made = []
    for dialect in LANES:
        for tcp, table in ((False, FAULTS), (True, TCP_FAULTS)):
            for fault, row in table.items():
                usual = (row.streamed, row.whole, row.streamed_backed, row.whole_backed)
                cells = EXCEPTIONS.get(dialect, {}).get(fault, usual)
                for cell, backed, streamed in zip(cells, (False, False, True, True), (True, False) * 2, strict=True):
                    if cell is not None:
                        made.append(Case(fault, dialect, streamed, backed, cell, tcp))
    return made


def chosen(request: pytest.FixtureRequest, parameter: str) -> list[Any]:
    """What the tests of a module that were chosen for this run are given for a parameter."""
    items = [item for item in request.session.items if isinstance(item, pytest.Function)]
    specs = [item.callspec for item in items if item.module is request.module and hasattr(item, "callspec")]
    return [spec.params[parameter] for spec in specs if parameter in spec.params]


def config(played: Iterable[Case], provider: int, ports: Mapping[str, int], **entry: Any) -> dict[str, Any]:
    """A configuration with a model for each case.

    provider: its port; ports: those of the TCP faults; entry: further keys of every model.
    """
    backends = {f"good-{kind}": backend(kind, provider) for kind in ("openai", "anthropic")}
    models = {}
    for case in played:
        backends[case.backend] = backend(case.lane.kind, ports[case.fault] if case.tcp else provider)
        routes = [f"{case.backend}/{case.primary}"]
        if case.backed:
            routes.append(f"{case.lane.fallback}/{case.fallback}")
        timeouts = HEAVY_TIMEOUTS if case.fault in HEAVY else TIMEOUTS
        models[case.name] = {"routes": routes, "retries": RETRIES, "timeouts": timeouts, **entry}
    return {"backends": backends, "models": models}


def backend(kind: str, port: int) -> dict[str, Any]:
    url = f"http://127.0.0.1:{port}"
    return {"kind": kind, "base_url": f"{url}/v1" if kind == "openai" else url, "api_key": "key-of-the-house"}


def question(path: str, model: str, *, streamed: bool, **fields: Any) -> dict[str, Any]:
    body = {"model": model, "messages": [{"role": "user", "content": "Count."}], "stream": streamed, **fields}
    return {"max_tokens": 1000, **body} if path == MESSAGES else body


async def ask(http: httpx2.AsyncClient, path: str, body: dict[str, Any]) -> Outcome:
    began = time.monotonic()
    answer = await http.post(path, json=body)
    ended = time.monotonic()
    return Outcome(answer.status_code, dict(answer.headers), answer.content, ended, ended - began)


async def ask_all(url: str, played: Sequence[Case]) -> dict[Case, Outcome]:
    """Every case's outcome, asked side by side; what the provider saw is not in it yet."""
    limits = httpx2.Limits(max_connections=None, max_keepalive_connections=20)
    async with httpx2.AsyncClient(base_url=url, timeout=60, limits=limits) as http:

        async def one(case: Case) -> Outcome:
            return await ask(http, case.lane.path, question(case.lane.path, case.name, streamed=case.streamed))

        asked = {}
        for case in played:
            if case.fault not in HEAVY:
                asked[case] = asyncio.create_task(one(case))
                await asyncio.sleep(PACE_S)
        outcomes = {case: await task for case, task in asked.items()}
        return outcomes | {case: await one(case) for case in played if case not in outcomes}


def said(outcome: Outcome, path: str, *, streamed: bool) -> Said:
    """Read an answer and hold it to its dialect's shape: whole, or ended by an error, never just ended."""
    assert CANARY.encode() not in outcome.body
    assert b"127.0.0.1" not in outcome.body
    streams = outcome.headers["content-type"].startswith("text/event-stream")
    assert streams == (streamed and outcome.status == 200), outcome.headers["content-type"]
    return (_said_in_messages if path == MESSAGES else _said_in_chat)(outcome, streams)


def _said_in_chat(outcome: Outcome, streams: bool) -> Said:
    if not streams:
        body = json.loads(outcome.body)
        if outcome.status != 200:
            return Said("", shaped(body)["code"] or "null")
        assert body["choices"], "an answer without a choice"
        assert body["choices"][0]["finish_reason"] in REASONS
        return Said(body["choices"][0]["message"]["content"], None)
    events = events_of(outcome.body)
    assert events, "a stream without an event"
    if events[-1] != b"[DONE]":
        assert b"[DONE]" not in events
        error = shaped(json.loads(events[-1]))
        return Said(text_of(b"".join(b"data: " + event + b"\n\n" for event in events[:-1])), error["code"] or "null")
    assert events.count(b"[DONE]") == 1
    chunks = [json.loads(event) for event in events[:-1]]
    assert len({chunk["id"] for chunk in chunks}) == 1, "one answer has one id"
    choices = [choice for chunk in chunks for choice in chunk["choices"]]
    reasons = [choice["finish_reason"] for choice in choices if choice["finish_reason"]]
    assert len(reasons) == 1, "an answer ends for a reason"
    assert reasons[0] in REASONS
    assert [choice["delta"]["role"] for choice in choices if choice["delta"].get("role")] == ["assistant"]
    return Said(text_of(outcome.body), None)


def _said_in_messages(outcome: Outcome, streams: bool) -> Said:
    if not streams:
        body = json.loads(outcome.body)
        if outcome.status != 200:
            return Said("", _type(body))
        assert body["stop_reason"] == "end_turn"
        return Said("".join(block["text"] for block in body["content"]), None)
    events: list[tuple[str, Any]] = messages_events(outcome.body)
    assert events, "a stream without an event"
    names = [name for name, _ in events]
    text = "".join(data["delta"]["text"] for name, data in events if name == "content_block_delta")
    assert names[0] == "message_start"
    assert names.count("message_start") == 1
    if names[-1] == "error":
        assert "message_stop" not in names
        return Said(text, _type(events[-1][1]))
    assert names[-1] == "message_stop"
    assert names.count("message_stop") == names.count("message_delta") == 1
    starts = [data["index"] for name, data in events if name == "content_block_start"]
    assert starts == [data["index"] for name, data in events if name == "content_block_stop"] == [*range(len(starts))]
    return Said(text, None)


def _type(body: dict[str, Any]) -> str:
    assert set(body) == {"type", "error", "request_id"}
    assert set(body["error"]) <= {"type", "message", "details"}
    assert body["error"]["message"]
    return str(body["error"]["type"])


def code_for(expected: Expected, path: str) -> str | None:
    """What a client of this path reads of an expected error."""
    if path != MESSAGES or expected.code is None:
        return expected.code
    if expected.code in SPECIAL:
        return SPECIAL[expected.code]
    return TYPES[expected.status if expected.code == "null" else STATUSES[expected.code]]


def is_beginning(text: str) -> bool:
    """Whether a broken answer is at least the right one's beginning."""
    return 0 < len(text) < len(TEXT) + 1 and TEXT.startswith(text)

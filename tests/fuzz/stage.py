"""Two gateways in front of providers that answer whatever can be read: nothing but the gateway can go wrong here."""

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, cast

import psutil
from msgspec import structs

from tests import wire
from tests.claude import BODY_CANARY as CLAUDE_CANARY
from tests.claude import Claude, claude
from tests.claude import fixture as claude_fixture
from tests.exchange import HEADERS, Exchange
from tests.fuzz.ask import Answer, Ask, Key
from tests.gateway.conftest import APP_KEY, AUTH, BODY_LIMIT, UPSTREAM_KEY
from tests.http import metric, until
from tests.hub import hub
from tests.process import Gateway, gateway
from tests.provider import Provider, provider
from tests.scripts import BODY_CANARY, SCRIPTS

CLAUDE_KEY = "claude-key-canary-20c4"
SECRETS = (UPSTREAM_KEY, CLAUDE_KEY, BODY_CANARY, CLAUDE_CANARY, HEADERS["set-cookie"], HEADERS["authorization"])
"""What no client may ever read, and no log hold."""
PRIVATE = (*SECRETS, APP_KEY)
"""What no log may hold."""
MISBEHAVING = ("status:500", "status:429", "cut:1", "html", "reset", "error_event:1")
ANY_RESPONSE = b"resp_0"
SETTLE_S = 15.0
POOLED = 6
"""Connections to providers, and to the database, that may be kept open for the next request."""

_WHOLE = {"completions": "completions.json", "generations": "images.json", "edits": "images.json"}
_STREAMED = {"completions": "completions.sse", "generations": "images.sse", "edits": "image_edits.sse"}
_VECTORS = b'{"object":"list","data":[{"object":"embedding","index":0,"embedding":[0.1,0.2]}],"model":"m","usage":%s}'
_SCORES = b'{"model":"m","results":[{"index":0,"relevance_score":0.5}],"usage":%s}'
_COUNTS = b'{"prompt_tokens":2,"total_tokens":2}'


def refuse(x: Exchange) -> None:
    """As a provider does with a request it cannot read."""
    x.answer(wire.error("We could not parse the JSON body of your request."), "400 Bad Request")


async def supply(provider: Provider, exchange: Exchange) -> None:
    """Speaks all of OpenAI's endpoints; names of `MISBEHAVING` play those scripts, all others answer well."""
    overheard(provider, exchange)
    try:
        model, streams = exchange.model, str(exchange.json.get("stream")).lower() in ("true", "1")
    except Exception:
        refuse(exchange)
        return
    path = exchange.path.partition("?")[0].removeprefix("/v1/")
    last = path.rpartition("/")[2]
    if path == "models":
        exchange.answer(wire.models())
    elif model in MISBEHAVING:
        name, *arguments = model.split(":")
        await SCRIPTS[name](exchange, *arguments)
    elif path == "chat/completions":
        await SCRIPTS["answer"](exchange)
    elif path == "embeddings":
        exchange.answer(_VECTORS % _COUNTS)
    elif path == "rerank":
        exchange.answer(_SCORES % _COUNTS)
    elif path.startswith("responses"):
        await _sent(exchange, "responses_provider.json", "responses_provider.sse", streams)
    elif last in _WHOLE:
        await _sent(exchange, _WHOLE[last], _STREAMED[last], streams)
    else:
        refuse(exchange)


async def translate(provider: Provider, exchange: Exchange) -> None:
    """Speaks Anthropic's endpoints."""
    overheard(provider, exchange)
    try:
        await Claude.play(cast(Claude, provider), exchange)
    except Exception:
        exchange.answer(claude_fixture("error_400.json"), "400 Bad Request")


def overheard(provider: Provider, exchange: Exchange) -> None:
    """A client's key is the gateway's own business."""
    if APP_KEY.encode() in exchange.head:
        provider.broken.append(AssertionError("a client's key went up"))


async def _sent(x: Exchange, whole: str, streamed: str, streams: bool) -> None:
    if not streams:
        x.answer(wire.fixture(whole))
        return
    x.begin()
    for _ in range(_count(x)):
        x.send(wire.fixture(streamed))
    x.end()


def _count(x: Exchange) -> int:
    """How many answers are asked for."""
    try:
        return min(max(1, int(float(x.json.get("n")))), 10)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return 1


class Stage:
    """The gateways, open to all or only to those with a key, and how they were before anything was asked."""

    def __init__(self, open_: Gateway, locked: Gateway, providers: list[Provider]) -> None:
        self.gateways = {False: open_, True: locked}
        self.providers = providers
        self.inputs = 0
        self.statuses: dict[int | None, int] = {}
        self.before: dict[bool, tuple[float, int]] = {}
        self.kept: dict[bool, bytes] = {}
        """The id of a response that each gateway keeps; asked for as `ANY_RESPONSE`."""

    def ask(self, ask: Ask) -> Answer | None:
        """Say this to the gateway it is meant for; None when it was no whole request and got no answer."""
        if ask.locked in self.kept:
            ask = structs.replace(
                ask,
                target=ask.target.replace(ANY_RESPONSE, self.kept[ask.locked]),
                body=ask.body.replace(ANY_RESPONSE, self.kept[ask.locked]),
            )
        answer = ask.said_to(self.gateways[ask.locked].port)
        if ask.method == b"DELETE" and answer is not None and answer.status == 200:
            self.keep(ask.locked)
        self.count(answer)
        return answer

    def count(self, answer: Answer | None) -> None:
        status = answer.status if answer else None
        self.inputs += 1
        self.statuses[status] = self.statuses.get(status, 0) + 1

    def keep(self, locked: bool) -> None:
        """Let a gateway keep a response."""
        self.kept.pop(locked, None)
        key = Key.GOOD if locked else Key.NONE
        if not locked:
            # The model may be what was deleted just now.
            shown = Ask(method=b"PATCH", target=b"/v1/models/fake%2Ffake", body=b'{"hidden":false}', key=key)
            self.ask(shown)
        body = b'{"model":"fake/fake","input":"x"}'
        answer = self.ask(Ask(target=b"/v1/responses", body=body, locked=locked, key=key))
        assert answer is not None
        self.kept[locked] = json.loads(answer.body)["id"].encode()

    def warm(self) -> None:
        """Let everything be made that is made once, then take the gateways' measure."""
        for locked, running in self.gateways.items():
            self.keep(locked)
            for model in ("up/answer", "claude/text", "fake/fake", "speaks/spoken"):
                body = json.dumps({"model": model, "messages": [{"role": "user", "content": "x"}]}).encode()
                key = Key.GOOD if locked else Key.NONE
                answer = self.ask(Ask(target=b"/v1/chat/completions", body=body, locked=locked, key=key))
                assert answer is not None
                assert answer.status == 200, answer
            self.before[locked] = self.measure(running)

    def measure(self, running: Gateway) -> tuple[float, int]:
        """Tasks and open files."""
        return metric(running.url, "pluggably_tasks"), psutil.Process(running.process.pid).num_fds()

    def check(self) -> None:
        """The gateways are as they were, and have told nobody what is private."""
        for locked, running in self.gateways.items():
            assert running.process.poll() is None, "".join(running.lines[-50:])
            health = self.ask(Ask(method=b"GET", target=b"/health", locked=locked))
            assert health is not None
            assert health.status == 200
            tasks, files = self.before[locked]
            until(lambda r=running: metric(r.url, "pluggably_in_flight") == 1 or None, SETTLE_S)  # type: ignore[misc]
            end = time.monotonic() + SETTLE_S
            while (now := self.measure(running)) > (tasks, files + POOLED) and time.monotonic() < end:
                time.sleep(0.1)
            assert now[0] <= tasks, f"tasks: {tasks} → {now[0]}"
            assert now[1] <= files + POOLED, f"open files: {files} → {now[1]}"
            for line in list(running.lines):
                assert "request_failed" not in line, line
                assert "Traceback" not in line, line
                assert '"level":"error"' not in line, line
                assert not any(secret in line for secret in PRIVATE), line
            running.lines.clear()
        for asked in self.providers:
            assert not asked.broken, asked.broken
            asked.seen.clear()


def config(provider_url: str, claude_url: str) -> dict[str, Any]:
    quick = {"connect_s": 2, "first_token_s": 5, "idle_s": 5, "total_s": 10}
    at_once = {"retries": 0, "timeouts": quick}
    return {
        "server": {"body_limit_bytes": BODY_LIMIT},
        "backends": {
            "up": {"kind": "openai", "base_url": provider_url, "api_key": UPSTREAM_KEY},
            "speaks": {"kind": "openai", "base_url": provider_url, "api_key": UPSTREAM_KEY, "responses": True},
            "claude": {"kind": "anthropic", "base_url": claude_url, "api_key": CLAUDE_KEY},
            "fake": {"kind": "fake"},
        },
        "models": {
            "auto": {"routes": ["fake/fake"]},
            "all-*": {"routes": ["up/*", "claude/text", "fake/fake"], **at_once},
        },
    }


@contextmanager
def stage(folder: Path) -> Iterator[Stage]:
    with ExitStack() as stack:
        openai, anthropic = stack.enter_context(provider()), stack.enter_context(claude())
        openai.play = partial(supply, openai)  # type: ignore[method-assign]
        anthropic.play = partial(translate, anthropic)  # type: ignore[method-assign]
        tree = config(openai.url, anthropic.url)
        (folder / "open").mkdir()
        (folder / "locked").mkdir()
        repositories = stack.enter_context(hub())
        tree["hub"] = {"endpoint": repositories.url}
        open_ = stack.enter_context(gateway(folder / "open", tree))
        locked = stack.enter_context(gateway(folder / "locked", tree | {"auth": AUTH}))
        built = Stage(open_, locked, [openai, anthropic])
        built.warm()
        yield built

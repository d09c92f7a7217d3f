"""Anthropic, or any provider that speaks its Messages dialect.

The SDK knows the provider (address, authentication); answers take the relay, as in `backends.openai`.
"""

import os
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

import anthropic
from msgspec import Struct
from yarl import URL

from backends.base import Call, Price, Relayed, unfit
from backends.headers import lowered, spoken
from backends.http1 import trust
from backends.ports import Account, Ports
from backends.relay import Wire, own_headers
from compat.anthropic.envelope import peek_count, upstream_body
from compat.anthropic.error import parse_error
from compat.anthropic.messages import render_request
from compat.anthropic.models import parse_models
from compat.anthropic.reading import parse_answer, parse_events
from compat.anthropic.tap import CountTap
from compat.canonical.error import BadResponse
from compat.canonical.event import Event
from compat.canonical.model import Model
from compat.canonical.request import Dialect, Envelope, Request, TextRequest
from compat.taps import tap

BASE_URL = "https://api.anthropic.com"
KEY = "ANTHROPIC_API_KEY"
VERSION = "2023-06-01"
"""Later versions refuse temperature, top_p and top_k from every model, and other dialects' clients send them.
https://platform.claude.com/docs/en/api/versioning"""
_SIGNED_IN = "oauth-2025-04-20"
"""The feature under which access tokens are taken in place of an API key."""


class Settings(Struct, frozen=True, forbid_unknown_fields=True):
    api_key: str | None = None
    """None takes the environment variable ANTHROPIC_API_KEY; another server than Anthropic's needs none."""
    base_url: str | None = None
    """Where the provider is, without `/v1`; None is Anthropic itself."""
    headers: dict[str, str] = {}
    """Sent with every request."""
    version: str = VERSION
    """The `anthropic-version` of requests whose client named none."""


class AnthropicBackend:
    keeps_deadlines = True
    dialects: frozenset[Dialect] = frozenset({"messages"})
    price: Price | None = "paid"

    def __init__(self, name: str, settings: Settings, base_url: str, key: str | None, account: Account | None) -> None:
        self.name = name
        # Anthropic's models go on with a prefill or refuse it; who else speaks the dialect may do neither.
        self.prefills = True if base_url == BASE_URL else None
        self._sdk = anthropic.AsyncAnthropic(
            api_key=key or "none",  # None would have the SDK look for credentials in places of its own
            base_url=base_url,
            max_retries=0,
            timeout=15.0,
            http_client=anthropic.DefaultAsyncHttpxClient(follow_redirects=False, verify=trust()),
        )
        self._headers = {
            "content-type": "application/json",
            "user-agent": "pluggably",
            "anthropic-version": settings.version,
            **(lowered(self._sdk.auth_headers) if key else {}),
            **({"anthropic-beta": _SIGNED_IN} if account is not None and account.token is not None else {}),
            **lowered(settings.headers),
        }
        root = str(self._sdk.base_url).rstrip("/")
        self._messages = URL(f"{root}/v1/messages", encoded=True)
        self._count = URL(f"{root}/v1/messages/count_tokens", encoded=True)
        self._models = URL(f"{root}/v1/models?limit=1000", encoded=True)
        self._wire = Wire(name, parse_error=parse_error, account=account)

    async def relay(self, envelope: Envelope, model: str, call: Call) -> Relayed:
        body = upstream_body(envelope, model)
        headers = self._spoken(envelope)
        return await self._wire.send(self._messages, headers, body, tap(envelope), call, stream=envelope.stream)

    async def run(self, request: Request, call: Call) -> AsyncGenerator[Event, None]:
        if not isinstance(request, TextRequest):
            raise unfit(self.name, request)
        body, lost = render_request(request, stream=call.streamed)
        call.drop(*lost)
        watch = tap(peek_count(body))
        relayed = await self._wire.send(self._messages, self._headers, body, watch, call, stream=call.streamed)
        call.headers += own_headers(relayed.headers)
        if relayed.body is not None:
            for event in parse_answer(relayed.body, created=int(time.time())):
                yield event
            return
        assert relayed.frames is not None
        async with aclosing(parse_events(relayed.frames, created=int(time.time()))) as events:
            async for event in events:
                yield event

    async def count_tokens(self, envelope: Envelope, model: str, call: Call) -> int:
        watch = CountTap(envelope)
        body = upstream_body(envelope, model)
        await self._wire.send(self._count, self._spoken(envelope), body, watch, call, stream=False)
        if watch.usage is None or watch.usage.input_tokens is None:
            raise BadResponse(f"Backend '{self.name}' did not say how many tokens there are.")
        return watch.usage.input_tokens

    async def models(self) -> Sequence[Model]:
        # Not through the SDK: it adds headers of its own from the environment, whoever the provider is.
        return parse_models(await self._wire.get(self._models, self._headers), self.name)

    async def aclose(self) -> None:
        await self._wire.aclose()
        await self._sdk.close()

    def _spoken(self, envelope: Envelope) -> dict[str, str]:
        return spoken(self._headers, envelope.headers, "anthropic-")


def connect(name: str, settings: Settings, ports: Ports) -> AnthropicBackend:
    """Raises ValueError that names the field and the cure."""
    base_url = (settings.base_url or BASE_URL).rstrip("/").removesuffix("/v1")
    if not base_url.startswith(("http://", "https://")):
        raise ValueError("base_url: must start with http:// or https://")
    # The environment's key is Anthropic's: no other server gets to see it.
    official = base_url == BASE_URL and not ports.keyless
    key = settings.api_key or (os.environ.get(KEY) if official else None)
    if key is None and official:
        raise ValueError(f"api_key: missing; set it, or the environment variable {KEY}")
    return AnthropicBackend(name, settings, base_url, key, ports.account)

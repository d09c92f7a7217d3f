"""Any provider that speaks OpenAI's dialect: OpenAI itself, a preset, or a bare `base_url`.

The SDK knows the provider (address, authentication); answers take the relay, because an SDK object
per chunk costs a hundred times what its bytes do.
"""

import asyncio
import os
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from urllib.parse import quote

import openai
from msgspec import Struct
from yarl import URL

from backends.base import Call, Relayed, unfit
from backends.headers import lowered, spoken
from backends.http1 import trust
from backends.ports import Account, Ports
from backends.presets import COMPATIBLE, PRESETS, Preset
from backends.relay import Wire
from compat.canonical.event import Event
from compat.canonical.model import Model
from compat.canonical.plain import plain, without
from compat.canonical.request import Dialect, Envelope, Request, TextRequest
from compat.openai.answer import parse_answer, parse_events
from compat.openai.chat import envelope_of, with_state
from compat.openai.envelope import upstream_body
from compat.openai.models import parse_models
from compat.taps import tap

_PATHS: dict[Dialect, str] = {
    "chat": "chat/completions",
    "completions": "completions",
    "embeddings": "embeddings",
    "rerank": "rerank",
    "images": "images/generations",
    "image_edits": "images/edits",
    "responses": "responses",
}


class Settings(Struct, frozen=True, forbid_unknown_fields=True):
    preset: str | None = None
    """A row of `backends.presets`; `openai` when neither it nor `base_url` is given."""
    base_url: str | None = None
    """Where the provider is, up to and including `/v1`."""
    api_key: str | None = None
    """None takes the preset's environment variable."""
    organization: str | None = None
    project: str | None = None
    headers: dict[str, str] = {}
    """Sent with every request."""
    stream_usage: bool | None = None
    """Whether it takes `stream_options.include_usage`; None asks the preset."""
    responses: bool | None = None
    """Whether it speaks the Responses API itself; None asks the preset."""
    reranks: bool | None = None
    """Whether it has /rerank; None asks the preset."""
    prefills: bool | None = None
    """Whether it goes on with an answer that ends the request; None asks the preset, or finds out."""


class OpenAIBackend:
    keeps_deadlines = True

    def __init__(
        self, name: str, settings: Settings, preset: Preset, base_url: str, key: str | None, account: Account | None
    ) -> None:
        self.name = name
        speaks: dict[Dialect, bool] = {
            "responses": preset.responses if settings.responses is None else settings.responses,
            "rerank": preset.reranks if settings.reranks is None else settings.reranks,
        }
        self.dialects: frozenset[Dialect] = frozenset(path for path in _PATHS if speaks.get(path, True))
        self._preset = preset
        self.price = preset.price
        self.prefills = preset.prefills if settings.prefills is None else settings.prefills
        self._asks_usage = preset.stream_usage if settings.stream_usage is None else settings.stream_usage
        self._sdk = openai.AsyncOpenAI(
            api_key=key or "none",
            base_url=base_url,
            max_retries=0,
            timeout=15.0,
            http_client=openai.DefaultAsyncHttpxClient(follow_redirects=False, verify=trust()),
        )
        auth = self._sdk.auth_headers if preset.key_header == "authorization" else {preset.key_header: key or ""}
        self._headers = {
            "content-type": "application/json",
            "user-agent": "pluggably",
            **(lowered(auth) if key else {}),
            # From the configuration only: the SDK would take them from the environment for any provider.
            **({"openai-organization": settings.organization} if settings.organization else {}),
            **({"openai-project": settings.project} if settings.project else {}),
            **lowered(settings.headers),
        }
        root = str(self._sdk.base_url)
        self._urls = {dialect: URL(root + path, encoded=True) for dialect, path in _PATHS.items()}
        self._models_url = URL(root + "models", encoded=True)
        self._wire = Wire(name, account=account)

    async def relay(self, envelope: Envelope, model: str, call: Call) -> Relayed:
        asks_usage = self._asks_usage and envelope.dialect != "responses"
        headers = spoken(self._headers, envelope.headers, "openai-")
        if envelope.content_type:
            # A form may hold megabytes of pictures.
            body = await asyncio.to_thread(upstream_body, envelope, model)
            headers = headers | {"content-type": envelope.content_type}
        else:
            body = upstream_body(envelope, model, asks_usage=asks_usage)
        return await self._wire.send(
            self._urls[envelope.dialect], headers, body, tap(envelope), call, stream=envelope.stream
        )

    async def kept_response(self, method: str, id_: str, part: str = "", query: str = "") -> bytes:
        url = f"{self._urls['responses']}/{quote(id_, safe='')}{part}{'?' if query else ''}{query}"
        return await self._wire.get(URL(url, encoded=True), self._headers, method=method)

    async def run(self, request: Request, call: Call) -> AsyncGenerator[Event, None]:
        if not isinstance(request, TextRequest):
            raise unfit(self.name, request)
        request, lost = plain(request, "chat")
        request, refused = without(request, self._preset.refuses)
        call.drop(*lost, *refused)
        request = with_state(request, self._preset.state)
        envelope = envelope_of(request, stream=call.streamed, max_tokens_field=self._preset.max_tokens_field)
        relayed = await self.relay(envelope, request.model, call)
        call.headers += relayed.headers
        if relayed.body is not None:
            for event in parse_answer(relayed.body, request.sampling.stop):
                yield event
            return
        assert relayed.frames is not None
        async with aclosing(parse_events(relayed.frames, request.sampling.stop)) as events:
            async for event in events:
                yield event

    async def models(self) -> Sequence[Model]:
        # Not through the SDK: it adds headers of its own from the environment, whoever the provider is.
        return parse_models(await self._wire.get(self._models_url, self._headers), self.name)

    async def aclose(self) -> None:
        await self._wire.aclose()
        await self._sdk.close()


def connect(name: str, settings: Settings, ports: Ports) -> OpenAIBackend:
    """Raises ValueError that names the field and the cure."""
    preset = COMPATIBLE
    if settings.preset is not None or settings.base_url is None:
        known = PRESETS.get(settings.preset or "openai")
        if known is None:
            raise ValueError(f"preset: '{settings.preset}' is unknown; known are {', '.join(sorted(PRESETS))}")
        preset = known
    base_url = settings.base_url or preset.base_url
    if base_url is None:
        raise ValueError("base_url: missing; this preset has no address of its own")
    if not base_url.startswith(("http://", "https://")):
        raise ValueError("base_url: must start with http:// or https://")
    # The environment's key is the preset's: no other server gets to see it.
    own = not ports.keyless and (preset.base_url is None or base_url.rstrip("/") == preset.base_url)
    key = settings.api_key or (os.environ.get(preset.env) if preset.env and own else None)
    if key is None and preset.env is not None and not ports.keyless:
        cure = f"set it, or the environment variable {preset.env}"
        if not own:
            cure = f"set it; {preset.env} is for {preset.base_url} only"
        raise ValueError(f"api_key: missing; {cure}")
    return OpenAIBackend(name, settings, preset, base_url, key, ports.account)

"""Hugging Face's inference providers, through their one router: text, embeddings, pictures.

Text is OpenAI's dialect and takes the relay.  For the rest every provider has a wire format of its own:
the SDK's helper for that provider writes the request, and the bytes go through our wire.  The SDK's
clients would follow redirects, know no deadline, look models up with blocking calls on the event loop,
and decode pictures that are only to be passed on.

Sources: https://huggingface.co/docs/inference-providers and `huggingface_hub.inference`.
"""

import asyncio
import copy
import os
import re
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct
from yarl import URL

from backends.base import Call, Price, Relayed, unfit
from backends.ports import Account, Ports
from backends.relay import Wire
from compat.canonical.error import BadResponse, InvalidRequest, ModelNotFound, Rejected
from compat.canonical.event import Embedded, Event, Finished, Metered, Produced, Started, Usage
from compat.canonical.message import Media
from compat.canonical.model import Model
from compat.canonical.plain import plain, telling
from compat.canonical.request import Dialect, EmbeddingRequest, Envelope, ImageRequest, Request, TextRequest
from compat.huggingface import error_in, parse_error, picture_of, vectors_of
from compat.magic import mime_of
from compat.openai.answer import parse_events
from compat.openai.chat import envelope_of
from compat.openai.envelope import upstream_body
from compat.openai.error import Verdict
from compat.openai.models import parse_models
from compat.taps import tap

if TYPE_CHECKING:
    from huggingface_hub.hf_api import InferenceProviderMapping
    from huggingface_hub.inference._common import RequestParameters

KNOWN_S = 600.0
"""How long it is remembered which providers serve a model."""
KNOWN_MAX = 256
LOOKUP_S = 10.0

_ROUTER = "https://router.huggingface.co"
_ROUTED = "hf_"
"""How a key begins with which the SDK writes requests for the router."""
_MODEL = re.compile(r"([\w-][\w.-]*(?:/[\w-][\w.-]*)?)(?::([\w-]+))?", re.ASCII).fullmatch
"""A model's id, and after a colon a provider or a policy of the router (`fastest`, `cheapest`)."""
_SIZE = re.compile(r"(\d{1,5})x(\d{1,5})").fullmatch
_CARRIED = ("negative_prompt", "num_inference_steps", "guidance_scale", "seed", "scheduler")
"""What a picture's request may say besides OpenAI's fields; every provider's helper renames them as it needs."""
_QUEUED = {
    ("fal-ai", "image-to-image"),
    ("wavespeed", "text-to-image"),
    ("wavespeed", "image-to-image"),
    ("zai-org", "text-to-image"),
}
"""Answered with a job to poll instead of a picture."""


class Settings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    api_key: str | None = None
    """A Hugging Face token; None takes the environment variable HF_TOKEN."""
    base_url: str = f"{_ROUTER}/v1"
    """The router's, up to and including `/v1`.  An endpoint of your own speaks OpenAI's dialect: `kind: openai`."""
    provider: str = "auto"
    """Which inference provider answers; `auto` leaves it to the router, in the order of the account's settings."""
    bill_to: str | None = None
    """The organization that pays."""
    headers: dict[str, str] = {}
    """Sent with every request."""


class HuggingFaceBackend:
    dialects: frozenset[Dialect] = frozenset({"chat"})
    price: Price | None = "paid"

    def __init__(
        self,
        name: str,
        settings: Settings,
        key: str | None,
        providers: Mapping[Any, Any],
        hub: str,
        account: Account | None,
    ) -> None:
        self.name = name
        self._provider = settings.provider
        self._providers = providers
        """The SDK's helpers, by provider and task."""
        self._hub = hub
        self._base = settings.base_url.rstrip("/")
        self._root = self._base.removesuffix("/v1")
        self._auth = {"authorization": f"Bearer {key}"} if key else {}
        self._headers = {
            "user-agent": "pluggably",
            **self._auth,
            **({"x-hf-bill-to": settings.bill_to} if settings.bill_to else {}),
            **{name.lower(): value for name, value in settings.headers.items()},
        }
        self._known: dict[str, tuple[float, list[InferenceProviderMapping]]] = {}
        self._wire = Wire(name, parse_error=parse_error, account=account)

    async def relay(self, envelope: Envelope, model: str, call: Call) -> Relayed:
        if self._provider != "auto" and ":" not in model:
            model = f"{model}:{self._provider}"
        url = URL(f"{self._base}/chat/completions", encoded=True)
        headers = self._headers | {"content-type": "application/json"}
        body = upstream_body(envelope, model)
        return await self._wire.send(url, headers, body, tap(envelope), call, stream=envelope.stream)

    async def run(self, request: Request, call: Call) -> AsyncGenerator[Event, None]:
        match request:
            case TextRequest():
                events = self._write(request, call)
            case EmbeddingRequest():
                events = self._embed(request, call)
            case ImageRequest():
                events = self._draw(request, call)
            case _:
                raise unfit(self.name, request)
        async with aclosing(events):
            async for event in events:
                yield event

    async def models(self) -> Sequence[Model]:
        return parse_models(await self._wire.get(URL(f"{self._base}/models"), self._headers), self.name)

    async def aclose(self) -> None:
        await self._wire.aclose()

    async def _write(self, request: TextRequest, call: Call) -> AsyncGenerator[Event, None]:
        request, lost = plain(request, "chat")
        call.drop(*lost)
        relayed = await self.relay(envelope_of(request, stream=True), request.model, call)
        assert relayed.frames is not None
        async with aclosing(parse_events(relayed.frames, request.sampling.stop)) as events:
            async for event in events:
                yield event

    async def _embed(self, request: EmbeddingRequest, call: Call) -> AsyncGenerator[Event, None]:
        texts = [one for one in request.inputs if isinstance(one, str)]
        if len(texts) < len(request.inputs):
            raise InvalidRequest(
                "Hugging Face's providers take texts, not token ids.", param="input", code="unsupported_value"
            )
        call.drop(*telling(request.extra), *(["user"] if request.user else []))
        served = await self._served(request.model, "feature-extraction", call)
        body = await self._post(served, "feature-extraction", texts, {"dimensions": request.dimensions}, call)
        # Averaging tokens is the work of tens of milliseconds.
        vectors, usage = await asyncio.to_thread(vectors_of, body, len(texts))
        if request.dimensions not in (None, len(vectors[0])):
            call.drop("dimensions")
        yield self._started(request, call)
        for n, vector in enumerate(vectors):
            yield Embedded(index=n, vector=vector)
        yield Finished(reason="stop")
        yield Metered(usage=usage or Usage())

    async def _draw(self, request: ImageRequest, call: Call) -> AsyncGenerator[Event, None]:
        task, inputs, parameters = self._drawing(request, call)
        served = await self._served(request.model, task, call)
        yield self._started(request, call)
        for n in range(request.count):
            # A provider draws one picture at a time.
            body = await self._post(served, task, inputs, dict(parameters), call)
            yield Produced(media=await self._picture(body, call), index=n)
        yield Finished(reason="stop")

    def _drawing(self, request: ImageRequest, call: Call) -> tuple[str, str | bytes, dict[str, Any]]:
        """The task, its input and its parameters."""
        if request.mask is not None:
            raise InvalidRequest("Hugging Face's providers take no mask.", param="mask", code="unsupported_parameter")
        if len(request.images) > 1:
            raise InvalidRequest(
                "Hugging Face's providers change one picture at a time.", param="image", code="unsupported_value"
            )
        size = _SIZE(request.size) if request.size else None
        lost = [name for name in request.extra if name not in _CARRIED]
        lost += ["size"] if request.size and size is None else []
        lost += ["user"] if request.user else []
        call.drop(*lost)
        parameters = {name: request.extra[name] for name in _CARRIED if name in request.extra}
        width, height = (int(size[1]), int(size[2])) if size else (None, None)
        if not request.images:
            return "text-to-image", request.prompt, parameters | {"width": width, "height": height}
        data = request.images[0].data
        if data is None:
            raise InvalidRequest(
                "The picture must come with the request: a file or a data URL.",
                param="image",
                code="unsupported_value",
            )
        target = {"width": width, "height": height} if size else None
        return "image-to-image", data, parameters | {"prompt": request.prompt, "target_size": target}

    async def _served(self, name: str, task: str, call: Call) -> "InferenceProviderMapping":
        """Who does this task with this model, and what they call it.  `MODEL:PROVIDER` names one."""
        from huggingface_hub.hf_api import InferenceProviderMapping

        named = _MODEL(name)
        if named is None:
            raise ModelNotFound("The model's name is not one of Hugging Face's.")
        model, asked = named.groups()
        provider = asked if asked in self._providers else self._provider
        if provider == "hf-inference":
            return InferenceProviderMapping(  # type: ignore[no-untyped-call]
                provider=provider, hf_model_id=model, providerId=model, status="live", task=task
            )
        for one in await self._mappings(model, call):
            helpers = self._providers.get(one.provider, {})
            fits = one.task == task and task in helpers and (one.provider, task) not in _QUEUED
            if fits and provider in ("auto", one.provider):
                return one
        by = "No inference provider" if provider == "auto" else f"The inference provider '{provider}' not"
        raise InvalidRequest(f"{by} does {task} with this model here.", param="model", code="unsupported_value")

    async def _mappings(self, model: str, call: Call) -> "list[InferenceProviderMapping]":
        from huggingface_hub.hf_api import ModelInfo

        loop = asyncio.get_running_loop()
        known = self._known.get(model)
        if known is not None and loop.time() < known[0]:
            return known[1]
        url = URL(f"{self._hub}/api/models/{model}").with_query(expand="inferenceProviderMapping")
        try:
            body = await self._wire.get(url, self._auth, max(0.0, min(LOOKUP_S, call.deadline - loop.time())))
            info = ModelInfo(**msgspec.json.decode(body, type=dict[str, Any]))  # type: ignore[no-untyped-call]
            found = info.inference_provider_mapping or []
        except Rejected as e:
            raise ModelNotFound("Hugging Face does not know this model.") from e
        except (msgspec.DecodeError, KeyError, TypeError, ValueError) as e:
            raise BadResponse(f"Backend '{self.name}' cannot tell who serves this model.") from e
        if len(self._known) >= KNOWN_MAX:
            self._known.clear()
        self._known[model] = loop.time() + KNOWN_S, found
        return found

    async def _post(
        self,
        served: "InferenceProviderMapping",
        task: str,
        inputs: str | bytes | list[str],
        parameters: dict[str, Any],
        call: Call,
    ) -> bytes:
        try:
            # A picture is encoded on the way.
            asked = await asyncio.to_thread(self._written, served, task, inputs, parameters)
        except (KeyError, TypeError, ValueError) as e:
            raise InvalidRequest(f"'{served.provider}' cannot be asked for this.", code="unsupported_value") from e
        if not asked.url.startswith(_ROUTER):
            raise BadResponse(f"Backend '{self.name}' is not reached through the router.")
        body = asked.data if asked.data is not None else msgspec.json.encode(asked.json)
        headers = {name: str(value) for name, value in asked.headers.items() if name != "authorization"} | self._auth
        if task != "feature-extraction":
            headers.setdefault("accept", "image/png")
        url = URL(self._root + asked.url.removeprefix(_ROUTER))
        relayed = await self._wire.send(url, headers, body, _Whole(), call, stream=False)
        assert relayed.body is not None
        return relayed.body

    def _written(
        self, served: "InferenceProviderMapping", task: str, inputs: Any, parameters: dict[str, Any]
    ) -> "RequestParameters":
        helper = copy.copy(self._providers[served.provider][task])
        # Its own way to find this out is a blocking call, with whatever token is on this machine.
        helper._prepare_mapping_info = lambda _: served
        return helper.prepare_request(  # type: ignore[no-any-return]
            inputs=inputs, parameters=parameters, headers=self._headers, model=served.hf_model_id, api_key=_ROUTED
        )

    async def _picture(self, body: bytes, call: Call) -> Media:
        data = await asyncio.to_thread(picture_of, body)
        if isinstance(data, str):
            url = URL(data)
            if url.scheme != "https" and url.origin() != URL(self._root).origin():
                raise BadResponse(f"Backend '{self.name}' points to a picture that is not to be fetched.")
            # Somebody else's storage: it gets no token.
            left_s = max(0.0, call.deadline - asyncio.get_running_loop().time())
            data = await self._wire.get(url, {}, left_s, anonymous=True)
        mime = mime_of(data)
        if mime is None:
            raise BadResponse(f"Backend '{self.name}' answered with what is not a picture.")
        return Media(mime=mime, data=data)

    def _started(self, request: EmbeddingRequest | ImageRequest, call: Call) -> Started:
        return Started(id=call.request_id, model=request.model, created=int(time.time()))


class _Whole:
    """Takes any answer that is not an error."""

    def __init__(self) -> None:
        self.usage: Usage | None = None
        self.model: str | None = None
        self.began = self.finished = self.done = False
        self.failure: Verdict | None = None

    def feed(self, events: bytes) -> bytes:
        return events

    def end(self) -> bytes:
        return b""

    def whole(self, body: bytes) -> bytes | None:
        self.failure = error_in(body)
        self.began = self.finished = True
        return body


def connect(name: str, settings: Settings, ports: Ports) -> HuggingFaceBackend:
    """Raises ValueError that names the field and the cure."""
    from huggingface_hub import constants
    from huggingface_hub.inference._providers import PROVIDERS

    # Else the first headers it writes make it ask the hub, on this thread, which coding agents there are.
    constants.HF_HUB_DISABLE_TELEMETRY = True
    key = settings.api_key or (None if ports.keyless else os.environ.get("HF_TOKEN"))
    if not settings.base_url.startswith(("http://", "https://")):
        raise ValueError("base_url: must start with http:// or https://")
    if settings.provider not in ("auto", *PROVIDERS):
        raise ValueError(f"provider: '{settings.provider}' is unknown; known are auto, {', '.join(sorted(PROVIDERS))}")
    if key is None and settings.base_url.startswith(_ROUTER) and not ports.keyless:
        raise ValueError("api_key: missing; set it, or the environment variable HF_TOKEN")
    return HuggingFaceBackend(name, settings, key, PROVIDERS, constants.ENDPOINT, ports.account)

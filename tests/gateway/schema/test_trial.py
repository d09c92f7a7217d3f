"""What a route carries is found out without a word to anybody."""

import asyncio
from collections.abc import AsyncGenerator, Iterator
from typing import Any

import pytest

from backends import anthropic, fake, huggingface, meshy, openai, scene
from backends.base import Backend, Call
from backends.ports import Ports
from compat.canonical.error import GatewayError
from compat.canonical.event import Event
from compat.canonical.request import TextRequest
from gateway.schema.bodies import BODIES, Body, parameters
from gateway.schema.carriage import Carriage, carriages
from gateway.schema.trial import attempt
from tests.provider import Provider


def _never(request: TextRequest, call: Call) -> AsyncGenerator[Event, None]:
    raise AssertionError("a model was asked")


@pytest.fixture(scope="module")
def backends(running_provider: Provider) -> Iterator[dict[str, tuple[Backend, str]]]:
    url = running_provider.url

    ports = Ports(ask=_never)
    connected: dict[str, tuple[Backend, str]] = {
        "claude": (
            anthropic.connect("claude", anthropic.Settings(api_key="k", base_url=url), ports),
            "claude-opus-4-6",
        ),
        "openai": (openai.connect("openai", openai.Settings(api_key="k", base_url=url), ports), "gpt"),
        "hf": (huggingface.connect("hf", huggingface.Settings(api_key="k", base_url=url), ports), "org/model"),
        "meshy": (meshy.connect("meshy", meshy.Settings(api_key="k", base_url=url), ports), "meshy-6"),
        "scene": (scene.connect("scene", scene.Settings(), ports), "auto"),
        "fake": (fake.connect("fake", fake.Settings(), ports), "fake"),
    }
    yield connected
    for backend, _ in connected.values():
        asyncio.run(backend.aclose())


def body_of(path: str, modality: str = "") -> Body:
    return next(body for body in BODIES if body.path == path and modality in ("", body.modality))


def found(backend: Backend, model: str, body: Body) -> dict[str, Carriage] | GatewayError:
    return asyncio.run(carriages(backend, model, body))


def test_nobody_is_asked(backends: dict[str, tuple[Backend, str]], upstream: Provider) -> None:
    before = upstream.connections

    async def all_of_them() -> int:
        tasks = len(asyncio.all_tasks())
        tried = [await carriages(backend, model, body) for backend, model in backends.values() for body in BODIES]
        assert len(asyncio.all_tasks()) == tasks  # and nothing was begun behind it
        return sum(isinstance(one, dict) for one in tried)

    assert asyncio.run(all_of_them()) > 20
    assert (upstream.connections, upstream.seen) == (before, [])


def test_a_backend_takes_what_it_takes(backends: dict[str, tuple[Backend, str]]) -> None:
    takes = {
        name: sorted({body.path for body in BODIES if isinstance(found(backend, model, body), dict)})
        for name, (backend, model) in backends.items()
    }
    texts = ["/v1/chat/completions", "/v1/completions", "/v1/generate", "/v1/messages", "/v1/responses"]
    images = ["/v1/images/edits", "/v1/images/generations"]
    assert takes["claude"] == texts
    assert takes["openai"] == sorted([*texts, *images, "/v1/embeddings", "/v1/rerank"])
    assert takes["hf"] == sorted([*texts, *images, "/v1/embeddings"])
    assert takes["meshy"] == takes["scene"] == ["/v1/3d/generations", "/v1/generate"]
    assert takes["fake"] == sorted({body.path for body in BODIES})


def test_what_is_left_out_is_told_by_value(backends: dict[str, tuple[Backend, str]]) -> None:
    chat = found(*backends["claude"], body_of("/v1/chat/completions"))
    assert isinstance(chat, dict)
    assert chat["seed"].carried is False
    assert chat["temperature"].carried is True
    assert chat["temperature"].loss is not None
    assert chat["temperature"].loss.values == [2.0]  # Claude's goes to 1
    assert chat["top_p"] == Carriage()


def test_who_would_refuse_to_be_without_it_and_who_not(backends: dict[str, tuple[Backend, str]]) -> None:
    responses = found(*backends["claude"], body_of("/v1/responses"))
    assert isinstance(responses, dict)
    hint, told = responses["prompt_cache_key"].loss, responses["safety_identifier"].loss
    assert hint is not None
    assert told is not None
    assert (hint.strict, told.strict) == ("dropped", "refused")
    refused = responses["conversation"].loss
    assert refused is not None
    assert refused.outcome == "refused"


def test_a_picture_goes_in_place_of_a_prompt(backends: dict[str, tuple[Backend, str]]) -> None:
    for name in ("meshy", "scene", "fake"):
        outcome = found(*backends[name], body_of("/v1/3d/generations"))
        assert isinstance(outcome, dict)
        if name != "scene":
            assert outcome["image"].carried is True


def test_what_a_call_says_ends_the_trial(backends: dict[str, tuple[Backend, str]]) -> None:
    """A backend that would wait for something else first has not been asked either."""

    class Waits:
        name = "waits"

        async def run(self, request: Any, call: Call) -> AsyncGenerator[Event, None]:
            call.drop("user")
            await asyncio.sleep(3600)
            yield  # type: ignore[misc]

    async def tried() -> frozenset[str]:
        body = body_of("/v1/chat/completions")
        return attempt(Waits(), "m", body, body.start).dropped  # type: ignore[arg-type]

    assert asyncio.run(tried()) == {"user"}


def test_every_parameter_gets_its_verdict(backends: dict[str, tuple[Backend, str]]) -> None:
    for backend, model in backends.values():
        for body in BODIES:
            outcome = found(backend, model, body)
            if isinstance(outcome, dict):
                assert outcome.keys() == parameters(body).keys()

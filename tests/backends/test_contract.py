"""Every backend that needs no model of its own keeps the contract."""

from collections.abc import AsyncIterator, Callable

import pytest

from backends import connect, settings_of
from backends.base import Backend
from backends.fake import FakeBackend
from backends.ports import Ports
from tests.backends.contract import CHECKS, Check, Subject
from tests.provider import Provider
from tests.scripts import BODY_CANARY

KEY = "upstream-key-canary-3381"
FAILING = (
    "status:401", "status:429", "status:500", "status:503", "quota", "html", "error_in_200", "reset", "redirect",
)  # fmt: skip


def fake(provider: Provider) -> Subject:
    backend = connect("fake", "fake", settings_of("fake", {"pause_s": 0.01}), Ports())
    assert isinstance(backend, FakeBackend)
    return Subject(backend=backend, model="fake", idle=lambda: backend.running == 0)


def fake_and_slow(provider: Provider) -> Subject:
    words = ["word "] * 1000
    backend = connect("fake", "fake", settings_of("fake", {"words": words, "pause_s": 0.0001}), Ports())
    assert isinstance(backend, FakeBackend)
    return Subject(backend=backend, model="fake", endless="fake", idle=lambda: backend.running == 0)


def compatible(provider: Provider) -> Subject:
    settings = settings_of("openai", {"base_url": provider.url, "api_key": KEY})
    return Subject(
        backend=connect("up", "openai", settings, Ports()),
        model="answer",
        endless="events:1000:0.02",
        failing=FAILING,
        secrets=(KEY, provider.url, "127.0.0.1", BODY_CANARY),
        idle=lambda: all(exchange.over.is_set() for exchange in provider.seen),
    )


@pytest.fixture(params=[fake, fake_and_slow, compatible], ids=lambda make: make.__name__)
async def subject(request: pytest.FixtureRequest, upstream: Provider) -> AsyncIterator[Subject]:
    make: Callable[[Provider], Subject] = request.param
    made = make(upstream)
    yield made
    await made.backend.aclose()


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_a_backend_keeps_the_contract(check: Check, subject: Subject) -> None:
    await check(subject)


async def test_a_busy_backend_says_so(upstream: Provider) -> None:
    busy = Subject(
        backend=connect("fake", "fake", settings_of("fake", {"busy": True}), Ports()), model="fake", failing=["fake"]
    )
    [trouble] = [check for check in CHECKS if check.__name__.startswith("trouble")]
    await trouble(busy)
    assert isinstance(busy.backend, Backend)

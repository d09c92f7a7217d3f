"""The real engines that are installed here, each with the real embedded model.

An engine that is absent is not collected; the report says which were there.
"""

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio

from backends.local import LocalBackend, Settings, connect
from backends.local.engine import ORDER, Engine, find
from backends.ports import Ports
from tests.backends.local.bench import smollm

ENGINES = [engine for name in ORDER if (engine := find(name))]

Start = Callable[..., LocalBackend]


def pytest_report_collectionfinish() -> str:
    absent = [name for name in ORDER if name not in {engine.name for engine in ENGINES}]
    return (
        f"local engines under test: {', '.join(e.name for e in ENGINES)}; not installed: {', '.join(absent) or 'none'}"
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "engine" in metafunc.fixturenames:
        metafunc.parametrize("engine", ENGINES, ids=[engine.name for engine in ENGINES], scope="session")


@pytest.fixture
async def start(engine: Engine) -> AsyncIterator[Start]:
    """Connects backends with one real model, `smol`; closed after the test."""
    started = []

    def start(**settings: Any) -> LocalBackend:
        defaults: dict[str, Any] = {"engine": engine.name, "threads": 1, "n_batch": 64, "context_max": 2048}
        local = smollm()
        backend = connect("local", Settings(**(defaults | settings)), Ports(catalogue=lambda: {local.name: local}))
        started.append(backend)
        return backend

    yield start
    for backend in started:
        await backend.aclose()


@pytest.fixture
async def backend(start: Start) -> LocalBackend:
    return start()


together = pytest.mark.asyncio(loop_scope="module")
"""For tests with `shared`: they run in its loop."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(engine: Engine) -> AsyncIterator[LocalBackend]:
    """One backend for all tests of a module, which run in one loop: for those that leave it as they found it."""
    local = smollm()
    settings = Settings(engine=engine.name, threads=1, n_batch=64, context_max=2048, slots=2)  # type: ignore[arg-type]
    backend = connect("local", settings, Ports(catalogue=lambda: {local.name: local}))
    yield backend
    await backend.aclose()

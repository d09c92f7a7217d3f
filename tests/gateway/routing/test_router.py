"""A name → routes: what goes before what."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from backends import connect, settings_of
from backends.base import Backend
from backends.fake import FakeBackend, Settings
from backends.ports import Local, Ports
from compat.canonical.error import ModelNotFound
from compat.canonical.model import Model
from gateway.asking import ask
from gateway.config import load
from gateway.estate import build
from gateway.registry import Registry
from gateway.routing.router import Router
from gateway.settings import ModelEntry, Target


class Listing(FakeBackend):
    """Lists the models it is told of; and counts how often it is asked."""

    def __init__(self, name: str, listed: Sequence[str] = ()) -> None:
        super().__init__(name, Settings())
        self.listed = listed
        self.asked = 0

    async def models(self) -> Sequence[Model]:
        self.asked += 1
        return [Model(name=name, backend=self.name) for name in self.listed]


UP = Listing("up", ["gpt-x", "shared", "org/model"])
HERE = Listing("here")
FILES = {
    name: Local(name=name, path="x", model=Model(name=name, backend="here", status="ready"))
    for name in ("small", "shared")
}
ENTRIES = {
    "smart": ModelEntry(routes=("up/gpt-x", "here/small"), retries=1),
    "gpt-x": ModelEntry(routes=("here/small",)),
    "gpt-*": ModelEntry(routes=(Target(to="up/*"), "up/prefix-*")),
    "*-mini": ModelEntry(routes=("here/small",)),
    "auto": ModelEntry(routes=("here/small",)),
}


def test_a_local_models_context_is_the_one_it_is_run_with(tmp_path: Path) -> None:
    own = "models: {smollm2-135m-instruct: {context_max: 1024}}"
    (tmp_path / "pluggably.yaml").write_text(
        f"data_dir: {tmp_path}\nbackends: {{a: {{kind: local, {own}}}, b: {{kind: local, context_max: 4096}}}}\n"
    )
    estate = build(load(tmp_path / "pluggably.yaml", {}))
    for backend, context in (("a", 1024), ("b", 4096)):
        known = estate.registry.known(backend, "smollm2-135m-instruct")
        assert known is not None
        assert known.context_length == context
        plan = asyncio.run(estate.router.plan(f"{backend}/smollm2-135m-instruct"))
        assert plan.routes[0].context_length == context


class Telling(FakeBackend):
    """Lists one model with a small context, which says nothing of what it makes and little of what it can do."""

    async def models(self) -> Sequence[Model]:
        return [Model(name="m", backend=self.name, context_length=100, capabilities=("thinking",))]


def test_what_a_provider_lists_is_known_from_then_on() -> None:
    backends: dict[str, Backend] = {"up": Telling("up", Settings())}
    registry = Registry(backends, {})
    router = Router({"exact": ModelEntry(routes=("up/m",)), "gl*": ModelEntry(routes=("up/m",))}, backends, registry)

    async def known(name: str) -> tuple[str | None, int | None, tuple[str, ...]]:
        route = (await router.plan(name)).routes[0]
        return route.modality, route.context_length, route.capabilities

    async def story() -> None:
        assert await known("exact") == (None, None, ())
        await registry.all()
        for name in ("exact", "glob", "up/m"):
            assert await known(name) == (None, 100, ())

    asyncio.run(story())


@pytest.fixture
def router() -> Router:
    backends: dict[str, Backend] = {"up": UP, "here": HERE}
    return Router(ENTRIES, backends, Registry(backends, {"here": FILES}))


@pytest.mark.parametrize(
    ("name", "routes", "reason"),
    [
        ("smart", ["up/gpt-x", "here/small"], "configured as 'smart'"),
        ("gpt-x", ["here/small"], "configured as 'gpt-x'"),
        ("gpt-y", ["up/gpt-y", "up/prefix-gpt-y"], "configured as 'gpt-*'"),
        ("gpt-y-mini", ["up/gpt-y-mini", "up/prefix-gpt-y-mini"], "configured as 'gpt-*'"),
        ("x-mini", ["here/small"], "configured as '*-mini'"),
        ("up/anything", ["up/anything"], "addressed as BACKEND/MODEL"),
        ("up/with/slash", ["up/with/slash"], "addressed as BACKEND/MODEL"),
        ("here/small", ["here/small"], "addressed as BACKEND/MODEL"),
        ("small", ["here/small"], "a local model"),
        ("shared", ["here/shared"], "a local model"),
        ("org/model", ["up/org/model"], "listed by backend 'up'"),
        ("", ["here/small"], "configured as 'auto'"),
    ],
)
async def test_a_name_leads_to_its_routes(router: Router, name: str, routes: list[str], reason: str) -> None:
    plan = await router.plan(name)
    assert [route.name for route in plan.routes] == routes
    assert plan.reason == reason


@pytest.mark.parametrize("name", ["nothing", "here/absent", "up/", "/x", "nowhere/x", "x" * 10_000])
async def test_a_name_that_leads_nowhere_is_not_found(router: Router, name: str) -> None:
    with pytest.raises(ModelNotFound) as missing:
        await router.plan(name)
    assert len(missing.value.message) < 400


async def test_no_name_and_no_auto_is_told_as_that() -> None:
    with pytest.raises(ModelNotFound, match="No model is named, and the configuration has no 'auto'"):
        await Router({}, {}, Registry({}, {})).plan("")


async def test_a_name_longer_than_any_is_not_found_and_not_looked_for() -> None:
    up = Listing("up", ["x" * 5000])
    backends: dict[str, Backend] = {"up": up}
    router = Router({"x*": ModelEntry(routes=("up/*",))}, backends, Registry(backends, {}))
    for name in ("x" * 301, f"up/{'x' * 298}", "y" * 1_000_000):
        with pytest.raises(ModelNotFound) as refused:
            await router.plan(name)
        assert len(refused.value.message) < 400
    assert up.asked == 0
    assert (await router.plan("x" * 300)).routes


async def test_a_glob_puts_the_name_into_its_routes_and_keeps_their_facts() -> None:
    entry = ModelEntry(routes=(Target(to="up/*", weight=3, capabilities=("tools",), context_length=10),))
    backends: dict[str, Backend] = {"up": UP}
    router = Router({"m-*": entry}, backends, Registry(backends, {}))
    (route,) = (await router.plan("m-1")).routes
    assert (route.model, route.weight, route.capabilities, route.context_length) == ("m-1", 3, ("tools",), 10)


async def test_a_list_is_asked_for_once_by_many(router: Router) -> None:
    lister = Listing("up", ["late"])
    backends: dict[str, Backend] = {"up": lister}
    registry = Registry(backends, {})
    found = await asyncio.gather(*(registry.find("late") for _ in range(10)))
    assert lister.asked == 1
    assert {model.id for model in found if model} == {"up/late"}
    await registry.find("nothing")
    assert lister.asked == 1


async def test_a_bare_name_leads_to_one_who_makes_what_is_wanted() -> None:
    """A backend that has another's model describe scenes lists it under the same name."""
    scene = connect("scene", "scene", settings_of("scene", {"model": "clever"}), Ports(ask=ask))
    backends: dict[str, Backend] = {"scene": scene, "up": Listing("up", ["clever"])}
    router = Router({}, backends, Registry(backends, {}))
    assert [route.name for route in (await router.plan("clever")).routes] == ["up/clever"]
    assert [route.name for route in (await router.plan("clever", "3d")).routes] == ["scene/clever"]
    assert [route.name for route in (await router.plan("clever", "image")).routes] == ["scene/clever"]


async def test_a_backend_that_breaks_does_not_withhold_the_lists_of_others() -> None:
    class Broken(Listing):
        async def models(self) -> Sequence[Model]:
            self.asked += 1
            raise KeyError("data")

    broken, lister = Broken("broken"), Listing("up", ["m"])
    backends: dict[str, Backend] = {"broken": broken, "up": lister}
    registry = Registry(backends, {})
    for _ in range(2):
        assert [model.id for model in await registry.all()] == ["up/m"]
    assert broken.asked == 1, "it is left alone for a while"


def test_ports_have_no_models_unless_lent() -> None:
    assert Ports().catalogue() == {}

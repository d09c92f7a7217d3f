"""What is registered and not here, aliases, and what is said of providers' models: as routing sees it."""

from typing import Any

import pytest

from backends.fake import FakeBackend, Settings
from backends.ports import Local
from compat.canonical.error import GatewayError, ModelNotFound, ModelUnavailable
from compat.canonical.model import Model
from gateway.auth.principal import LOCAL, Grant
from gateway.registry import Registry
from gateway.registry.entries import Entries
from gateway.registry.entry import Entry, Status
from gateway.routing.router import Router
from gateway.settings import ModelEntry

BACKENDS = {"here": FakeBackend("here", Settings()), "up": FakeBackend("up", Settings())}
FILES = {"m": Local(name="m", path="x", model=Model(name="m", backend="here", status="ready"))}
NAMES = {"only": ModelEntry(routes=("here/gone",)), "either": ModelEntry(routes=("here/gone", "here/m"))}


class Kept(Entries):
    """What is registered, without a database."""

    def __init__(self, *entries: Entry) -> None:
        super().__init__()
        self._entries = {entry.id: entry for entry in entries}
        self.edition = 1


def entry(name: str, status: Status = "ready", backend: str = "here", **fields: Any) -> Entry:
    fields = {"explicit": True} | fields
    return Entry(backend=backend, name=name, status=status, created_at=1.0, updated_at=1.0, **fields)


def router(*entries: Entry, done: float | None = None) -> Router:
    kept, registry = Kept(*entries), Registry(BACKENDS, {"here": FILES})
    for one in entries:
        kept.progressed(one.id, done)
    registry.lend(kept)
    return Router(NAMES, BACKENDS, registry)


async def refusal(name: str, *entries: Entry, done: float | None = None, grant: Grant = LOCAL) -> GatewayError:
    with pytest.raises(GatewayError) as refused:
        await router(*entries, done=done).plan(name, grant=grant)
    return refused.value


@pytest.mark.parametrize("name", ["gone", "here/gone", "other", "here/other", "only"])
async def test_who_asks_for_one_that_is_coming_is_told_how_far_it_is(name: str) -> None:
    error = await refusal(name, entry("gone", "downloading", aliases=("other",)), done=0.413)
    assert isinstance(error, ModelUnavailable)
    assert (error.status, error.final, error.message) == (503, False, "The model 'gone' is being downloaded: 41%.")
    assert error.retry_after_s


@pytest.mark.parametrize(
    ("status", "words"),
    [("registered", "download"), ("verifying", "verified"), ("failed", "no room"), ("missing", "missing")],
)
async def test_each_status_is_told_with_its_cure(status: Status, words: str) -> None:
    error = await refusal("gone", entry("gone", status, reason="There is no room."))
    assert isinstance(error, ModelUnavailable)
    assert words in error.message
    assert error.final is (status != "verifying")


async def test_a_download_that_is_paused_is_told_as_that() -> None:
    error = await refusal("gone", entry("gone", "downloading", reason="paused"))
    assert (error.status, error.retry_after_s) == (503, None)
    assert "its download is paused" in error.message
    assert "/v1/jobs/JOB/resume" in error.message


async def test_a_name_whose_models_were_all_removed_names_the_cure() -> None:
    error = await refusal("only", entry("gone", hidden=True))
    assert isinstance(error, ModelNotFound)
    assert "'only'" in error.message
    assert "change its routes in the configuration file" in error.message


async def test_a_removed_model_of_a_provider_is_not_asked() -> None:
    gone = entry("far", backend="up", hidden=True)
    for name in ("far", "up/far"):
        assert isinstance(await refusal(name, gone), ModelNotFound)


async def test_what_has_just_been_put_there_is_not_missing() -> None:
    class Written(Kept):
        def coming(self) -> frozenset[str]:
            return frozenset(["here/new"])

    registry = Registry(BACKENDS, {"here": FILES})
    registry.lend(Written(entry("new"), entry("old")))
    assert {id_: one.status for id_, one in registry.book.absent.items()} == {
        "here/new": "verifying",
        "here/old": "missing",
    }


async def test_what_was_only_found_is_not_there_any_more() -> None:
    assert isinstance(await refusal("here/gone", entry("gone", "missing", explicit=False)), ModelNotFound)


async def test_a_name_with_another_route_is_served_by_it() -> None:
    plan = await router(entry("gone", "downloading")).plan("either")
    assert [route.name for route in plan.routes] == ["here/m"]
    assert "not all of its models are here" in plan.reason


async def test_who_may_not_use_a_model_is_told_nothing_of_it() -> None:
    grant = Grant(principal=LOCAL.principal, models=("m",))
    assert isinstance(await refusal("gone", entry("gone", "downloading"), grant=grant), ModelNotFound)


async def test_an_alias_leads_to_its_model_alone_and_behind_its_backend() -> None:
    asked = router(entry("m", aliases=("short",)), entry("far", backend="up", aliases=("wide",)))
    for name, route in (("short", "here/m"), ("here/short", "here/m"), ("wide", "up/far"), ("up/wide", "up/far")):
        plan = await asked.plan(name)
        assert [one.name for one in plan.routes] == [route]
    assert [one.name for one in (await asked.plan("up/short")).routes] == ["up/short"], "another backend's alias"


async def test_what_was_said_of_a_providers_model_is_known_to_routing() -> None:
    said = entry("far", backend="up", said=("capabilities", "modality"), capabilities=("vision",), modality="image")
    [route] = (await router(said).plan("up/far")).routes
    assert (route.capabilities, route.modality) == (("vision",), "image")
    [route] = (await router(entry("far", backend="up")).plan("up/far")).routes
    assert (route.capabilities, route.modality) == ((), None)


async def test_a_hidden_model_is_not_known() -> None:
    assert isinstance(await refusal("gone", entry("gone", "downloading", hidden=True)), ModelNotFound)

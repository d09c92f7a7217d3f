"""Which routes can do what a request wants, and in which order they are asked."""

from collections import Counter
from collections.abc import Sequence

import msgspec
import pytest

from compat.canonical.error import InvalidRequest
from compat.canonical.model import Modality
from compat.canonical.request import Envelope
from gateway.routing.health import HealthBook
from gateway.routing.router import Plan, Route
from gateway.routing.selection import modality_of, select
from gateway.settings import SelectionMode, Strategy
from gateway.visit import Visit
from tests.gateway.routing.clock import run
from tests.gateway.routing.stage import Player, chat, route, said, visit

UP = Player("up", said("x"))
DRAWS = 2000
PICTURE = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://x.test/a.png"}}]}
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {}}}]


def chosen(
    routes: Sequence[Route],
    envelope: Envelope | None = None,
    *,
    strategy: Strategy = "order",
    mode: SelectionMode = "auto",
    book: HealthBook | None = None,
    seen: Visit | None = None,
) -> list[str]:
    plan = Plan(requested="any", routes=routes, reason="", strategy=strategy)
    return [r.model for r in select(plan, envelope or chat(), book or HealthBook(), mode, seen or visit())]


def drawn(routes: Sequence[Route], strategy: Strategy, book: HealthBook) -> Counter[tuple[str, ...]]:
    async def draw() -> Counter[tuple[str, ...]]:
        return Counter(tuple(chosen(routes, strategy=strategy, book=book)) for _ in range(DRAWS))

    return run(draw())


def firsts(orders: Counter[tuple[str, ...]]) -> Counter[str]:
    return Counter(order[0] for order in orders.elements())


def test_order_is_as_listed() -> None:
    assert drawn([route(UP, name) for name in "cab"], "order", HealthBook()) == {("c", "a", "b"): DRAWS}


def test_the_weights_draw_the_first_route_and_the_rest_stay_for_fallback() -> None:
    orders = drawn([route(UP, "a", weight=3), route(UP, "b", weight=1)], "weighted", HealthBook())
    assert {tuple(sorted(order)) for order in orders} == {("a", "b")}
    assert 0.675 * DRAWS < firsts(orders)["a"] < 0.825 * DRAWS


def test_the_weights_draw_the_fallback_too() -> None:
    routes = [route(UP, "a", weight=8), route(UP, "b", weight=3), route(UP, "c", weight=1)]
    orders = drawn(routes, "weighted", HealthBook())
    after_a = Counter(order[1] for order in orders.elements() if order[0] == "a")
    assert 0.65 * after_a.total() < after_a["b"] < 0.85 * after_a.total()


@pytest.mark.parametrize("nothing", [0.0, -1.0])
def test_a_route_without_weight_is_fallback_only(nothing: float) -> None:
    routes = [route(UP, "spare", weight=nothing), route(UP, "a"), route(UP, "b")]
    orders = drawn(routes, "weighted", HealthBook())
    assert {order[2] for order in orders} == {"spare"}


def timed(book: HealthBook, **seconds: float) -> HealthBook:
    for model, first_token_s in seconds.items():
        book.of(f"up/{model}").answered(1000.0, first_token_s)
    return book


def test_latency_takes_the_faster_of_two_drawn_ones() -> None:
    """Of four, the fastest wins half of the draws, the slowest none: the crowd does not all run to one."""
    book = timed(HealthBook(), a=0.1, b=0.2, c=0.3, d=0.4)
    orders = drawn([route(UP, name) for name in "dcba"], "latency", book)
    first = firsts(orders)
    for model, share in {"a": 3 / 6, "b": 2 / 6, "c": 1 / 6}.items():
        assert abs(first[model] / DRAWS - share) < 0.06
    assert "d" not in first
    assert all(list(order[1:]) == sorted(order[1:]) for order in orders), "the fallbacks, fastest first"


def test_latency_tries_what_it_does_not_know_and_what_was_slow_long_ago() -> None:
    routes = [route(UP, "a"), route(UP, "b")]
    assert firsts(drawn(routes, "latency", timed(HealthBook(), a=0.1))) == {"b": DRAWS}
    book = timed(HealthBook(), a=0.1, b=2.0)
    assert firsts(drawn(routes, "latency", book)) == {"a": DRAWS}
    book.of("up/b")._measured -= 600
    assert firsts(drawn(routes, "latency", book)) == {"b": DRAWS}


def test_least_busy_takes_who_has_least_to_do_in_order_of_the_list() -> None:
    book = HealthBook()
    book.of("up/a").busy = 2
    book.of("up/c").busy = 1
    assert drawn([route(UP, name) for name in "abcd"], "least_busy", book) == {("b", "d", "c", "a"): DRAWS}


@pytest.mark.parametrize("strategy", ["order", "weighted", "latency", "least_busy"])
def test_every_strategy_copes_with_the_one_route_that_is_able(strategy: Strategy) -> None:
    routes = [route(UP, "blind", capabilities=("tools",)), route(UP, "seer", capabilities=("vision",))]
    orders = run(_soon(routes, strategy))
    assert orders == ["seer"]


async def _soon(routes: Sequence[Route], strategy: Strategy) -> list[str]:
    return chosen(routes, chat(messages=[PICTURE]), strategy=strategy)


LONG = chat(messages=[{"role": "user", "content": "ordinary words " * 4000}])


@pytest.mark.parametrize(
    ("lacking", "envelope", "why"),
    [
        (route(UP, "x", capabilities=("tools",)), chat(messages=[PICTURE]), "takes no images"),
        (route(UP, "x", capabilities=("vision",)), chat(tools=TOOLS), "takes no tools"),
        (route(UP, "x", capabilities=("vision",)), chat(functions=[TOOLS[0]["function"]]), "takes no tools"),
        (route(UP, "x", context_length=8000), LONG, "context of 8000 tokens is too short"),
        (route(UP, "x", modality="image"), chat(), "makes image, not text"),
    ],
)
def test_a_route_that_is_known_not_to_do_it_is_left_out_and_it_is_said_why(
    lacking: Route, envelope: Envelope, why: str
) -> None:
    seen = visit()
    assert chosen([lacking, route(UP, "able")], envelope, seen=seen) == ["able"]
    assert seen.trail == [("up/x", why)]
    assert chosen([lacking], envelope) == ["x"], "the only one is asked"
    seen = visit()
    assert chosen([lacking, lacking], envelope, seen=seen) == ["x", "x"], "where none may do it, all are"
    assert seen.trail == []


@pytest.mark.parametrize(
    ("envelope", "known"),
    [
        (chat(messages=[PICTURE]), route(UP, "x", capabilities=("vision",))),
        (chat(functions=[]), route(UP, "x", capabilities=("vision",))),
        (chat(tools=[]), route(UP, "x", capabilities=("vision",))),
        (LONG, route(UP, "x", context_length=16_000)),
        (chat(), route(UP, "x", modality="text", context_length=100)),
    ],
)
def test_a_route_that_can_is_kept(envelope: Envelope, known: Route) -> None:
    assert chosen([known, route(UP, "unknown")], envelope) == ["x", "unknown"]


def test_quoted_words_are_no_picture() -> None:
    told = chat(messages=[{"role": "user", "content": 'What do {"type": "image"} and "image_url" mean?'}])
    assert chosen([route(UP, "x", capabilities=("tools",)), route(UP, "y")], told) == ["x", "y"]


@pytest.mark.parametrize("escaped", [True, False])
@pytest.mark.parametrize("text", ["слово ", "λέξη ", "शब्द "])
def test_the_length_is_measured_in_characters_not_in_their_bytes(text: str, escaped: bool) -> None:
    """A window of 8,000 tokens takes 20,000 characters of any alphabet, even where JSON writes six bytes for each."""
    content = (text * 20_000)[:20_000]
    body = bytes(chat(messages=[{"role": "user", "content": content}]).body)
    if escaped:
        body = body.decode().encode("ascii", "backslashreplace")
    long = msgspec.structs.replace(chat(), body=body)
    assert chosen([route(UP, "x", context_length=8000), route(UP, "y")], long) == ["x", "y"]


PRICED = [
    route(UP, "here", price="local"),
    route(UP, "gift", price="free"),
    route(UP, "shop", price="paid"),
    route(UP, "unsaid"),
]


@pytest.mark.parametrize(
    ("mode", "models"),
    [
        ("auto", ["here", "gift", "shop", "unsaid"]),
        ("local_only", ["here"]),
        ("free_only", ["here", "gift"]),
        ("commercial_only", ["shop"]),
    ],
)
def test_a_selection_mode_allows_some_prices_only(mode: SelectionMode, models: list[str]) -> None:
    seen = visit()
    assert chosen(PRICED, mode=mode, seen=seen) == models
    assert sorted(name for name, _ in seen.trail) == sorted(f"up/{r.model}" for r in PRICED if r.model not in models)
    assert all(mode in why for _, why in seen.trail)


def test_a_mode_that_allows_none_is_refused_never_widened() -> None:
    for routes in ([PRICED[2]], PRICED[2:]):
        with pytest.raises(InvalidRequest) as refused:
            chosen(routes, mode="local_only")
        assert refused.value.param == "selection_mode"


def test_capabilities_do_not_bring_back_what_a_mode_forbids() -> None:
    routes = [route(UP, "here", price="local", capabilities=("tools",)), route(UP, "seer", price="paid")]
    assert chosen(routes, chat(messages=[PICTURE]), mode="local_only") == ["here"]


@pytest.mark.parametrize(
    ("dialect", "modality"), [("chat", "text"), ("messages", "text"), ("embeddings", "embedding"), ("images", "image")]
)
def test_a_dialect_says_what_is_made(dialect: str, modality: Modality) -> None:
    assert modality_of(msgspec.structs.replace(chat(), dialect=dialect)) == modality

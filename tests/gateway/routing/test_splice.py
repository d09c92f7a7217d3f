"""How another route's answer joins one that broke off."""

import asyncio
from collections.abc import AsyncGenerator, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compat.canonical.event import (
    Cited,
    Event,
    Finished,
    Metered,
    ReasoningDelta,
    Started,
    TextDelta,
    ToolDelta,
    Usage,
)
from compat.canonical.message import Message, Text
from compat.canonical.request import Sampling, Schema, TextRequest
from gateway.routing.splice import HELD_BACK, Broken, Diverged, Way, broken, joined, ways

START = Started(id="x", model="m", created=1)
END = Finished(reason="stop")
ASK = TextRequest(model="m", messages=(Message(role="user", parts=(Text(text="Go."),)),))
CALL = ToolDelta(call=0, id="c", name="f", arguments="{}")


def texts(*pieces: str) -> list[Event]:
    return [TextDelta(text=piece) for piece in pieces]


def so_far(*pieces: str) -> Broken:
    found = broken([START, *texts(*pieces)])
    assert found is not None
    return found


def join(events: Sequence[Event], beginnings: Sequence[str]) -> list[Event]:
    """What the client gets.  Raises Diverged, having got nothing."""
    got: list[Event] = []
    closed = False

    async def play() -> AsyncGenerator[Event, None]:
        nonlocal closed
        try:
            for event in events:
                yield event
        finally:
            closed = True

    async def work() -> None:
        try:
            async for event in joined(play(), beginnings):
                got.append(event)
        except Diverged:
            assert not got, "it is known before the first event"
            raise
        finally:
            assert closed

    asyncio.run(work())
    return got


def told(way: Way) -> str:
    last = way.request.messages[-1]
    assert last.role == "assistant"
    return "".join(part.text for part in last.parts if isinstance(part, Text))


@pytest.mark.parametrize(
    ("past", "pieces"),
    [
        ([START], []),
        ([START, *texts("a", "b")], ["a", "b"]),
        ([START, *texts("a"), Metered(usage=Usage())], ["a"]),
        ([START, ReasoningDelta(text="hm"), *texts("a")], ["a"]),
        ([START, ReasoningDelta(text="hm", signature="s"), *texts("a")], ["a"]),
        ([START, ReasoningDelta(text="hm")], None),
        ([START, *texts("a"), ReasoningDelta(text="hm")], None),
        ([START, *texts("a"), CALL], None),
        ([START, CALL], None),
        ([START, *texts("a"), END], None),
        ([START, TextDelta(text="b", choice=1)], None),
        ([START, *texts("a"), Cited(url="https://x.test", start=0, end=1)], None),
    ],
)
def test_only_text_can_be_gone_on_with(past: list[Event], pieces: list[str] | None) -> None:
    found = broken(past)
    assert (None if found is None else found.pieces) == pieces


def test_a_route_that_takes_prefills_gets_all_of_the_answer_and_may_say_anything_next() -> None:
    prefill, again = ways(ASK, so_far("Hello", " wor"), True)
    assert told(prefill) == "Hello wor"
    assert prefill.prefilled
    assert join([START, *texts("ld.")], prefill.beginnings) == texts("ld.")
    assert again == Way(request=ASK, beginnings=("Hello wor",), prefilled=False)


def test_one_that_does_not_is_asked_anew() -> None:
    assert ways(ASK, so_far("Hello"), False) == [Way(request=ASK, beginnings=("Hello",), prefilled=False)]


def test_one_that_may_is_told_less_and_has_to_prove_itself() -> None:
    pieces = [f" w{n}" for n in range(40)]
    prefill, again = ways(ASK, so_far(*pieces), None)
    assert told(prefill) == "".join(pieces[:-HELD_BACK])
    rest = "".join(pieces[-HELD_BACK:])
    assert join([START, *texts(rest + " w40")], prefill.beginnings) == texts(" w40")
    assert join([START, *texts(rest.lstrip() + " w40")], prefill.beginnings) == texts(" w40"), "a blank less"
    assert join([START, *texts(*pieces, " w40")], prefill.beginnings) == texts(" w40"), "or all of it once more"
    with pytest.raises(Diverged):
        join([START, *texts("Sure! Here it is:")], prefill.beginnings)
    assert again.beginnings == ("".join(pieces),)


@pytest.mark.parametrize("pieces", [["a"], ["Hello", "\n", "\n"], [" ", "x"], ["a", " ", " ", " ", " ", " ", " ", " "]])
def test_blanks_prove_nothing(pieces: list[str]) -> None:
    for way in ways(ASK, so_far(*pieces), None):
        assert all(beginning.strip() for beginning in way.beginnings)
        with pytest.raises(Diverged):
            join([START, *texts("\n", "Sure!"), END], way.beginnings)


@pytest.mark.parametrize("prefills", [True, None])
def test_no_prefill_ends_in_blanks(prefills: bool | None) -> None:
    """Anthropic refuses those; the blanks the client has must not come twice, nor be missing."""
    answer = so_far("One", " two", " three", " four", " five", "\n", "\n ")
    prefill = ways(ASK, answer, prefills)[0]
    assert told(prefill) == told(prefill).rstrip() != ""
    rest = answer.text[len(told(prefill)) :]
    assert join([START, *texts(rest + "six")], prefill.beginnings) == texts("six")
    assert join([START, *texts(rest.lstrip() + "six")], prefill.beginnings) == texts("six")


@pytest.mark.parametrize("prefills", [True, False, None])
def test_what_was_blank_or_bound_to_a_schema_is_asked_anew(prefills: bool | None) -> None:
    assert [way.prefilled for way in ways(ASK, so_far(" ", "\n"), prefills)] == [False]
    bound = TextRequest(model="m", messages=ASK.messages, schema=Schema(name="s", schema={}))
    assert [way.prefilled for way in ways(bound, so_far("{"), prefills)] == [False]


def test_a_prefill_goes_on_with_the_clients_own() -> None:
    own = Message(role="assistant", parts=(Text(text="I say: "),))
    asked = TextRequest(model="m", messages=(*ASK.messages, own))
    prefill = ways(asked, so_far("Hello"), True)[0]
    assert [message.role for message in prefill.request.messages] == ["user", "assistant"]
    assert told(prefill) == "I say: Hello"


def test_the_length_that_is_left_is_asked_for() -> None:
    asked = TextRequest(model="m", messages=ASK.messages, sampling=Sampling(max_tokens=10))
    pieces = [f" {n}" for n in range(8)]
    prefill, again = ways(asked, so_far(*pieces), True)
    assert prefill.request.sampling.max_tokens == 2
    assert again.request.sampling.max_tokens == 10
    assert ways(asked, so_far(*pieces, *pieces), True)[0].request.sampling.max_tokens == 1


def test_an_exact_repeat_is_left_out_however_it_is_cut() -> None:
    assert join([START, *texts("Hel", "lo w", "orld"), END], ["Hello"]) == [*texts(" w", "orld"), END]
    assert join([START, *texts("Hello", " world"), END], ["Hello"]) == [*texts(" world"), END]
    assert join([START, *texts("Hello"), END], ["Hello"]) == [END]


@pytest.mark.parametrize("other", [["Hallo"], ["H", "i"], ["hello"], ["Good", " day"]])
def test_another_answer_does_not_join(other: list[str]) -> None:
    with pytest.raises(Diverged):
        join([START, *texts(*other), END], ["Hello"])


@pytest.mark.parametrize("end", [END, CALL])
def test_an_answer_that_ends_before_it_has_repeated_all_does_not_join(end: Event) -> None:
    with pytest.raises(Diverged):
        join([START, *texts("Hel"), end], ["Hello"])
    with pytest.raises(Diverged):
        join([START, end], ["Hello"])


def test_a_call_may_follow_the_repeat() -> None:
    assert join([START, *texts("Hello"), CALL, END], ["Hello"]) == [CALL, END]
    assert join([START, *texts("Hello"), CALL, END], ["Hello", "Hello there"]) == [CALL, END]


def test_of_two_beginnings_the_longer_is_left_out_once_it_is_clear() -> None:
    beginnings = ["One two", "One"]
    assert join([START, *texts("One", " two", " three")], beginnings) == texts(" three")
    assert join([START, *texts("One", " four")], beginnings) == texts(" four")
    assert join([START, *texts("One"), END], beginnings) == [END]


def test_it_starts_thinks_and_cites_for_itself() -> None:
    cited = Cited(url="https://x.test", start=0, end=1)
    events = [START, ReasoningDelta(text="hm"), *texts("He"), cited, *texts("llo", "!"), END, Metered(usage=Usage())]
    assert join(events, ["Hello"]) == [*texts("!"), END, Metered(usage=Usage())]


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_the_clients_text_comes_out_whole(data: st.DataObject) -> None:
    """For any answer, broken off anywhere, and any route that goes on with it or repeats it, however cut."""
    text = data.draw(st.text("ab \n", min_size=2, max_size=60))
    at = data.draw(st.integers(1, len(text)))
    answer = so_far(*_cut(data, text[:at]))
    prefills = data.draw(st.sampled_from([True, False, None]))
    for way in ways(ASK, answer, prefills):
        whole = text[len(told(way)) :] if way.prefilled else text
        got = join([START, *texts(*_cut(data, whole)), END], way.beginnings)
        assert got[-1] == END
        assert text[:at] + "".join(event.text for event in got if isinstance(event, TextDelta)) == text


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_what_does_not_repeat_is_never_joined(data: st.DataObject) -> None:
    letters = st.text("ab ", min_size=1, max_size=12)
    first, other = data.draw(letters), data.draw(letters)
    try:
        got = join([START, *texts(*_cut(data, other)), END], [first])
    except Diverged:
        assert not other.startswith(first)
    else:
        assert first + "".join(event.text for event in got if isinstance(event, TextDelta)) == other


def _cut(data: st.DataObject, text: str) -> list[str]:
    cuts = sorted(data.draw(st.sets(st.integers(0, len(text)), max_size=8)))
    return [text[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(text)], strict=True) if begin < end]

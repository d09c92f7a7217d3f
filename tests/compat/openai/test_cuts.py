"""Every recorded stream of OpenAI's dialects, arriving in any pieces, comes out as if it had come whole."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compat.canonical.request import Dialect, Envelope
from compat.sse import Cutter
from compat.taps import AnyTap, tap
from tests.wire import FIXTURES, fixture

STREAMS = sorted(path.name for path in (FIXTURES / "openai").glob("*.sse"))


def watching(name: str) -> AnyTap:
    dialect: Dialect = "chat"
    if name.startswith("responses"):
        dialect = "responses"
    elif name.startswith("image"):
        dialect = "images"
    elif name.startswith("completions"):
        dialect = "completions"
    return tap(Envelope(dialect=dialect, model="m", stream=True, fields={}, body=b"{}", wants_usage=True))


def passed(name: str, cuts: list[int]) -> tuple[bytes, object, bool]:
    """What the client gets of a stream cut at these places, and what was seen of it."""
    stream, cutter, watch = fixture(name), Cutter(), watching(name)
    ends = [*sorted({cut % (len(stream) + 1) for cut in cuts}), len(stream)]
    out, begin = b"", 0
    for end in ends:
        if events := cutter.feed(stream[begin:end]):
            out += watch.feed(events)
        begin = end
    if events := cutter.flush():
        out += watch.feed(events)
    return out + watch.end(), watch.usage, watch.finished


@pytest.mark.parametrize("name", STREAMS)
def test_a_cut_at_any_byte_changes_nothing(name: str) -> None:
    whole = passed(name, [])
    assert whole[2]
    step = max(len(fixture(name)) // 400, 1)  # each byte of the small ones, each event of the large
    for cut in range(0, len(fixture(name)), step):
        assert passed(name, [cut]) == whole


@given(st.sampled_from(STREAMS), st.lists(st.integers(0, 2**20), max_size=40))
def test_many_cuts_change_nothing_either(name: str, cuts: list[int]) -> None:
    assert passed(name, cuts) == passed(name, [])


def test_all_dialects_are_among_them() -> None:
    kinds = {json.dumps(type(watching(name)).__name__) for name in STREAMS}
    assert len(kinds) == 3

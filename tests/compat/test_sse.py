"""Bytes to whole events, however they arrive."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compat.sse import Cutter, TooLong, data_of, frame, name_of, split
from tests.wire import fixture

FILES = ["text.sse", "tools.sse", "two.sse", "comments.sse", "vendor.sse"]


def whole(pieces: list[bytes]) -> bytes:
    cutter = Cutter()
    return b"".join([*(cutter.feed(piece) for piece in pieces), cutter.flush()])


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"], ids=["LF", "CRLF", "CR"])
def test_a_cut_at_any_byte_gives_the_same_events(name: str, end: bytes) -> None:
    wire = fixture(name).replace(b"\n", end)
    for cut in range(len(wire) + 1):
        assert whole([wire[:cut], wire[cut:]]) == fixture(name)


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"], ids=["LF", "CRLF", "CR"])
def test_byte_by_byte_gives_the_same_events(end: bytes) -> None:
    wire = fixture("text.sse").replace(b"\n", end)
    assert whole([wire[n : n + 1] for n in range(len(wire))]) == fixture("text.sse")


@given(st.lists(st.binary(max_size=12)), st.sampled_from([b"\n", b"\r\n", b"\r"]))
def test_any_chopping_gives_the_same_events(pieces: list[bytes], end: bytes) -> None:
    wire = b"".join(pieces).replace(b"\r", b"").replace(b"\n", b"") + end * 2
    chopped = [wire[n : n + 3] for n in range(0, len(wire), 3)]
    assert split(whole(chopped)) == split(whole([wire]))


@given(st.lists(st.sampled_from([b"\n", b"\r", b"\r\n", b"a", b"data: x", b"\n\n", b""])))
def test_what_comes_out_is_always_whole_events(pieces: list[bytes]) -> None:
    cutter = Cutter()
    for piece in pieces:
        out = cutter.feed(piece)
        assert out == b"" or out.endswith(b"\n\n")
        assert b"\r" not in out
    rest = cutter.flush()
    assert rest == b"" or rest.endswith(b"\n\n")


def test_an_event_is_held_back_until_it_is_whole() -> None:
    cutter = Cutter()
    assert cutter.feed(b"data: 1\n\ndata: 2\n") == b"data: 1\n\n"
    assert cutter.feed(b"") == b""
    assert cutter.feed(b"\n") == b"data: 2\n\n"
    assert cutter.flush() == b""


def test_the_last_event_may_lack_its_empty_line() -> None:
    cutter = Cutter()
    assert cutter.feed(b"data: 1\n\ndata: [DONE]\n") == b"data: 1\n\n"
    assert cutter.flush() == b"data: [DONE]\n\n"
    assert cutter.flush() == b""


def test_an_event_beyond_the_limit_is_refused_while_it_grows() -> None:
    cutter = Cutter(limit=100)
    cutter.feed(b"data: " + b"x" * 90)
    with pytest.raises(TooLong):
        cutter.feed(b"x" * 10)


def test_many_small_events_are_no_large_one() -> None:
    cutter = Cutter(limit=100)
    for _ in range(100):
        assert cutter.feed(b"data: " + b"x" * 50 + b"\n\n")


def test_a_byte_at_a_time_costs_no_more_than_its_length() -> None:
    cutter = Cutter()
    for _ in range(300_000):
        cutter.feed(b"x")
    assert cutter.feed(b"\n\n").endswith(b"x\n\n")


@pytest.mark.parametrize(
    ("event", "data", "name"),
    [
        (b"data: x", b"x", "message"),
        (b"data:x", b"x", "message"),
        (b"data:  x", b" x", "message"),
        (b"data: a\ndata: b", b"a\nb", "message"),
        (b"event: error\ndata: {}", b"{}", "error"),
        (b"event:ping\nid: 7\ndata:", b"", "ping"),
        (b": comment", b"", "message"),
        (b"data", b"", "message"),
        (b"retry: 3", b"", "message"),
    ],
)
def test_an_event_is_read_as_the_standard_says(event: bytes, data: bytes, name: str) -> None:
    assert data_of(event) == data
    assert name_of(event) == name


@given(st.binary().filter(lambda b: b"\n" not in b and b"\r" not in b), st.sampled_from([None, "error", "text.delta"]))
def test_a_frame_is_read_back(data: bytes, name: str | None) -> None:
    [event] = split(whole([frame(data, name)]))
    assert data_of(event) == data
    assert name_of(event) == (name or "message")

"""How a client stands, in headers."""

from gateway.limits.counters import Level
from gateway.limits.standing import Standing, moment


def test_a_moment_beyond_the_calendar_is_its_end() -> None:
    assert moment(0.0) == "1970-01-01T00:00:00Z"
    assert moment(1e18) == moment(float("inf")) == "9999-12-31T23:59:59Z"
    headers = dict(Standing(None, Level(1, -1e18), anthropic=True).over(()))
    assert headers[b"anthropic-ratelimit-tokens-reset"] == b"9999-12-31T23:59:59Z"


def test_what_is_undone_is_left_again_and_never_more_than_there_is() -> None:
    standing = Standing(Level(10, 8.0), Level(100, 40.0), anthropic=False)
    assert standing.undone(30.0) == Standing(Level(10, 9.0), Level(100, 70.0), anthropic=False)
    assert standing.undone(1000.0) == Standing(Level(10, 9.0), Level(100, 100.0), anthropic=False)

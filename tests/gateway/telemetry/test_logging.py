"""What is written to the log: redacted, one object a line, whoever wrote it."""

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from gateway.telemetry.logging import MASK, Redactor, configure, logger

KNOWN = 'known "secret" \\ canary'


@pytest.fixture
def redactor() -> Redactor:
    return Redactor()


@pytest.fixture
def out(redactor: Redactor) -> Iterator[io.StringIO]:
    """A log of level info; the process's own logging is put back afterwards."""
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    stream = io.StringIO()
    redactor.learn([KNOWN, "short"])
    configure("info", "json", redactor, stream)
    yield stream
    structlog.reset_defaults()
    root.handlers[:] = before
    root.setLevel(level)


def lines(out: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.getvalue().splitlines()]


@pytest.mark.parametrize(
    "secret",
    [
        "sk-proj-abcdefgh12345678", "sk_live_abcdefgh1234", "gsk_abcdefgh12345678", "hf_abcdefghijklmnop",
        "xai-abcdefgh12345678", "ghp_abcdefgh12345678", "github_pat_11ABCDEFG0abcdefgh", "nvapi-abcdefgh12345678",
        "AIzaSyA1234567890abcdefghijklmnop", "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln", "Bearer abcdefgh12345678",
        "csk-abcdefgh12345678", "fw_abcdefgh12345678", KNOWN,
    ],
)  # fmt: skip
def test_what_is_or_looks_like_a_secret_is_masked(out: io.StringIO, secret: str) -> None:
    logger().warning("thing_happened", note=f"before {secret} after", nested={"deep": [secret]})
    logging.getLogger("thirdparty").warning("said %s", secret)
    try:
        raise ValueError(secret)
    except ValueError:
        logger().exception("thing_failed")
    text = out.getvalue()
    assert secret not in text
    assert json.dumps(secret)[1:-1] not in text
    assert text.count(MASK) >= 4
    assert lines(out)[0]["event"] == "thing_happened"


@pytest.mark.parametrize("name", ["authorization", "Authorization", "api_key", "api-key", "client_secret", "password"])
def test_what_is_called_a_secret_is_masked(out: io.StringIO, name: str) -> None:
    logger().warning("thing_happened", **{name: "anything", "token": "t", "input_tokens": 3})
    [line] = lines(out)
    assert line[name] == MASK
    assert line["token"] == MASK
    assert line["input_tokens"] == 3


@pytest.mark.parametrize(
    "secret",
    [
        '","level":"',
        "12345678.5",
        "nalphabet",
        ":null,true",
        "{}[],:{}[],:",
        "request_finished",
        'é "and" more',
        "timestamp",
    ],
)
def test_a_line_stays_one_whatever_is_a_secret(out: io.StringIO, redactor: Redactor, secret: str) -> None:
    redactor.learn([secret])
    logger().warning(
        "request_finished", note=f"a\n{secret}!", n=12345678.5, empty=None, yes=True, deep=[{secret: [secret]}]
    )
    [line] = lines(out)
    assert line["note"] == f"a\n{MASK}!"
    assert line["deep"] == [{MASK: [MASK]}]
    assert (line["n"], line["yes"], line["level"]) == (12345678.5, True, "warning")


@pytest.mark.parametrize(
    "word",
    [
        "request_finished",
        "total_s",
        '"error":{"message":"',
        "/v1/chat/completions",
        "a" * 40,
        "1" * 40,
        "a b" * 20,
        "up1",
    ],
)
def test_what_could_be_an_ordinary_word_is_no_secret_of_a_users(
    out: io.StringIO, redactor: Redactor, word: str
) -> None:
    redactor.learn_users([word])
    logger().warning("request_finished", total_s=1, route="/v1/chat/completions", note=word)
    [line] = lines(out)
    assert line["note"] == word
    assert (line["event"], line["route"]) == ("request_finished", "/v1/chat/completions")


def test_a_users_secret_is_masked_but_does_not_hide_who_asked(out: io.StringIO, redactor: Redactor) -> None:
    key = "0b5c8f1e-aaaa-4bbb-8ccc-0123456789ab"
    redactor.learn_users([key])
    logger().warning("request_finished", principal=key, note=f"with {key}")
    [line] = lines(out)
    assert (line["principal"], line["note"]) == (key, f"with {MASK}")
    assert redactor.answer(key, []) == key, "others are told what they said"
    assert redactor.answer(key, [key]) == MASK
    assert redactor.answer(KNOWN, []) == MASK


def test_a_token_at_the_beginning_of_a_line_is_masked(out: io.StringIO) -> None:
    logger().warning("thing_happened", note="it said:\nsk-proj-abcdefgh12345678")
    assert "sk-proj" not in out.getvalue()


def test_a_line_says_when_how_bad_and_what_first(out: io.StringIO) -> None:
    logger().info("thing_happened", a=1, b=None, c=1.5, d="x\ny")
    assert list(lines(out)[0])[:3] == ["timestamp", "level", "event"]
    assert lines(out)[0]["d"] == "x\ny"


def test_what_is_below_the_level_is_not_written(out: io.StringIO) -> None:
    logger().debug("detail")
    logging.getLogger("httpx2").info("GET /")
    logging.getLogger("aiosqlite").info("SELECT")
    assert out.getvalue() == ""


async def test_lines_inside_a_loop_are_written_in_their_order(out: io.StringIO) -> None:
    logger().info("first")
    logger().info("second")
    logger().warning("third")
    assert [line["event"] for line in lines(out)] == ["first", "second", "third"]


def test_a_log_that_nobody_reads_ends_nothing() -> None:
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    try:
        configure("info", "json", Redactor(), Gone())
        logger().warning("thing_happened")
    finally:
        structlog.reset_defaults()
        root.handlers[:] = before
        root.setLevel(level)


def test_fields_of_our_own_packages_stand_by_themselves_and_those_of_others_do_not(out: io.StringIO) -> None:
    extra = {"backend": "local", "model": "smol", "log": "last words", "token": "hidden-one"}
    logging.getLogger("backends.local.pool.seat").error("worker_failed", extra=extra)
    logging.getLogger("thirdparty").error("said", extra={"color_message": "said in red"})
    ours, theirs = lines(out)
    assert (ours["event"], ours["backend"], ours["model"], ours["log"]) == (
        "worker_failed",
        "local",
        "smol",
        "last words",
    )
    assert ours["token"] == MASK
    assert "color_message" not in theirs

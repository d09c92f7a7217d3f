"""While a streamed answer is awaited, its client is sent comments, so that nothing between hangs up."""

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx2
import pytest

from tests import wire
from tests.exchange import Exchange
from tests.gateway.conftest import config, speaking
from tests.http import CHAT, chat, error_of, events_of, in_band_error, text_of
from tests.process import gateway
from tests.provider import Provider

COMMENT = b": keep-alive\n\n"


@pytest.fixture(scope="module")
def impatient(running_provider: Provider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx2.Client]:
    """Speaks to a gateway that waits 0.15 s for an event, not 10 or 45."""
    prelude = "import gateway.api.reply; gateway.api.reply.KEEP_ALIVE_S = gateway.api.reply.HEADLESS_S = 0.15"
    with (
        gateway(tmp_path_factory.mktemp("awake"), config(running_provider.url), prelude=prelude) as running,
        speaking(running) as http,
    ):
        yield http


def test_a_silent_stream_is_kept_awake_before_and_between_its_events(
    impatient: httpx2.Client, upstream: Provider
) -> None:
    body = b""
    with impatient.stream(
        "POST", CHAT, json=chat("up/stall:1", stream=True), headers={"x-request-timeout": "2"}
    ) as got:
        assert got.status_code == 200
        for piece in got.iter_bytes():
            body += piece
            if body.count(COMMENT) == 3:
                break
    assert text_of(body) == "word0 "
    assert body.endswith(COMMENT)


def test_a_quick_stream_has_no_comments(impatient: httpx2.Client, upstream: Provider) -> None:
    assert COMMENT not in impatient.post(CHAT, json=chat("up/answer", stream=True)).content


def test_a_slow_start_is_kept_awake_and_then_answered(impatient: httpx2.Client, upstream: Provider) -> None:
    async def slow(x: Exchange) -> None:
        await asyncio.sleep(0.5)
        x.begin()
        for frame in wire.stream(["late"], include_usage=x.wants_usage):
            x.send(frame)
        x.end()

    upstream.scripts["slow"] = slow
    got = impatient.post(CHAT, json=chat("up/slow", stream=True))
    assert got.headers["content-type"].startswith("text/event-stream")
    assert got.content.startswith(COMMENT)
    assert text_of(got.content) == "late"
    assert events_of(got.content)[-1] == b"[DONE]"


def test_an_error_after_a_comment_is_told_in_band(impatient: httpx2.Client, upstream: Provider) -> None:
    got = impatient.post(CHAT, json=chat("up/silent", stream=True), headers={"x-request-timeout": "0.5"})
    assert got.status_code == 200
    assert got.content.startswith(COMMENT)
    assert in_band_error(got.content)["code"] == "upstream_timeout"


@pytest.fixture(scope="module")
def patient(running_provider: Provider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx2.Client]:
    """The same, but for answers that have not begun: for these, 45 s it is."""
    prelude = "import gateway.api.reply; gateway.api.reply.KEEP_ALIVE_S = 0.15"
    tree = config(running_provider.url)
    tree["backends"]["narrow"] = {"kind": "openai", "base_url": running_provider.url, "concurrent": 1}
    with (
        gateway(tmp_path_factory.mktemp("patient"), tree, prelude=prelude) as running,
        speaking(running) as http,
    ):
        yield http


def test_a_failure_after_silence_is_still_told_by_its_status(patient: httpx2.Client, upstream: Provider) -> None:
    got = patient.post(CHAT, json=chat("up/silent", stream=True), headers={"x-request-timeout": "1"})
    assert got.status_code == 504
    assert error_of(got)["code"] == "upstream_timeout"


def test_an_answer_that_has_begun_is_kept_awake_as_ever(patient: httpx2.Client, upstream: Provider) -> None:
    got = patient.post(CHAT, json=chat("up/stall:1", stream=True), headers={"x-request-timeout": "1"})
    assert got.status_code == 200
    assert got.content.count(COMMENT) >= 2


def test_who_waits_in_a_queue_is_kept_awake(patient: httpx2.Client, upstream: Provider) -> None:
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(patient.post, CHAT, json=chat("narrow/events:1:1", stream=True))
        upstream.asked()
        got = patient.post(CHAT, json=chat("narrow/answer", stream=True))
        assert COMMENT not in first.result().content.partition(b"data: ")[0]
    assert got.content.startswith(COMMENT)
    assert text_of(got.content) == "word0 word1 word2 "


def test_an_unstreamed_answer_is_never_preceded_by_comments(impatient: httpx2.Client, upstream: Provider) -> None:
    got = impatient.post(CHAT, json=chat("up/events:5:0.1"))
    assert got.content == wire.completion("".join(f"word{n} " for n in range(5)))

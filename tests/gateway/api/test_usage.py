"""GET /v1/usage: what requests cost, as those may see it who ask."""

import csv
import io
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import pytest

from gateway.__main__ import main
from tests import wire
from tests.claude import Claude
from tests.exchange import Exchange
from tests.gateway.conftest import config, speaking
from tests.http import CHAT, chat, error_of
from tests.process import Gateway, gateway
from tests.provider import Provider

KEYS = {
    "app": ("usage-app-key-canary-1", "acme", ["inference"]),
    "batch": ("usage-batch-key-canary-2", "acme", ["inference"]),
    "rival": ("usage-rival-key-canary-3", "rival", ["inference"]),
    "reader": ("usage-reader-key-canary-4", "acme", ["models:read"]),
    "root": ("usage-root-key-canary-5", "default", ["admin"]),
}
Speak = Callable[[str], httpx2.Client]
DISGUISED = (" =1+1", "\n=1+1", "\r\n+1", " \t-1", "\tx", "\rx", "\u00a0@x", "\uff1d1+1")
"""Formulas all the same, for some spreadsheet."""

COLUMNS = [
    "request_id", "created_at", "tenant", "principal", "key", "route", "requested_model", "backend", "model", "status",
    "code", "attempts", "streamed", "input_tokens", "output_tokens", "cached_tokens", "reasoning_tokens",
    "cache_written_tokens", "cost_usd", "price_source", "price_date", "queue_s", "load_s", "first_token_s", "total_s",
]  # fmt: skip


@pytest.fixture(scope="module")
def running_books(
    running_provider: Provider, running_anthropic: Claude, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    tree = config(running_provider.url)
    tree["auth"] = {
        "mode": "api_key",
        "keys": [
            {"name": name, "key": key, "tenant": tenant, "scopes": scopes}
            for name, (key, tenant, scopes) in KEYS.items()
        ],
    }
    tree["backends"] |= {
        "openai": {"kind": "openai", "base_url": running_provider.url, "api_key": "k"},
        "metered": {"kind": "openai", "base_url": running_provider.url, "api_key": "k"},
        "claude": {"kind": "anthropic", "base_url": running_anthropic.url, "api_key": "k"},
    }
    tree["prices"] = {"metered/*": {"input": 2, "output": 8, "cached_input": 0.5, "request": 0.001}}
    with gateway(tmp_path_factory.mktemp("books"), tree) as running:
        yield running


@pytest.fixture
def books(running_books: Gateway, upstream: Provider, anthropics: Claude) -> Gateway:
    return running_books


@pytest.fixture
def speak(books: Gateway) -> Iterator[Speak]:
    """Speaks to that gateway with one of the keys."""
    spoken: dict[str, httpx2.Client] = {}

    def to(name: str) -> httpx2.Client:
        if name not in spoken:
            spoken[name] = speaking(books, {"authorization": f"Bearer {KEYS[name][0]}"})
        return spoken[name]

    yield to
    for http in spoken.values():
        http.close()


def usage(http: httpx2.Client, **query: Any) -> dict[str, Any]:
    answer = http.get("/v1/usage", params=query)
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    assert body["object"] == "list"
    return body


def row_of(http: httpx2.Client, answer: httpx2.Response) -> dict[str, Any]:
    id_ = answer.headers["x-request-id"]
    [row] = [row for row in usage(http, limit=500)["data"] if row["request_id"] == id_]
    return dict(row)


def spending(tokens: dict[str, Any]) -> Callable[[Exchange], Any]:
    """A script that answers with this usage."""

    async def script(x: Exchange) -> None:
        said = wire.dump(wire.USAGE)
        if x.streams:
            x.begin()
            for frame in wire.stream(["Hi"], include_usage=True):
                x.send(frame.replace(said, wire.dump(tokens)))
            x.end()
        else:
            x.answer(wire.completion().replace(said, wire.dump(tokens)))

    return script


def test_a_request_is_found_at_once_with_all_that_it_took(speak: Speak) -> None:
    before = datetime.now(UTC)
    answer = speak("app").post(CHAT, json=chat("metered/answer"))
    row = row_of(speak("app"), answer)
    assert list(row) == COLUMNS
    # 9 tokens of which 4 were cached, 12 out: 5 * $2 + 4 * $0.50 + 12 * $8 a million, and $0.001.
    expected = {
        "tenant": "acme", "principal": "app", "key": "app", "route": CHAT, "requested_model": "metered/answer",
        "backend": "metered", "model": "answer", "status": 200, "code": None, "attempts": 1, "streamed": False,
        "input_tokens": 9, "output_tokens": 12, "cached_tokens": 4, "reasoning_tokens": 0,
        "cache_written_tokens": None, "cost_usd": 0.001108, "price_source": "config", "price_date": None,
        "queue_s": 0, "load_s": 0,
    }  # fmt: skip
    assert {name: row[name] for name in expected} == expected
    assert 0 < row["first_token_s"] <= row["total_s"]
    assert row["created_at"].endswith("Z")
    at = datetime.fromisoformat(row["created_at"])
    assert before - timedelta(seconds=1) < at < datetime.now(UTC) + timedelta(seconds=1)


def test_what_public_models_cost(speak: Speak, upstream: Provider) -> None:
    cached = {
        "prompt_tokens": 1_000, "completion_tokens": 500, "prompt_tokens_details": {"cached_tokens": 400},
        "completion_tokens_details": {"reasoning_tokens": 300},
    }  # fmt: skip
    upstream.scripts["gpt-5"] = spending(cached)
    for stream in (False, True):
        row = row_of(speak("app"), speak("app").post(CHAT, json=chat("openai/gpt-5", stream=stream)))
        assert (row["cached_tokens"], row["reasoning_tokens"], row["streamed"]) == (400, 300, stream)
        assert row["cost_usd"] == 0.0058  # 600 * $1.25 + 400 * $0.125 + 500 * $10 a million
        assert row["price_source"].startswith("genai-prices ")
        assert row["price_date"]
    # An alias has the price of the model that its provider says it was: 5 * $0.15 + 4 * $0.075 + 12 * $0.60.
    row = row_of(speak("app"), speak("app").post(CHAT, json=chat("openai/answer")))
    assert (row["model"], row["cost_usd"]) == ("answer", 8.25e-6)


def test_caches_of_anthropic_cost_what_they_cost(speak: Speak) -> None:
    body = {"model": "claude/claude-opus-4-6:text", "max_tokens": 50, "messages": [{"role": "user", "content": "x"}]}
    for stream in (False, True):
        for path, asked in (("/v1/messages", body), (CHAT, chat("claude/claude-opus-4-6:text"))):
            row = row_of(speak("app"), speak("app").post(path, json=asked | {"stream": stream}))
            assert (row["input_tokens"], row["cached_tokens"], row["cache_written_tokens"]) == (135, 100, 10)
            # 25 * $5 + 100 * $0.50 + 10 * $6.25 + 15 * $25 a million.
            assert (row["output_tokens"], row["cost_usd"]) == (15, 0.0006125)


def test_counting_tokens_costs_nothing(speak: Speak) -> None:
    body = {"model": "claude/claude-opus-4-6", "messages": [{"role": "user", "content": "x"}]}
    row = row_of(speak("app"), speak("app").post("/v1/messages/count_tokens", json=body))
    assert (row["status"], row["cost_usd"]) == (200, 0)


def test_a_cost_that_is_not_known_is_null_and_never_zero(speak: Speak, upstream: Provider) -> None:
    http = speak("batch")
    upstream.scripts["gpt-5"] = spending({"prompt_tokens": 10})
    for model in ("up/answer", "openai/gpt-5", "openai/status:400"):
        row = row_of(http, http.post(CHAT, json=chat(model)))
        assert row["cost_usd"] is None
        text = http.get("/v1/usage", params={"format": "csv", "model": row["model"]}).text
        told = next(line for line in csv.DictReader(io.StringIO(text)) if line["request_id"] == row["request_id"])
        assert told["cost_usd"] == ""
    row = row_of(http, http.post(CHAT, json=chat("fake/fake")))
    assert (row["cost_usd"], row["price_source"]) == (0, "free")
    assert usage(http, group_by="backend", model="up/answer")["data"][0]["cost_usd"] is None


def test_a_stream_that_breaks_has_what_was_metered(speak: Speak) -> None:
    row = row_of(speak("app"), speak("app").post(CHAT, json=chat("openai/tear:2", stream=True)))
    assert (row["code"], row["input_tokens"], row["cost_usd"]) == ("upstream_unreachable", None, None)


def test_refused_requests_are_rows_that_cost_nothing_where_it_is_known_who_asked(speak: Speak, books: Gateway) -> None:
    row = row_of(speak("app"), speak("app").post(CHAT, json=chat("no-such-model")))
    assert (row["status"], row["code"], row["backend"], row["attempts"]) == (404, "model_not_found", None, 0)
    assert (row["cost_usd"], row["price_source"]) == (0, None)
    with speaking(books, {"authorization": "Bearer not-a-key-of-this-house"}) as stranger:
        id_ = stranger.post(CHAT, json=chat("fake/fake")).headers["x-request-id"]
    assert id_ not in {row["request_id"] for row in usage(speak("root"), limit=500)["data"]}


def test_everybody_sees_their_own_and_admins_see_all(speak: Speak) -> None:
    ids = {name: speak(name).post(CHAT, json=chat("fake/fake")).headers["x-request-id"] for name in KEYS}

    def seen(name: str, **query: Any) -> set[str]:
        rows = usage(speak(name), limit=500, **query)["data"]
        return {who for who, id_ in ids.items() if id_ in {row["request_id"] for row in rows}}

    assert seen("app") == seen("app", user="app") == seen("app", tenant="acme") == {"app"}
    assert seen("batch") == {"batch"}
    assert seen("rival") == {"rival"}
    assert seen("app", key="batch") == set()
    assert seen("root") == {"app", "batch", "rival", "root"}
    assert seen("root", tenant="acme") == {"app", "batch"}
    assert seen("root", user="rival") == seen("root", key="rival") == {"rival"}
    assert seen("root", tenant="acme", user="rival") == set()
    for query, param in (
        ({"tenant": "rival"}, "tenant"), ({"user": "batch"}, "user"), ({"user": "rival", "tenant": "rival"}, "tenant")
    ):  # fmt: skip
        refused = speak("app").get("/v1/usage", params=query)
        assert refused.status_code == 403
        assert error_of(refused)["param"] == param
    assert speak("reader").get("/v1/usage").status_code == 403
    for by in ("user", "tenant", "key"):
        [group] = usage(speak("rival"), group_by=by)["data"]
        assert group[by] == "rival"
    assert seen("rival", group_by="") == {"rival"}
    text = speak("rival").get("/v1/usage", params={"format": "csv"}).text
    assert {line["principal"] for line in csv.DictReader(io.StringIO(text))} == {"rival"}


def test_rows_come_newest_first_page_by_page(speak: Speak) -> None:
    http = speak("app")
    sent = [http.post(CHAT, json=chat("fake/fake")).headers["x-request-id"] for _ in range(5)]
    found: list[str] = []
    page = usage(http, limit=2, backend="fake")
    while True:
        assert len(page["data"]) <= 2
        found += [row["request_id"] for row in page["data"]]
        if page["next_cursor"] is None:
            break
        page = usage(http, limit=2, backend="fake", cursor=page["next_cursor"])
    assert found[:5] == sent[::-1]
    assert len(found) == len(set(found))


def test_sums(speak: Speak) -> None:
    http = speak("rival")
    begun = datetime.now(UTC).isoformat()
    for model in ("metered/answer", "metered/answer", "metered/status:500", "up/answer", "fake/fake", "nothing"):
        http.post(CHAT, json=chat(model))
    answer = usage(http, **{"group_by": "backend,status", "from": begun})
    assert answer["next_cursor"] is None
    names = (
        "backend",
        "status",
        "requests",
        "errors",
        "input_tokens",
        "output_tokens",
        "cost_usd",
        "unpriced_requests",
    )
    found = {tuple(group[name] for name in names) for group in answer["data"]}
    assert found == {
        ("metered", 200, 2, 0, 18, 24, 0.002216, 0),
        ("metered", 502, 1, 1, 0, 0, None, 1),
        ("up", 200, 1, 0, 9, 12, None, 1),
        ("fake", 200, 1, 0, 1, 5, 0, 0),
        (None, 404, 1, 1, 0, 0, 0, 0),
    }
    totals = answer["totals"]
    assert (totals["requests"], totals["errors"], totals["unpriced_requests"]) == (6, 2, 2)
    assert (totals["cost_usd"], totals["cached_tokens"]) == (0.002216, 12)
    assert totals["total_s"] > 0
    now = datetime.now(UTC)
    [group] = usage(http, **{"group_by": "month,day,hour,route", "from": begun})["data"][-1:]
    assert begun[:13] <= group["hour"][:13] <= f"{now:%Y-%m-%dT%H}"
    assert group["hour"].endswith(":00:00Z")
    assert (group["day"], group["month"], group["route"]) == (group["hour"][:10], group["hour"][:7], CHAT)
    paged: list[Any] = []
    page = usage(http, **{"group_by": "backend,status", "from": begun, "limit": 2})
    while True:
        paged += page["data"]
        assert page["totals"]["requests"] == 6
        if page["next_cursor"] is None:
            break
        page = usage(http, **{"group_by": "backend,status", "from": begun, "limit": 2, "cursor": page["next_cursor"]})
    assert [group["requests"] for group in paged] == [group["requests"] for group in answer["data"]]


def test_only_what_is_asked_for(speak: Speak) -> None:
    http = speak("batch")
    http.post(CHAT, json=chat("up/answer"))
    http.post(CHAT, json=chat("fake/fake"))
    for query in ({"model": "up/answer"}, {"model": "answer"}, {"backend": "up"}):
        rows = usage(http, **query)["data"]
        assert rows
        assert {row["backend"] for row in rows} == {"up"}
    now = datetime.now(UTC)
    today, tomorrow = f"{now:%Y-%m-%d}", f"{now + timedelta(days=1):%Y-%m-%d}"
    assert usage(http, **{"from": f"{now - timedelta(days=1):%Y-%m-%d}", "to": tomorrow})["data"]
    assert usage(http, to=f"{now - timedelta(hours=1):%Y-%m-%dT%H:%M:%S+00:00}")["data"] == []
    assert usage(http, **{"from": "1999-01-01", "to": "2001-01-01", "group_by": "month"})["data"] == []
    assert usage(http, **{"from": "1999-01-01", "group_by": "month"})["data"][-1]["month"] in (today[:7], tomorrow[:7])


def test_csv(speak: Speak) -> None:
    http = speak("batch")
    for model in ("metered/answer", '=cmd|"/c calc"!A1', "+1", "-1", "@x", 'quo"te,\nline', *DISGUISED):
        http.post(CHAT, json=chat(model))
    for answer in (
        http.get("/v1/usage", params={"format": "csv"}),
        http.get("/v1/usage", headers={"accept": "text/csv"}),
    ):
        assert answer.headers["content-type"] == "text/csv; charset=utf-8"
        assert answer.headers["content-disposition"] == 'attachment; filename="usage.csv"'
        reader = csv.DictReader(io.StringIO(answer.text, newline=""))
        assert reader.fieldnames == COLUMNS
        lines = list(reader)
        assert len(lines) == usage(http, group_by="user")["totals"]["requests"]
        disguised, lines = lines[: len(DISGUISED)], lines[len(DISGUISED) :]
        assert [line["requested_model"] for line in disguised] == [f"'{name}" for name in reversed(DISGUISED)]
        names = [line["requested_model"] for line in lines[:6]]
        assert names == ['quo"te,\nline', "'@x", "'-1", "'+1", '\'=cmd|"/c calc"!A1', "metered/answer"]
        assert not any(cell.startswith(("=", "+", "-", "@")) for line in lines for cell in line.values())
        last = lines[5]
        assert (last["cost_usd"], last["streamed"], last["status"]) == ("0.001108", "false", "200")
    sums = http.get("/v1/usage", params={"format": "csv", "group_by": "backend"}).text
    lines = list(csv.DictReader(io.StringIO(sums)))
    told = {group["backend"]: group for group in usage(http, group_by="backend")["data"]}
    assert {line["backend"] or None for line in lines} == set(told)
    for line in lines:
        group = told[line["backend"] or None]
        assert (line["cost_usd"] and float(line["cost_usd"])) == (
            "" if group["cost_usd"] is None else group["cost_usd"]
        )
        assert int(line["requests"]) == group["requests"]
    few = http.get("/v1/usage", params={"format": "csv", "limit": 2}).text
    assert len(list(csv.DictReader(io.StringIO(few)))) == 2


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ({"from": "yesterday"}, "from"),
        ({"from": "2026-13-01"}, "from"),
        ({"from": "2026-02-02", "to": "2026-02-02"}, "from"),
        ({"from": "2999-01-01"}, "from"),
        ({"to": "2026-01-01", "from": "2026-02-01"}, "from"),
        ({"group_by": "model,colour"}, "group_by"),
        ({"group_by": "model,backend,route,key,user"}, "group_by"),
        ({"format": "xml"}, "format"),
        ({"limit": "0"}, "limit"),
        ({"limit": "501"}, "limit"),
        ({"limit": "x", "format": "csv"}, "limit"),
        ({"cursor": "!"}, "cursor"),
        ({"cursor": "eA"}, "cursor"),
        ({"cursor": "eA", "group_by": "model"}, "cursor"),
        ({"model": "a\x00b"}, "model"),
    ],
)
def test_what_is_wrong_is_refused(speak: Speak, query: dict[str, str], param: str) -> None:
    refused = speak("app").get("/v1/usage", params=query)
    assert refused.status_code == 400, refused.text
    assert error_of(refused)["param"] == param


def test_the_line_and_the_metric_tell_the_cost(speak: Speak, books: Gateway) -> None:
    def spent(backend: str) -> float:
        text = httpx2.get(f"{books.url}/metrics").text
        return sum(
            float(line.rpartition(" ")[2])
            for line in text.splitlines()
            if line.startswith(f'pluggably_cost_usd_total{{backend="{backend}"}}')
        )

    before = spent("metered")
    id_ = speak("app").post(CHAT, json=chat("metered/answer")).headers["x-request-id"]
    assert books.wait_for("request_finished", request_id=id_)["cost_usd"] == 0.001108
    assert spent("metered") - before == pytest.approx(0.001108)
    id_ = speak("app").post(CHAT, json=chat("up/answer")).headers["x-request-id"]
    assert "cost_usd" not in books.wait_for("request_finished", request_id=id_)
    assert spent("up") == 0


def test_the_command_line_tells_it_as_well(speak: Speak, books: Gateway, capsys: pytest.CaptureFixture[str]) -> None:
    http = speak("batch")
    for model in ("metered/answer", "up/answer", "fake/fake"):
        http.post(CHAT, json=chat(model))
    told = {group["backend"]: group for group in usage(http, group_by="backend")["data"]}

    def said(*options: str) -> str:
        assert main(["usage", "--config", str(books.folder / "config.yaml"), "--user", "batch", *options]) == 0
        return capsys.readouterr().out

    lines = said("--by", "backend").splitlines()
    assert lines[0].split() == ["BACKEND", "REQUESTS", "ERRORS", "IN", "OUT", "USD"]
    table = {line.split()[0]: line.split()[1:] for line in lines[1:-1]}
    assert set(table) == {backend or "-" for backend in told}
    assert table["metered"][-1] == f"{told['metered']['cost_usd']:.6f}"
    assert table["up"][-1] == "unknown"
    assert "is not known" in lines[-1]
    assert [json.loads(line) for line in said("--json", "--by", "backend").splitlines()] == list(told.values())
    assert said("--each", "--csv").encode() == http.get("/v1/usage", params={"format": "csv"}).content
    assert main(["usage", "--config", str(books.folder / "config.yaml"), "--from", "then"]) == 1

"""What requests cost: by the configuration, by price class, and by the public table, to the nano-USD."""

import re
import subprocess
import sys
from datetime import UTC, datetime
from decimal import ROUND_CEILING, Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import genai_prices
import pytest
from genai_prices import data_snapshot

from backends import settings_of
from backends.base import Price
from compat.anthropic.usage import parse_usage
from compat.canonical.event import Usage
from gateway.settings import BackendEntry, Rate
from gateway.telemetry.prices import RELEASED, TABLE, Prices, Tariff, payees

TOKENS = Usage(input_tokens=1_000, output_tokens=500)
LONG = Usage(input_tokens=300_000, output_tokens=500)


def prices(
    rates: dict[str, Rate] | None = None, classes: dict[str, Price | None] | None = None, **entries: dict[str, Any]
) -> Prices:
    decoded = {
        name: BackendEntry(kind, settings_of(kind, {k: v for k, v in fields.items() if k != "kind"}))
        for name, fields in entries.items()
        for kind in (fields.get("kind", "openai"),)
    }
    return Prices(rates or {}, payees(decoded, classes or {}))


OPENAI = prices(openai={"preset": "openai"}, claude={"kind": "anthropic"}, google={"preset": "gemini"})


def tariff(backend: str, model: str, of: Prices = OPENAI) -> Tariff:
    found = of.of(backend, model)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("backend", "model", "usage", "nano"),
    [
        # $1.25, $0.125 cached and $10 a million; reasoning is part of the output.
        ("openai", "gpt-5", TOKENS, 1_000 * 1_250 + 500 * 10_000),
        ("openai", "gpt-5", Usage(1_000, 500, 400, 300), 600 * 1_250 + 400 * 125 + 500 * 10_000),
        ("openai", "gpt-5", Usage(1_000, 500, 1_000), 1_000 * 125 + 500 * 10_000),
        ("openai", "gpt-4o-2024-08-06", TOKENS, 1_000 * 2_500 + 500 * 10_000),
        ("openai", "gpt-4.1-nano", Usage(1, 0), 100),
        ("openai", "text-embedding-3-small", Usage(input_tokens=7), 140),
        # $3 and $15; above 200,000 tokens $6 and $22.50 for all of them.
        ("claude", "claude-sonnet-4-5", Usage(200_000, 500), 200_000 * 3_000 + 500 * 15_000),
        ("claude", "claude-sonnet-4-5", Usage(200_001, 500), 200_001 * 6_000 + 500 * 22_500),
        # $5 and $25; $0.50 from the cache, $6.25 into it, $10 into it for an hour.
        (
            "claude",
            "claude-opus-4-6",
            Usage(135, 15, cached_tokens=100, cache_written_tokens=10),
            25 * 5_000 + 100 * 500 + 10 * 6_250 + 15 * 25_000,
        ),
        (
            "claude",
            "claude-opus-4-6",
            Usage(135, 15, cached_tokens=100, cache_written_tokens=10, long_cached_tokens=4),
            25 * 5_000 + 100 * 500 + 6 * 6_250 + 4 * 10_000 + 15 * 25_000,
        ),
        ("google", "models/gemini-2.5-pro", TOKENS, 1_000 * 1_250 + 500 * 10_000),
        ("google", "gemini-2.5-pro", LONG, 300_000 * 2_500 + 500 * 15_000),
    ],
)
def test_public_prices(backend: str, model: str, usage: Usage, nano: int) -> None:
    found = tariff(backend, model)
    assert found.cost(usage) == nano
    assert found.source == f"genai-prices {genai_prices.__version__}"
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", found.date or "")
    most = found.most(usage.input_tokens or 0, usage.output_tokens or 0)
    assert most is not None
    assert most >= nano


def test_fractions_are_rounded_up_once() -> None:
    of = prices({"a/*": Rate(input=0.0001, output=0.0001)}, a={"base_url": "http://127.0.0.1/v1"})
    # A tenth of a nano-USD each: 13 tokens are 1.3.
    assert tariff("a", "m", of).cost(Usage(9, 4)) == 2
    assert tariff("a", "m", of).cost(Usage(10, 0)) == 1
    assert tariff("a", "m", of).most(9, 4) == 2


def test_what_an_answer_costs_is_not_free_because_nobody_says_it() -> None:
    found = tariff("a", "m", Prices({"a/*": Rate(input=1.0)}, {}))
    assert found.most(9, 4) is None
    assert found.most(9, 0) == 9_000, "vectors have no answer"
    assert found.cost(Usage(input_tokens=9, output_tokens=4)) is None


def test_a_price_with_a_start_has_its_date() -> None:
    of = prices(router={"preset": "openrouter"})
    assert (tariff("router", "openai/gpt-4o", of).date or "") >= "2026-10-19"


def test_the_tables_release_has_a_date() -> None:
    """A new version of the table needs a line in RELEASED."""
    assert genai_prices.__version__ in RELEASED


def test_what_models_of_the_table_costs_is_what_the_table_says() -> None:
    known = {p.id: p for p in data_snapshot.get_snapshot().providers}
    compared = 0
    for preset, provider in TABLE.items():
        of = prices(b={"preset": preset, **({"base_url": "https://x.invalid"} if preset == "azure" else {})})
        # All would be slow, and each third is of every kind.
        for model in known[provider].models[::3] if provider in known else ():
            found = of.of("b", model.id)
            if found is None or found.source == "free":
                continue
            for given in ((900, 70, 200, 100), (300_000, 70, 200_000, 0)):
                usage = Usage(given[0], given[1], cached_tokens=given[2], cache_written_tokens=given[3])
                cost = found.cost(usage)
                asked = genai_prices.Usage(
                    input_tokens=given[0], output_tokens=given[1], cache_read_tokens=given[2],
                    cache_write_tokens=given[3],
                )  # fmt: skip
                if cost is not None:
                    said = genai_prices.calc_price(asked, model.id, provider_id=provider).total_price
                    assert cost == int((said * 10**9).to_integral_value(ROUND_CEILING)), model.id
                    most = found.most(given[0], given[1])
                    assert most is not None, model.id
                    assert most >= cost, model.id
                    compared += 1
    assert compared > 400


def test_what_is_not_known_costs_nothing_known() -> None:
    for usage in (Usage(), Usage(input_tokens=10), Usage(output_tokens=10), Usage(10, 10, cached_tokens=11)):
        assert tariff("openai", "gpt-5").cost(usage) is None
    # Pictures have a price of their own, and usage does not tell them from words.
    assert tariff("google", "gemini-2.5-flash-image").cost(TOKENS) is None
    assert tariff("google", "gemini-2.5-flash-image").most(0, 1_000) == 30_000_000


@pytest.mark.parametrize(
    ("backend", "model"),
    [
        ("openai", "gpt-5-turbo-ultra"),
        ("openai", "whisper-1"),  # by the minute
        ("openai", "omni-moderation-latest"),  # the table names no price
        ("azure", "our-deployment"),
        ("router", "openai/gpt-4o:online"),
        ("hub", "meta-llama/Llama-3.3-70B-Instruct"),
        ("hub", "meta-llama/Llama-3.3-70B-Instruct:nobody"),
        ("home", "gpt-4o"),
        ("office", "gpt-4o"),
        ("preset", "gpt-4o"),
        ("nowhere", "gpt-4o"),
    ],
)
def test_unknown_prices(backend: str, model: str) -> None:
    of = prices(
        openai={"preset": "openai"},
        azure={"preset": "azure", "base_url": "https://ours.openai.azure.com/openai/v1"},
        router={"preset": "openrouter"},
        hub={"kind": "huggingface"},
        home={"base_url": "http://127.0.0.1:8000/v1"},
        office={"base_url": "https://api.openai.com.example.org/v1"},
        preset={"preset": "nvidia"},
    )
    assert of.of(backend, model) is None


@pytest.mark.parametrize(
    ("entry", "model"),
    [
        ({"base_url": "https://api.openai.com/v1"}, "gpt-4o"),
        ({"preset": "azure", "base_url": "https://ours.openai.azure.com/openai/v1"}, "gpt-4o"),
        ({"base_url": "https://ours.openai.azure.com/openai/v1"}, "gpt-4o"),
        ({"preset": "openrouter"}, "openai/gpt-4o"),
        ({"base_url": "https://openrouter.ai/api/v1"}, "anthropic/claude-sonnet-4.5"),
        ({"kind": "huggingface", "provider": "together"}, "meta-llama/Llama-3.3-70B-Instruct"),
        ({"kind": "huggingface"}, "meta-llama/Llama-3.3-70B-Instruct:together"),
        ({"kind": "anthropic", "base_url": "http://127.0.0.1:9"}, "claude-opus-4-6"),
        ({"kind": "anthropic", "base_url": "https://api.deepseek.com/anthropic"}, "deepseek-chat"),
        ({"preset": "xai"}, "grok-4"),
        ({"preset": "mistral"}, "mistral-large-latest"),
    ],
)
def test_whose_prices_a_backend_has(entry: dict[str, Any], model: str) -> None:
    assert tariff("b", model, prices(b=entry)).cost(TOKENS)


def test_a_backend_called_like_a_provider_has_its_prices() -> None:
    of = prices(openai={"base_url": "http://127.0.0.1:1/v1"}, xai={"base_url": "http://127.0.0.1:1/v1"})
    assert tariff("openai", "gpt-5", of).cost(TOKENS) == 6_250_000
    assert tariff("xai", "grok-4", of).cost(TOKENS)


def test_local_and_free_models_cost_nothing() -> None:
    of = prices(
        classes={"ours": "local", "public": "free"}, ours={"preset": "ollama"}, public={"preset": "ovhcloud"},
        router={"preset": "openrouter"},
    )  # fmt: skip
    for backend, model, source in (
        ("ours", "gpt-4o", "local"), ("public", "any", "free"), ("router", "new/model:free", "free")
    ):  # fmt: skip
        found = tariff(backend, model, of)
        assert (found.source, found.cost(Usage()), found.most(10**9, 10**9)) == (source, 0, 0)


def test_the_configuration_goes_first_and_its_most_specific_pattern() -> None:
    of = prices(
        {
            "*": Rate(request=1),
            "openai/*": Rate(request=2),
            "openai/gpt-5*": Rate(request=3),
            "openai/gpt-[45]?": Rate(request=4),
            "openai/gpt-5": Rate(request=5),
        },
        {"ours": "local"},
        openai={"preset": "openai"},
        ours={"preset": "ollama"},
    )
    for backend, model, usd in (
        ("openai", "gpt-5", 5), ("openai", "gpt-5-mini", 3), ("openai", "gpt-4o", 4), ("openai", "o3", 2),
        ("ours", "llama", 1),
    ):  # fmt: skip
        found = tariff(backend, model, of)
        assert (found.source, found.date, found.cost(Usage())) == ("config", None, usd * 10**9)


def test_what_the_configuration_leaves_out() -> None:
    def cost(rate: Rate, usage: Usage) -> int | None:
        return tariff("a", "m", prices({"a/m": rate})).cost(usage)

    used = Usage(100, 10, cached_tokens=40, cache_written_tokens=20)
    assert cost(Rate(input=2, output=4), used) == 100 * 2_000 + 10 * 4_000
    assert cost(Rate(input=2, output=4, cached_input=1, cache_write=3), used) == 80_000 + 40_000 + 60_000 + 40_000
    assert cost(Rate(input=2, output=4, request=0.5), used) == 240_000 + 500_000_000
    assert cost(Rate(input=2), used) is None, "what answers cost is not known"
    assert cost(Rate(input=2), Usage(100, 0)) == 200_000
    assert cost(Rate(input=0, output=0), Usage()) == 0
    assert cost(Rate(request=0.1), Usage()) == 100_000_000
    assert cost(Rate(input=0.1, output=0.3), Usage(3, 1)) == 600, "0.1 is a tenth, not the float beside it"


def test_prices_that_change_with_the_hour(monkeypatch: pytest.MonkeyPatch) -> None:
    of = prices(deepseek={"preset": "deepseek"})
    clock = {"now": 0.0}
    monkeypatch.setattr("gateway.telemetry.prices.time", SimpleNamespace(time=lambda: clock["now"]))
    provider = next(p for p in data_snapshot.get_snapshot().providers if p.id == "deepseek")
    day = 20_500 * 86_400.0
    for model in provider.models:
        for quarter in range(0, 96, 3):
            clock["now"] = day + quarter * 900 + 1
            found = of.of("deepseek", model.id)
            assert found is not None
            said = genai_prices.calc_price(
                genai_prices.Usage(input_tokens=1_000, output_tokens=500),
                model.id,
                provider_id="deepseek",
                genai_request_timestamp=datetime.fromtimestamp(clock["now"], UTC),
            ).total_price
            assert found.cost(TOKENS) == int((said * 10**9).to_integral_value(ROUND_CEILING))


def test_clients_names_do_not_fill_the_memory() -> None:
    of = prices(home={"base_url": "http://127.0.0.1:8000/v1"})
    for n in range(4_200):
        of.of("home", f"m{n}")
    assert len(of._known) <= 4_096


def test_prices_are_whole_where_dollars_are() -> None:
    rate = Rate(input=float(Decimal("3")), output=15)
    assert tariff("a", "m", prices({"a/m": rate})).cost(Usage(1_000_000, 1_000_000)) == 18 * 10**9


def test_the_table_is_not_loaded_to_start_with() -> None:
    program = (
        "import sys\nfrom gateway.app import Application\nfrom gateway.config import load\n"
        "Application(load(None))\nassert 'genai_prices' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=Path(__file__).parents[3], timeout=60)


def test_the_table_is_loaded_beside_what_the_loop_does() -> None:
    program = """
import asyncio, sys, threading
from gateway.telemetry import prices
by = []
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "genai_prices":
            by.append(threading.current_thread())
sys.meta_path.insert(0, Finder())
async def work():
    of = prices.Prices({}, {"a": prices.Payee(None, "openai")})
    assert of.waits and not prices.Prices({}, {"a": prices.Payee("free", "openai")}).waits
    first = asyncio.create_task(of.load())
    second = asyncio.create_task(of.load())
    await asyncio.sleep(0)
    first.cancel()
    await second
    assert not of.waits
    assert of.of("a", "gpt-4o") is not None
asyncio.run(work())
assert by and threading.main_thread() not in by
"""
    subprocess.run([sys.executable, "-c", program], check=True, cwd=Path(__file__).parents[3], timeout=60)


def test_a_name_without_end_is_nobodys() -> None:
    of = prices(openai={})
    assert of.of("openai", "gpt-4o" + "x" * 1_000_000) is None
    assert not of._known


def test_what_anthropic_keeps_for_an_hour_has_its_price() -> None:
    told = (
        b'{"input_tokens":25,"cache_creation_input_tokens":10,"cache_read_input_tokens":100,"output_tokens":15,'
        b'"cache_creation":{"ephemeral_5m_input_tokens":6,"ephemeral_1h_input_tokens":4}}'
    )
    usage = parse_usage(told)
    assert usage is not None
    assert tariff("claude", "claude-opus-4-6").cost(usage) == 627_500

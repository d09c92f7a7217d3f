"""What models cost: the configuration's word, then the backend's price class, then a public table.

The table is the maintained package genai-prices, as it was when it was installed: it is never fetched.
Its prices are converted to `Tariff`s, which count in integers.  A price nobody knows is None, never 0.
"""

import asyncio
import gc
import re
import time
from collections.abc import Mapping
from decimal import Decimal
from fnmatch import fnmatchcase
from functools import cache
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from backends.base import Price
from compat.canonical.event import Usage
from gateway.settings import BackendEntry, Rate

if TYPE_CHECKING:
    from genai_prices.types import ModelPrice, Provider

FINE = 10**15
"""Of these make a nano-USD: rates are whole numbers of them a token, so that sums are exact."""
_PER_MILLION = 10**9 * FINE // 10**6
"""USD per million tokens → fine units a token; the table's longest price has 18 decimals, which are whole ones."""
_PER_REQUEST = 10**9 * FINE

KNOWN_MAX = 4096
"""Tariffs kept: a client may ask for any name where a route ends in `*`."""
NAME_MAX = 1000
"""Characters of a name that is looked for: a provider may call its model anything."""
STEP_S = 900
"""Prices that change with the date or the hour do so at the quarters of an hour, in UTC."""

TABLE = {
    "openai": "openai",
    "azure": "azure",
    "groq": "groq",
    "openrouter": "openrouter",
    "together": "together",
    "mistral": "mistral",
    "deepseek": "deepseek",
    "xai": "x-ai",
    "gemini": "google",
    "cerebras": "cerebras",
    "fireworks": "fireworks",
    "huggingface": "huggingface",
    "ovhcloud": "ovhcloud",
}
"""Preset → provider of the table.  Hugging Face's router stands for many, each of which has its own prices."""
RELEASED = {"0.2.3": "2026-11-10"}
"""Version of the table → the day it came out."""
_ROUTER = "huggingface"


class Step(Struct, frozen=True):
    """Rates of requests whose prompt has more than `over` tokens, in fine units a token; None: not known."""

    over: int
    input: int | None
    cached: int | None
    written: int | None
    written_long: int | None
    output: int | None
    reasoning: int | None
    input_most: int
    """The highest that a token of the prompt can cost, whatever it is: audio, or kept in a cache for long."""
    output_most: int


class Tariff(Struct, frozen=True):
    """What one model costs now."""

    source: str
    """Who says so: config, local, free, or the public table and its version."""
    date: str | None = None
    """The day of the price, YYYY-MM-DD; None where its source names none."""
    steps: tuple[Step, ...] = ()
    """By prompt length, longest first, down to 0; empty where tokens cost nothing."""
    request: int = 0
    """Fine units a request."""

    @property
    def free(self) -> bool:
        """Whatever is asked costs nothing."""
        return not self.steps and not self.request

    def cost(self, usage: Usage) -> int | None:
        """In nano-USD, rounded up; None if it cannot be told from this usage."""
        if not self.steps:
            return -(-self.request // FINE)
        prompt, answer = usage.input_tokens, usage.output_tokens
        if prompt is None:
            return None
        step = self._step(prompt)
        if answer is None:
            if step.output_most:
                return None
            answer = 0  # a model whose answers are no tokens, like embeddings
        cached, written = usage.cached_tokens or 0, usage.cache_written_tokens or 0
        long, thought = usage.long_cached_tokens or 0, 0
        if step.reasoning != step.output:
            thought = usage.reasoning_tokens or 0
        total = self.request
        for tokens, rate in (
            (prompt - cached - written, step.input),
            (cached, step.cached),
            (written - long, step.written),
            (long, step.written_long),
            (answer - thought, step.output),
            (thought, step.reasoning),
        ):
            if tokens:
                if rate is None or tokens < 0:
                    return None
                total += tokens * rate
        return -(-total // FINE)

    def _step(self, prompt: int) -> Step:
        for step in self.steps:
            if prompt > step.over:
                return step
        return self.steps[-1]

    def most(self, input_tokens: int, output_tokens: int) -> int | None:
        """In nano-USD: what a request of up to so many tokens can cost; None if nobody says what an answer costs."""
        reached = [step for step in self.steps if input_tokens > step.over or step.over == 0]
        if output_tokens and any(step.output is None and not step.output_most for step in reached):
            return None
        tokens = max((input_tokens * s.input_most + output_tokens * s.output_most for s in reached), default=0)
        return -(-(self.request + tokens) // FINE)


class Payee(Struct, frozen=True):
    """Where a backend's prices are looked up."""

    price: Price | None
    """Its class."""
    provider: str | None
    """Of the table, where its preset says; None: the one whose address `url` is, or else the one called `name`."""
    url: str | None = None
    name: str | None = None


class Prices:
    """Tariffs by backend and model."""

    asks_table: bool
    """Whether the table is needed at all."""

    def __init__(self, rates: Mapping[str, Rate], payees: Mapping[str, Payee]) -> None:
        # The most specific pattern first: one without wildcards, then the one with most other characters.
        by_detail = sorted(rates, key=lambda pattern: (bool(_WILD.search(pattern)), -len(_WILD.sub("", pattern))))
        self._rates = [(pattern, _of_rate(rates[pattern])) for pattern in by_detail]
        self._payees = payees
        self.asks_table = any(payee.price not in _FREE and payee.provider != "" for payee in payees.values())
        self._known: dict[tuple[str, str], tuple[float, Tariff | None]] = {}
        self._loading: asyncio.Task[None] | None = None
        self._loaded = False

    @property
    def waits(self) -> bool:
        """The table is needed and not there yet."""
        if not self._loaded:
            self._loaded = not self.asks_table or _providers.cache_info().currsize > 0
        return not self._loaded

    async def load(self) -> None:
        """Load what `of` looks in, without holding up the loop."""
        if self.waits:
            if self._loading is None:
                self._loading = asyncio.create_task(asyncio.to_thread(load_table))
            await asyncio.shield(self._loading)  # who leaves does not end it for the others

    def of(self, backend: str, model: str) -> Tariff | None:
        """What a backend's model costs now; None if nobody says.  Takes a moment while it `waits`."""
        if len(model) > NAME_MAX:
            return None
        known = self._known.get((backend, model))
        now = time.time()
        if known is None or now >= known[0]:
            if len(self._known) >= KNOWN_MAX:
                self._known.clear()
            known = self._known[backend, model] = self._find(backend, model, now)
        return known[1]

    def _find(self, backend: str, model: str, now: float) -> tuple[float, Tariff | None]:
        """A tariff, and until when it holds."""
        for pattern, tariff in self._rates:
            if fnmatchcase(f"{backend}/{model}", pattern):
                return float("inf"), tariff
        payee = self._payees.get(backend)
        if payee is None:
            return float("inf"), None
        if payee.price in _FREE:
            return float("inf"), _FREE[payee.price]
        return _of_table(payee, model, now)


_WILD = re.compile(r"\[[^]]*\]|[*?]")
_FREE: dict[Price | None, Tariff] = {"local": Tariff("local"), "free": Tariff("free")}


def payees(entries: Mapping[str, BackendEntry], classes: Mapping[str, Price | None]) -> dict[str, Payee]:
    """Where the prices of these backends, of these classes, are looked up."""
    return {name: _payee(name, entry, classes.get(name)) for name, entry in entries.items()}


def _payee(name: str, entry: BackendEntry, price: Price | None) -> Payee:
    settings = entry.settings
    url = getattr(settings, "base_url", None)
    if entry.kind == "huggingface":
        chosen = settings.provider
        return Payee(price, _ROUTER if chosen == "auto" else f"{_ROUTER}_{chosen}")
    if entry.kind == "openai":
        preset = settings.preset or ("openai" if url is None else None)
        return Payee(price, None if preset is None else TABLE.get(preset, ""), url, TABLE.get(name, name))
    if entry.kind == "anthropic":
        return Payee(price, "anthropic" if url is None else None, url, "anthropic")
    return Payee(price, "")


def load_table() -> None:
    """Load the table, which takes a moment: in a thread."""
    if not _providers.cache_info().currsize:
        _providers()
        # It lives as long as the process, so the collector need not look at it.
        gc.freeze()


@cache
def _providers() -> "list[Provider]":
    from genai_prices import data_snapshot

    return data_snapshot.get_snapshot().providers


def _of_table(payee: Payee, model: str, now: float) -> tuple[float, Tariff | None]:
    provider = _provider(payee, model)
    if provider is None:
        return float("inf"), None
    if provider.id == "openrouter" and model.endswith(":free"):
        return float("inf"), _FREE["free"]
    asked = model.removeprefix("models/") if provider.id == "google" else model
    if provider.id.startswith(_ROUTER):
        asked = asked.partition(":")[0]
    found = provider.find_model(asked, all_providers=_providers())
    if found is None:
        return float("inf"), None
    from datetime import UTC, datetime

    import genai_prices
    from genai_prices.types import StartDateConstraint

    version = genai_prices.__version__
    prices, date, until = found.prices, RELEASED.get(version), float("inf")
    if isinstance(prices, list):
        until = (now // STEP_S + 1) * STEP_S
        moment = datetime.fromtimestamp(now, UTC)
        active = [p for p in prices if p.constraint is None or p.constraint.active(moment)] or prices[:1]
        if isinstance(active[-1].constraint, StartDateConstraint):
            date = active[-1].constraint.start_date.isoformat()
        prices = active[-1].prices
    return until, _of_price(f"genai-prices {version}", date, prices)


def _provider(payee: Payee, model: str) -> "Provider | None":
    known = _providers()
    id_ = payee.provider
    if id_ is None and payee.url is not None:
        id_ = next((p.id for p in known if _is_at(p, payee.url)), None)
    if id_ is None:
        id_ = payee.name
    if id_ == _ROUTER or (id_ or "").startswith(_ROUTER + "_"):
        # MODEL:PROVIDER names who is to answer.
        chosen = model.partition(":")[2]
        id_ = f"{_ROUTER}_{chosen}" if chosen else id_
    return next((p for p in known if p.id == id_), None)


def _is_at(provider: "Provider", url: str) -> bool:
    """Whether this is an address of the provider's, not only one that begins like it."""
    found = re.match(provider.api_pattern, url)
    return found is not None and (found.group()[-1:] in "/." or url[found.end() : found.end() + 1] in ("", "/", ":"))


def _of_rate(rate: Rate) -> Tariff:
    def fine(usd: float | None, per: int) -> int | None:
        return None if usd is None else _fine(Decimal(repr(usd)), per)

    request = fine(rate.request, _PER_REQUEST)
    input_, output = fine(rate.input, _PER_MILLION), fine(rate.output, _PER_MILLION)
    cached, written = fine(rate.cached_input, _PER_MILLION), fine(rate.cache_write, _PER_MILLION)
    cached, written = input_ if cached is None else cached, input_ if written is None else written
    by_request = input_ is None and output is None and request is not None
    if by_request or all(part == 0 for part in (input_, output, cached, written)):
        return Tariff("config", None, (), request or 0)
    most = max(filter(None, (input_, cached, written)), default=0)
    step = Step(0, input_, cached, written, written, output, output, most, output or 0)
    return Tariff("config", None, (step,), request or 0)


_COUNTED = frozenset({"input_mtok", "output_mtok", "cache_read_mtok", "cache_write_mtok", "output_reasoning_mtok"})


def _of_price(source: str, date: str | None, prices: "ModelPrice") -> Tariff | None:
    """The table's prices of a model; None if they are not by token or request."""
    given: dict[str, Any] = {name: value for name, value in vars(prices).items() if value is not None}
    request = given.pop("requests_kcount", Decimal(0))
    if not _COUNTED & given.keys():
        return None
    bounds = {0} | {tier.start for value in given.values() for tier in getattr(value, "tiers", ())}
    steps = [_step(over, {name: _at(value, over) for name, value in given.items()}) for over in sorted(bounds)]
    return Tariff(source, date, tuple(reversed(steps)), _fine(request / 1000, _PER_REQUEST))


def _step(over: int, usd: Mapping[str, Decimal]) -> Step:
    rates = {name: _fine(price, _PER_MILLION) for name, price in usd.items() if name.endswith("_mtok")}
    answers = {name: rate for name, rate in rates.items() if name.startswith("output_")}
    # An answer's pictures, sounds or quotes have prices of their own, and usage does not tell how many there are.
    mixed = not answers.keys() <= _COUNTED
    input_, output = rates.get("input_mtok"), None if mixed else rates.get("output_mtok")
    return Step(
        over=over,
        input=input_,
        cached=rates.get("cache_read_mtok", input_),
        written=(written := rates.get("cache_write_mtok", input_)),
        written_long=rates.get("cache_write_1h_mtok", written),
        output=output,
        reasoning=output if mixed else rates.get("output_reasoning_mtok", output),
        input_most=max((rate for name, rate in rates.items() if name not in answers), default=0),
        output_most=max(answers.values(), default=0),
    )


def _at(value: Any, over: int) -> Decimal:
    """A price, for prompts of more than so many tokens."""
    price: Decimal = getattr(value, "base", value)
    for tier in getattr(value, "tiers", ()):
        if over and over >= tier.start:
            price = tier.price
    return price


def _fine(usd: Decimal, per: int) -> int:
    above, below = usd.as_integer_ratio()
    return -(-above * per // below)

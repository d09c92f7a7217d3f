"""Which parameters a route carries, by trying each of them on the route's own translation."""

import asyncio
import time
from collections.abc import Iterator
from typing import Any, Literal

from msgspec import UNSET, Struct, UnsetType

from backends.base import HINTS, Backend
from compat.canonical.error import GatewayError
from gateway.schema.bodies import Body, Json, parameters, word
from gateway.schema.trial import Outcome, attempt

BREATH_S = 0.002
"""How long it is tried before others get their turn."""

NUMBER_MAX = 1000
"""Some backends begin to work before they say anything, and work longer for more."""

Carried = bool | Literal["emulated"]


class Loss(Struct, frozen=True, kw_only=True):
    """What a route does not carry."""

    outcome: Literal["dropped", "refused"]
    """dropped: left out and named in `x-gateway-dropped`; refused: answered with an error."""
    named: str
    """By what name."""
    strict: Literal["refused", "dropped"]
    """What `x-gateway-strict: true` makes of it."""
    values: list[Any] | UnsetType = UNSET
    """Of the values that were tried, those it holds for; all of them if this is left out."""
    message: str | UnsetType = UNSET


class Carriage(Struct, frozen=True, kw_only=True):
    carried: Carried = True
    loss: Loss | None = None


WHOLE = Carriage()


async def carriages(backend: Backend, model: str, body: Body) -> dict[str, Carriage] | GatewayError:
    """What a route makes of each parameter of a body; the error if it takes no such requests at all."""
    base = attempt(backend, model, body, body.start)
    if base.refused is not None:
        return base.refused
    out: dict[str, Carriage] = {}
    since = time.perf_counter()
    for name, schema in parameters(body).items():
        out[name] = _carriage(backend, model, body, name, schema, base)
        if time.perf_counter() - since > BREATH_S:
            await asyncio.sleep(0)
            since = time.perf_counter()
    return out


def asking(body: Body, name: str, value: Any) -> Json:
    """A request that says this of a parameter."""
    about = word(body, name)
    asked = {key: said for key, said in {**body.start, **about.beside}.items() if key not in about.instead}
    whole, _, inner = name.rpartition(".")
    if not whole:
        return asked | {name: value}
    alone = inner in ("prompt", "messages") or (inner == "images" and body.modality == "3d")
    return asked | {whole: ({} if alone else asked.get(whole, {})) | {inner: value}}


def _carriage(backend: Backend, model: str, body: Body, name: str, schema: Json, base: Outcome) -> Carriage:
    about = word(body, name)
    if about.by == "gateway":
        return WHOLE
    if about.beside:
        base = attempt(backend, model, body, {**body.start, **about.beside})
    values = list(_values(about.examples, schema))
    lost: list[tuple[Any, Outcome, str]] = []
    emulated = False
    for value in values:
        outcome = attempt(backend, model, body, asking(body, name, value))
        if outcome.refused is not None:
            lost.append((value, outcome, name))
        elif more := sorted(outcome.dropped - base.dropped):
            lost.append((value, outcome, more[0]))
        elif about.beside and base.dropped & {name, name.rpartition(".")[2]}:
            lost.append((value, outcome, name))
        else:
            emulated = emulated or outcome.emulated
    if not lost:
        return Carriage(carried="emulated") if emulated else WHOLE
    whole = len(lost) == len(values)
    first = lost[0][1].refused
    named = lost[0][2]
    return Carriage(
        carried=False if whole else "emulated" if emulated else True,
        loss=Loss(
            outcome="dropped" if first is None else "refused",
            named=named,
            strict="dropped" if first is None and named in HINTS else "refused",
            values=UNSET if whole else [value for value, _, _ in lost],
            message=UNSET if first is None else first.message,
        ),
    )


def _values(examples: tuple[Any, ...], schema: Json) -> Iterator[Any]:
    """What to try: the examples, every word there is, and the largest number unless it is huge."""
    yield from examples
    said = [*schema.get("enum", ()), schema.get("maximum")]
    for value in said:
        if value is not None and value not in examples and (isinstance(value, str) or value <= NUMBER_MAX):
            yield value

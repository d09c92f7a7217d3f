"""One request's passage through the house: what the log line, the metrics and the usage row are made of."""

import random
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from msgspec import Struct, field

from backends.base import Wait
from compat.canonical.event import Usage
from compat.canonical.principal import Principal
from gateway.auth.principal import Grant
from gateway.settings import SelectionMode
from gateway.telemetry.context import Trace
from gateway.telemetry.prices import Prices

if TYPE_CHECKING:
    from gateway.account import Account
    from gateway.answers.partial import Seen
    from gateway.routing.router import Route


class Presence(Protocol):
    """The client's connection: tells when it has gone."""

    late: bool
    """It was made when the gateway had begun to stop."""

    def answering(self) -> None:
        """The head of an answer is about to be sent."""

    def watch(self, on_leaving: Callable[[], None]) -> None: ...
    def unwatch(self, on_leaving: Callable[[], None]) -> None: ...


class Visit(Struct, kw_only=True):
    request_id: str
    """As it is written down."""
    given_id: str | None = None
    """The client's own name for the request, where that is its id."""
    method: str
    path: str
    began: float
    """On the performance counter, in seconds; so are `handed` and `first`."""
    ended: float = 0.0
    """On the performance counter and (`at`) on the clock: when it was over."""
    at: float = 0.0
    born: float | None = None
    """When it came in, on the clock; worked out when somebody first wants to know."""
    deadline: float | None = None
    """On the event loop's clock: when its answer has to be there; None: it has no models to wait for, or not yet."""
    route: str = ""
    """Path template of the endpoint; empty for unknown paths."""
    anthropic: bool = False
    """The client has named a version of Anthropic's API: where the path is no dialect's own, it is answered in that."""
    presence: Presence | None = None
    """Where the server offers it; ASGI's `receive` tells the same at the price of a task."""
    grant: Grant | None = None
    principal: Principal | None = None
    """The grant's: who asks."""
    status: int = 0
    code: str | None = None
    said: str | None = None
    """What its client was told of what went wrong."""
    cancelled: bool = False
    """Somebody of its tenant has asked for its end, through the requests API."""
    handed_on: bool = False
    """Its work goes on without its connection, in a visit of the same id: only that one is accounted for."""
    detached: bool = False
    """It is such a visit."""
    too_large: bool = False
    """Its answer was to be kept, and is larger than what is kept of one."""
    watches: bool = False
    """It is a feed of what others do, and ended after them."""
    seen: "Seen | None" = None
    """What there is of its answer by now, where that is kept although the answer does not come to its end."""
    requested: str | None = None
    """The model asked for; None for requests that generate nothing."""
    backend: str | None = None
    model: str | None = None
    reason: str = ""
    attempts: int = 0
    trail: list[tuple[str, str]] = field(default_factory=list)
    """The routes that were looked at, in order, and what became of each."""
    own_key: bool = False
    """The last route was asked with a provider key of the user's own: its cost is not the house's."""
    lent: "tuple[Account, ...]" = ()
    """The accounts of the user's own that it uses, given back when it is over."""
    fell_back: bool = False
    """Another route answered than the one that came first."""
    explain: bool = False
    """The client wants to know how its routes were chosen."""
    mode: SelectionMode = "auto"
    streamed: bool = False
    handed: float | None = None
    """When the first attempt was handed to a backend."""
    first: float | None = None
    """When the first content came back."""
    answered: "Route | None" = None
    """The route whose answer began last; `usage` is of this one."""
    lost: "list[Route]" = field(default_factory=list)
    """Routes that may have worked besides, on answers that did not come or were gone on with elsewhere: nobody knows
    their usage."""
    usage: Usage | None = None
    prices: Prices | None = None
    """Of the configuration it came in on."""
    wait: Wait = field(default_factory=Wait)
    answered_by: str | None = None
    """The model, as the provider calls it."""
    finish: str | None = None
    """Why the answer ended, in the provider's word, where that is known."""
    trace: Trace | None = None
    """Only while traces are sent somewhere."""

    @property
    def told_id(self) -> str:
        """The request's id, as its client is told."""
        return self.given_id or self.request_id


def new_id(prefix: str) -> str:
    """A prefixed id that sorts by time: 48 bits of milliseconds, then 80 random ones.

    Unique, not secret: what guards an object is its tenant.
    """
    return f"{prefix}_{int(time.time() * 1000):012x}{random.getrandbits(80):020x}"

"""What can be configured: frozen structs, one for each section of the file."""

from pathlib import Path
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct, field

from backends.base import Price, Seconds, Timeouts
from compat.canonical.model import Modality
from gateway.routing.breaker import Rule

EMBEDDED_MODEL = "smollm2-135m-instruct"
LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})

Count = Annotated[int, Meta(ge=1)]
Number = Annotated[int, Meta(ge=0)]


class Section(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class Tls(Section, frozen=True):
    cert: str | None = None
    """PEM file of the certificate chain."""
    key: str | None = None
    """PEM file of its private key."""


class Server(Section, frozen=True):
    host: str = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535)] = 8080
    tls: Tls = Tls()
    allowed_hosts: tuple[str, ...] = ()
    """Host names clients may use; empty means loopback names without auth, any with auth."""
    cors_origins: tuple[str, ...] = ()
    """Origins whose pages may call the gateway from a browser; empty means none."""
    drain_s: Annotated[float, Meta(ge=0)] = 25.0
    """How long running requests may take to finish after SIGTERM."""
    body_limit_bytes: Count = 33_554_432
    """Of a request's body, decompressed."""
    header_timeout_s: Seconds = 15.0
    """How long a request's head may take."""
    body_timeout_s: Seconds = 30.0
    """How long a request's body may pause; on average it must make 1 KiB a second as well."""
    write_timeout_s: Seconds = 60.0
    """How long a client may take nothing of its answer before it counts as gone."""
    keep_alive_s: Seconds = 75.0
    """How long a connection stays open without a request: longer than proxies and clients (60 s and less) keep
    theirs, for else they would send the next request into a connection that is just being closed."""


class Database(Section, frozen=True):
    url: str = "sqlite+aiosqlite:///{data_dir}/gateway.db"


class Key(Section, frozen=True):
    name: str
    key: str
    scopes: tuple[str, ...] = ("inference",)
    tenant: str = "default"


class Auth(Section, frozen=True):
    mode: Literal["local", "api_key"] = "local"
    keys: tuple[Key, ...] = ()


class Target(Section, frozen=True):
    """One route of a model."""

    to: str
    """BACKEND/MODEL; a `*` in MODEL stands for the name the client asked for."""
    weight: Annotated[float, Meta(ge=0)] = 1.0
    """Its share of the requests, under the strategy `weighted`; 0 is asked only when the others have failed."""
    capabilities: tuple[str, ...] = ()
    """What the model can do (`tools`, `vision`, …), where its backend does not say."""
    context_length: Count | None = None
    """In tokens, where its backend does not say."""


Strategy = Literal["order", "weighted", "latency", "least_busy"]
Guard = Literal["off", "resume", "buffer"]
SelectionMode = Literal["auto", "local_only", "free_only", "commercial_only"]


class ModelEntry(Section, frozen=True):
    routes: tuple[str | Target, ...] | dict[Modality, tuple[str | Target, ...]]
    """A list, or one list per modality."""
    strategy: Strategy = "order"
    """order: as listed; weighted: drawn; latency: the faster of two drawn; least_busy: fewest under way."""
    retries: Number = 2
    """Further attempts after each route has failed once."""
    timeouts: Timeouts = Timeouts()
    stream_guard: Guard = "off"
    """When a stream dies after content was sent: off ends it with an error; resume has the next route go on;
    buffer holds content back until the answer is whole."""


class Limit(Section, frozen=True):
    """What one key may use; None is no limit."""

    requests_per_minute: Count | None = None
    tokens_per_minute: Count | None = None
    concurrent: Count | None = None


class Limits(Section, frozen=True):
    default: Limit = Limit()
    store: Literal["memory"] = "memory"


class Telemetry(Section, frozen=True):
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["auto", "json", "console"] = "auto"
    """json: one object a line; console: for people; auto: console on a terminal, else json."""


class Terms(Section, frozen=True):
    """What the house says of a backend, whatever its kind."""

    price: Price | None = None
    """The price class of its models; None takes the preset's."""
    concurrent: Count | None = None
    """Requests under way at most; further ones wait.  None is no limit; local models have slots instead."""
    queue_max: Number = 256
    """Requests that may wait."""


class BackendEntry(Struct, frozen=True):
    """A backend's kind and its own settings, decoded by the kind."""

    kind: str
    settings: Any
    terms: Terms = Terms()


class File(Section, frozen=True):
    """The file as it is written; `backends` are decoded by their kinds."""

    server: Server = Server()
    data_dir: str | None = None
    database: Database = Database()
    auth: Auth = Auth()
    backends: dict[str, dict[str, Any]] | None = None
    models: dict[str, ModelEntry] = {}
    limits: Limits = Limits()
    breaker: Rule = Rule()
    telemetry: Telemetry = Telemetry()


class Config(Struct, frozen=True, kw_only=True):
    """Everything decoded."""

    server: Server = Server()
    data_dir: Path
    database_url: str
    auth: Auth = Auth()
    backends: dict[str, BackendEntry] = field(default_factory=dict)
    models: dict[str, ModelEntry] = field(default_factory=dict)
    limits: Limits = Limits()
    breaker: Rule = Rule()
    telemetry: Telemetry = Telemetry()

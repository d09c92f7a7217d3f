"""What can be configured: frozen structs, one for each section of the file."""

from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from msgspec import Meta, Struct, field

from backends.base import Price, Seconds, Timeouts
from compat.canonical.model import Modality
from gateway.keeping import Artifacts, Fetch, Hub, Requests, Sessions, Storage
from gateway.routing.breaker import Rule
from gateway.section import Count, Number, Section

EMBEDDED_MODEL = "smollm2-135m-instruct"
LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
SCOPES = frozenset({"inference", "sessions", "models:read", "models:write", "admin"})
"""What a key or a token may be good for; `admin` includes all."""

Dollars = Annotated[float, Meta(ge=0, le=1e9)]
Algorithm = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519"]
"""Of signatures by a key pair: with a shared secret whoever can check a token could make one."""


class ConfigError(Exception):
    """The configuration cannot be used; the message says where and what to do."""


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
    public_url: str | None = None
    """How clients reach the gateway, where a proxy stands before it: what the URLs of artifacts begin with.  None is
    the Host that they name, by the scheme that reaches us."""
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


class Secrets(Section, frozen=True):
    """What the gateway needs for itself; each that is None is made once and kept in `{data_dir}/secrets.json`."""

    key_pepper: str | None = None
    """Under which issued keys are stored; another one makes them all invalid."""
    master_key: str | None = None
    """Seals users' own provider keys."""
    old_master_keys: tuple[str, ...] = ()
    """Open what they sealed, which is sealed anew with the one above as it is used."""

    def named(self) -> list[tuple[str, str]]:
        """All that are given, each with the name it has in the file."""
        singles = [(name, getattr(self, name)) for name in ("key_pepper", "master_key")]
        several = [(f"old_master_keys[{n}]", key) for n, key in enumerate(self.old_master_keys)]
        return [(name, secret) for name, secret in singles + several if secret is not None]


class Limit(Section, frozen=True):
    """What may be used; None is no limit."""

    requests_per_minute: Count | None = None
    tokens_per_minute: Count | None = None
    concurrent: Count | None = None
    budget_usd_per_day: Dollars | None = None
    """Spend per calendar day, in UTC."""
    budget_usd_per_month: Dollars | None = None
    artifact_bytes: Count | None = None
    """What its artifacts may take of the store."""


class Limits(Section, frozen=True):
    default: Limit = Limit()
    """For each key (or user, where there is a token instead of a key) that has none of its own."""
    keys: dict[str, Limit] = {}
    """By the name or id of a key."""
    users: dict[str, Limit] = {}
    """By a user's name; `*` is each that is not named."""
    tenants: dict[str, Limit] = {}
    """Likewise by tenant, for all its users together."""
    models: dict[str, Limit] = {}
    """By the name asked for or BACKEND/MODEL, globs allowed, for everybody together."""
    store: str = "memory"
    """Where requests and tokens are counted: `memory` of this process, or `valkey://HOST:PORT/N` for several."""


class Rate(Section, frozen=True):
    """What a model costs, in US dollars; None is not known."""

    input: Dollars | None = None
    """Per million tokens, like the next three."""
    output: Dollars | None = None
    cached_input: Dollars | None = None
    """None: as much as `input`."""
    cache_write: Dollars | None = None
    """None: as much as `input`."""
    request: Dollars | None = None
    """Per request, whatever it takes."""


class Key(Section, frozen=True):
    name: str
    key: str
    scopes: tuple[str, ...] = ("inference",)
    tenant: str = "default"
    models: tuple[str, ...] | None = None
    """Names it may ask for, or BACKEND/MODEL, globs allowed; None is any."""
    backends: tuple[str, ...] | None = None
    """Backends it may be answered by; None is any."""


class Jwt(Section, frozen=True):
    issuer: str
    """`iss` of the tokens; its `/.well-known/openid-configuration` is read unless jwks_url says where its keys are.
    Both are https, or http on loopback: whoever can change the keys on their way can make tokens."""
    audience: str | tuple[str, ...]
    """One of these must be in `aud`."""
    jwks_url: str | None = None
    algorithms: tuple[Algorithm, ...] = get_args(Algorithm)
    leeway_s: Annotated[float, Meta(ge=0, le=300)] = 30.0
    """By how much clocks may differ."""
    keys_max_age_s: Seconds = 300.0
    """How long the issuer's keys are taken for current; an unknown key id asks for them sooner."""
    keys_stale_s: Seconds = 3600.0
    """How long they serve, from their reading on, while the issuer cannot be asked; after that tokens are refused."""
    user_claim: str = "sub"
    """Names the user; `a.b` is `b` inside `a`, in all of these claims."""
    tenant_claim: str | None = None
    tenant: str = "default"
    """Where no claim is named."""
    scope_claim: str = "scope"
    """A list, or a text with spaces."""
    scopes: tuple[str, ...] = ()
    """Given to every token besides its own."""
    roles_claim: str | None = None
    roles: dict[str, tuple[str, ...]] = {}
    """Role → the scopes it has."""

    @property
    def discovery_url(self) -> str:
        """Where the issuer describes itself."""
        return f"{self.issuer.rstrip('/')}/.well-known/openid-configuration"

    @property
    def audiences(self) -> frozenset[str]:
        return frozenset((self.audience,) if isinstance(self.audience, str) else self.audience)


class Auth(Section, frozen=True):
    mode: Literal["local", "api_key", "jwt", "api_key+jwt"] = "local"
    keys: tuple[Key, ...] = ()
    jwt: Jwt | None = None

    @property
    def takes_keys(self) -> bool:
        return "api_key" in self.mode

    @property
    def takes_tokens(self) -> bool:
        return "jwt" in self.mode


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
WhileLoading = Literal["wait", "fallback"]
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
    while_loading: WhileLoading = "wait"
    """What a request does whose local model is not in memory: wait for it, or be answered by the next route while it
    loads; a request may say otherwise by the header x-gateway-while-loading."""

    def leads_to(self) -> tuple[str, ...]:
        """What its routes name, for whatever modality, each once: BACKEND/MODEL or patterns."""
        lists = (self.routes,) if isinstance(self.routes, tuple) else self.routes.values()
        return tuple(dict.fromkeys(one if isinstance(one, str) else one.to for routes in lists for one in routes))


class Telemetry(Section, frozen=True):
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["auto", "json", "console"] = "auto"
    """json: one object a line; console: for people; auto: console on a terminal, else json."""
    log_prompts: bool = False
    """Write each request's body, redacted and cut, to the log."""
    otlp_endpoint: str | None = None
    """Where traces and metrics are sent by OTLP over HTTP (http://HOST:4318); None sends nothing."""
    usage_days: Count | None = None
    """How long usage is kept; None keeps it for ever."""


class Terms(Section, frozen=True):
    """What the house says of a backend, whatever its kind."""

    price: Price | None = None
    """The price class of its models; None takes the preset's."""
    concurrent: Count | None = None
    """Requests under way at most; further ones wait.  None is no limit; local models have slots instead."""
    queue_max: Number = 256
    """Requests that may wait."""
    own_keys: Literal["allowed", "required", "refused"] = "allowed"
    """Whether users may be served with provider keys of their own; required: only with these, none is configured."""
    user_endpoints: tuple[str, ...] = ()
    """What the address of a user's own endpoint may begin with, besides https:// and a public address."""


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
    prices: dict[str, Rate] = {}
    breaker: Rule = Rule()
    storage: Storage = Storage()
    hub: Hub = Hub()
    artifacts: Artifacts = Artifacts()
    sessions: Sessions = Sessions()
    requests: Requests = Requests()
    fetch: Fetch = Fetch()
    telemetry: Telemetry = Telemetry()
    secrets: Secrets = Secrets()


class Config(Struct, frozen=True, kw_only=True):
    """Everything decoded."""

    server: Server = Server()
    data_dir: Path
    database_url: str
    auth: Auth = Auth()
    backends: dict[str, BackendEntry] = field(default_factory=dict)
    models: dict[str, ModelEntry] = field(default_factory=dict)
    limits: Limits = Limits()
    prices: dict[str, Rate] = field(default_factory=dict)
    """By BACKEND/MODEL, globs allowed; they go before the public table's."""
    breaker: Rule = Rule()
    storage: Storage = Storage()
    hub: Hub = Hub()
    artifacts: Artifacts = Artifacts()
    sessions: Sessions = Sessions()
    requests: Requests = Requests()
    fetch: Fetch = Fetch()
    telemetry: Telemetry = Telemetry()
    secrets: Secrets = Secrets()

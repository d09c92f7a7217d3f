"""What a configuration must hold to besides its types: each fault is named with its cure."""

import difflib
import re
from collections.abc import Collection, Iterable, Iterator
from urllib.parse import urlsplit

from compat import amount
from gateway.auth.credential import is_token
from gateway.auth.endpoint import is_prefix
from gateway.settings import LOOPBACK, SCOPES, Auth, Config, ConfigError, Jwt, Target

SECRET_MIN = 16
"""Characters that make a text a secret rather than a word."""
OWN_SECRET_MIN = 32
"""The same of the gateway's own."""
TTL_MAX_S = 31_622_400
NAME_MAX = 64
"""Characters of a configured key's name, which stands for its user in the database."""
is_tenant = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}").fullmatch
_is_database = re.compile(
    r"sqlite\+aiosqlite:///.+|postgresql\+asyncpg://([^:/]*(:[^@]*)?@)?(\[[^/?\]]+\]|[^/:?@]*)(:\d{1,5})?([/?].*)?"
).fullmatch


def check(config: Config) -> None:
    """Raises ConfigError, which names every fault, one a line."""
    if found := "\n".join(_faults(config)):
        raise ConfigError(found)


def _faults(config: Config) -> Iterator[str]:
    server = config.server
    if is_exposed(config):
        yield (
            f"server.host: {server.host} can be reached from other machines, but auth.mode is 'local' (no key "
            "needed). Set auth.mode to api_key, or server.host to 127.0.0.1."
        )
    if server.public_url is not None and not _is_url(server.public_url):
        yield f"server.public_url: '{server.public_url}' is no URL; it must be like https://gateway.example.com"
    if not _is_database(config.database_url):
        yield "database.url: must be sqlite+aiosqlite:///FILE or postgresql+asyncpg://USER:PASSWORD@HOST:PORT/NAME"
    yield from _check_auth(config.auth, config.backends)
    for name, secret in config.secrets.named():
        if secret is not None and len(secret) < OWN_SECRET_MIN:
            yield f"secrets.{name}: too short to be a secret; use at least {OWN_SECRET_MIN} characters"
    for pattern, rate in config.prices.items():
        if "/" not in pattern and "*" not in pattern:
            yield f"prices.{pattern}: is not BACKEND/MODEL, so it would be nobody's price"
        if rate.input is None and rate.output is None and rate.request is None:
            yield f"prices.{pattern}: names no price; set input and output, or request"
    if config.limits.store != "memory" and not config.limits.store.startswith(("valkey://", "valkeys://")):
        yield "limits.store: must be 'memory' or valkey://HOST:PORT/NUMBER (valkeys:// with TLS)"
    endpoint = config.telemetry.otlp_endpoint
    if endpoint is not None and not endpoint.startswith(("http://", "https://")):
        yield "telemetry.otlp_endpoint: must begin with http:// or https://, like http://127.0.0.1:4318"
    yield from _check_storage(config)
    yield from _check_artifacts(config)
    if bool(server.tls.cert) != bool(server.tls.key):
        yield "server.tls: cert and key are needed together"
    if config.breaker.cooldown_max_s < config.breaker.cooldown_s:
        yield "breaker.cooldown_max_s: less than cooldown_s, with which it begins"
    for name, backend in config.backends.items():
        if backend.terms.own_keys == "required" and not hasattr(backend.settings, "api_key"):
            yield f"backends.{name}.own_keys: a backend of kind '{backend.kind}' takes no keys at all"
        url = getattr(backend.settings, "base_url", None)
        if url is not None and not _is_url(url):
            yield f"backends.{name}.base_url: is no URL; it must be like https://HOST/PATH or http://HOST:PORT"
        for n, prefix in enumerate(backend.terms.user_endpoints):
            if not is_prefix(prefix):
                yield (
                    f"backends.{name}.user_endpoints[{n}]: '{prefix}' must be like https://HOST/PATH, without user, "
                    "query or fragment"
                )
    for name, entry in config.models.items():
        if isinstance(entry.routes, tuple):
            yield from _check_routes(f"models.{name}.routes", entry.routes, config)
        elif not entry.routes:
            yield f"models.{name}.routes: empty; name at least one BACKEND/MODEL"
        else:
            for modality, routes in entry.routes.items():
                yield from _check_routes(f"models.{name}.routes.{modality}", routes, config)


def _check_storage(config: Config) -> Iterator[str]:
    amounts = {
        "storage.model_bytes_max": config.storage.model_bytes_max,
        "storage.min_free_bytes": config.storage.min_free_bytes,
        "hub.bytes_per_s": config.hub.bytes_per_s,
        "artifacts.max_bytes": config.artifacts.max_bytes,
        "requests.answer_bytes": config.requests.answer_bytes,
        "fetch.max_bytes": config.fetch.max_bytes,
        "fetch.request_bytes": config.fetch.request_bytes,
    }
    for at, given in amounts.items():
        try:
            size = None if given is None else amount.parse(given)
        except (ValueError, OverflowError):
            yield f"{at}: '{given}' is no amount; write bytes, or like 20GiB or 500 MB"
        else:
            if size == 0 and at == "hub.bytes_per_s":
                yield "hub.bytes_per_s: 0 would bring nothing; leave it out for no limit"
    for n, pin in enumerate(config.storage.pin):
        if not pin.strip():
            yield f"storage.pin[{n}]: empty; name a model, BACKEND/MODEL, or a glob like '*-instruct'"
    endpoint = config.hub.endpoint
    if endpoint is not None and not _is_url(endpoint):
        yield f"hub.endpoint: '{endpoint}' is no URL; it must be like https://HOST, with http:// for a mirror nearby"


def _check_artifacts(config: Config) -> Iterator[str]:
    artifacts = config.artifacts
    if not artifacts.url.startswith(("file:///", "file://{data_dir}", "s3://")) or artifacts.url == "s3://":
        yield f"artifacts.url: '{artifacts.url}' must be file:///FOLDER (or file://{{data_dir}}/FOLDER) or s3://BUCKET"
    if artifacts.presign and not artifacts.url.startswith("s3://"):
        yield "artifacts.presign: a folder cannot sign URLs; the gateway hands its files out by its own"
    if artifacts.ttl_s > TTL_MAX_S:
        yield f"artifacts.ttl_s: more than {TTL_MAX_S} seconds (a year); a URL that is good for ever is no secret"
    given = {"signing_key": artifacts.signing_key}
    given |= {f"old_signing_keys[{n}]": key for n, key in enumerate(artifacts.old_signing_keys)}
    for name, secret in given.items():
        if secret is not None and len(secret) < OWN_SECRET_MIN:
            yield f"artifacts.{name}: too short to be a secret; use at least {OWN_SECRET_MIN} characters"
    endpoint = artifacts.s3.endpoint
    if endpoint is not None and not _is_url(endpoint):
        yield f"artifacts.s3.endpoint: '{endpoint}' is no URL; it must be like https://HOST:PORT"
    elif endpoint is not None and endpoint.startswith("http://") and not artifacts.s3.allow_http:
        yield "artifacts.s3.endpoint: is http; set artifacts.s3.allow_http if that is meant"
    for n, prefix in enumerate(config.fetch.allow):
        if not is_prefix(prefix):
            yield f"fetch.allow[{n}]: '{prefix}' must be like http://HOST/PATH, without user, query or fragment"


def is_exposed(config: Config) -> bool:
    """Whether anybody on another machine could use the gateway without a key."""
    return config.auth.mode == "local" and config.server.host not in LOOPBACK


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint at what may have been meant, to be put behind what is wrong."""
    known = list(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; did you mean '{close[0]}'?" if close else (f"; valid are {', '.join(known)}" if known else "")


def unknown_word(word: str, known: Iterable[str]) -> str:
    """What is said of a word that is none of those there may be."""
    known = list(known)
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    meant = f"did you mean '{close[0]}'? " if close else ""
    return f"'{word}' is unknown; {meant}valid are {', '.join(known)}"


def _check_auth(auth: Auth, backends: Collection[str]) -> Iterator[str]:
    names: set[str] = set()
    holders: dict[str, str] = {}
    for n, key in enumerate(auth.keys):
        if not key.name.strip() or len(key.name) > NAME_MAX or not key.name.isprintable():
            yield f"auth.keys[{n}].name: must have 1 to {NAME_MAX} printable characters"
        if not key.key.isascii() or not key.key.isprintable() or key.key != key.key.strip():
            yield (
                f"auth.keys[{n}].key: must be printable ASCII without blanks at its ends, or no client could send it"
            )
        if auth.takes_tokens and is_token(key.key):
            yield f"auth.keys[{n}].key: has the shape of a token and would be taken for one; use another"
        if len(key.key) < SECRET_MIN:
            yield f"auth.keys[{n}].key: too short to be a secret; use at least {SECRET_MIN} characters"
        if key.name in names:
            yield f"auth.keys[{n}].name: '{key.name}' is used twice"
        names.add(key.name)
        if (other := holders.setdefault(key.key, key.name)) != key.name:
            yield f"auth.keys[{n}].key: '{other}' has the same one; each needs its own"
        yield from _check_scopes(f"auth.keys[{n}].scopes", key.scopes)
        yield from _check_tenant(f"auth.keys[{n}].tenant", key.tenant)
        for m, backend in enumerate(key.backends or ()):
            if backend not in backends:
                yield f"auth.keys[{n}].backends[{m}]: '{backend}' is unknown{nearest(backend, backends)}"
    if auth.takes_tokens and auth.jwt is None:
        yield f"auth.jwt: auth.mode is '{auth.mode}', but no issuer is named; add {{issuer: https://…, audience: …}}"
    if auth.jwt is not None:
        yield from _check_jwt(auth.jwt)


def _check_jwt(jwt: Jwt) -> Iterator[str]:
    name, url = ("issuer", jwt.issuer) if jwt.jwks_url is None else ("jwks_url", jwt.jwks_url)
    if not is_guarded(url):
        yield (
            f"auth.jwt.{name}: '{url}' must be an https URL, or an http one on loopback: whoever can change the "
            "issuer's keys on their way can make tokens"
        )
    if not jwt.issuer:
        yield "auth.jwt.issuer: empty; name what its tokens have in 'iss'"
    if not jwt.audiences or "" in jwt.audiences:
        yield "auth.jwt.audience: empty; name what must be in 'aud', or tokens for others would be taken"
    if not jwt.algorithms:
        yield "auth.jwt.algorithms: empty; leave it out, or name at least one"
    if jwt.keys_stale_s < jwt.keys_max_age_s:
        yield "auth.jwt.keys_stale_s: less than keys_max_age_s, so that keys would never be current"
    yield from _check_scopes("auth.jwt.scopes", jwt.scopes)
    yield from _check_tenant("auth.jwt.tenant", jwt.tenant)
    for role, scopes in jwt.roles.items():
        yield from _check_scopes(f"auth.jwt.roles.{role}", scopes)


def is_guarded(url: str, *, loopback: bool = True) -> bool:
    """Whether nobody can change on its way what this URL gives: https, or (loopback) plain HTTP on this machine."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return False
    if not host or parts.fragment or parts.username is not None or not url.isascii() or not url.isprintable():
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and loopback and host in LOOPBACK)


def _is_url(url: str) -> bool:
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(host) and url.isprintable() and " " not in url


def _check_scopes(at: str, scopes: Iterable[str]) -> Iterator[str]:
    for scope in scopes:
        if scope not in SCOPES:
            yield f"{at}: '{scope}' is unknown{nearest(scope, sorted(SCOPES))}"


def _check_tenant(at: str, tenant: str) -> Iterator[str]:
    if not is_tenant(tenant):
        yield f"{at}: '{tenant}' is no tenant's name; use up to 64 letters, digits, '.', '_', '@' and '-'"


def _check_routes(at: str, routes: tuple[str | Target, ...], config: Config) -> Iterator[str]:
    if not routes:
        yield f"{at}: empty; name at least one BACKEND/MODEL"
    for n, route in enumerate(routes):
        to = route if isinstance(route, str) else route.to
        backend, slash, model = to.partition("/")
        if not slash or not model:
            yield f"{at}[{n}]: '{to}' is not BACKEND/MODEL"
        elif backend not in config.backends:
            yield f"{at}[{n}]: backend '{backend}' is unknown{nearest(backend, config.backends)}"

"""What a configuration must hold to besides its types: one ConfigError names the first fault and its cure."""

import difflib
import re
from collections.abc import Iterable

from gateway.settings import LOOPBACK, SCOPES, Auth, Config, ConfigError, Target

SECRET_MIN = 16
"""Characters that make a text a secret rather than a word."""
OWN_SECRET_MIN = 32
"""The same of the gateway's own."""
_tenant = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}").fullmatch


def check(config: Config) -> None:
    """Raises ConfigError."""
    server = config.server
    if config.auth.mode == "local" and server.host not in LOOPBACK:
        raise ConfigError(
            f"server.host: {server.host} can be reached from other machines, but auth.mode is 'local' (no key "
            "needed). Set auth.mode to api_key, or server.host to 127.0.0.1."
        )
    _check_auth(config.auth)
    for name in config.secrets.__struct_fields__:
        secret = getattr(config.secrets, name)
        if secret is not None and len(secret) < OWN_SECRET_MIN:
            raise ConfigError(f"secrets.{name}: too short to be a secret; use at least {OWN_SECRET_MIN} characters")
    if config.limits.store != "memory" and not config.limits.store.startswith(("valkey://", "valkeys://")):
        raise ConfigError("limits.store: must be 'memory' or valkey://HOST:PORT/NUMBER (valkeys:// with TLS)")
    if bool(server.tls.cert) != bool(server.tls.key):
        raise ConfigError("server.tls: cert and key are needed together")
    if config.breaker.cooldown_max_s < config.breaker.cooldown_s:
        raise ConfigError("breaker.cooldown_max_s: less than cooldown_s, with which it begins")
    for name, entry in config.models.items():
        if isinstance(entry.routes, tuple):
            _check_routes(f"models.{name}.routes", entry.routes, config)
        elif not entry.routes:
            raise ConfigError(f"models.{name}.routes: empty; name at least one BACKEND/MODEL")
        else:
            for modality, routes in entry.routes.items():
                _check_routes(f"models.{name}.routes.{modality}", routes, config)


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint at what may have been meant, to be put behind what is wrong."""
    known = list(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; did you mean '{close[0]}'?" if close else (f"; valid are {', '.join(known)}" if known else "")


def _check_auth(auth: Auth) -> None:
    names: set[str] = set()
    for n, key in enumerate(auth.keys):
        if len(key.key) < SECRET_MIN:
            raise ConfigError(f"auth.keys[{n}].key: too short to be a secret; use at least {SECRET_MIN} characters")
        if key.name in names:
            raise ConfigError(f"auth.keys[{n}].name: '{key.name}' is used twice")
        names.add(key.name)
        _check_scopes(f"auth.keys[{n}].scopes", key.scopes)
        _check_tenant(f"auth.keys[{n}].tenant", key.tenant)
    if auth.takes_tokens and auth.jwt is None:
        raise ConfigError(
            f"auth.jwt: auth.mode is '{auth.mode}', but no issuer is named; add {{issuer: https://…, audience: …}}"
        )
    if auth.jwt is not None:
        _check_scopes("auth.jwt.scopes", auth.jwt.scopes)
        _check_tenant("auth.jwt.tenant", auth.jwt.tenant)
        for role, scopes in auth.jwt.roles.items():
            _check_scopes(f"auth.jwt.roles.{role}", scopes)


def _check_scopes(at: str, scopes: Iterable[str]) -> None:
    for scope in scopes:
        if scope not in SCOPES:
            raise ConfigError(f"{at}: '{scope}' is unknown{nearest(scope, sorted(SCOPES))}")


def _check_tenant(at: str, tenant: str) -> None:
    if not _tenant(tenant):
        raise ConfigError(f"{at}: '{tenant}' is no tenant's name; use up to 64 letters, digits, '.', '_', '@' and '-'")


def _check_routes(at: str, routes: tuple[str | Target, ...], config: Config) -> None:
    if not routes:
        raise ConfigError(f"{at}: empty; name at least one BACKEND/MODEL")
    for n, route in enumerate(routes):
        to = route if isinstance(route, str) else route.to
        backend, slash, model = to.partition("/")
        if not slash or not model:
            raise ConfigError(f"{at}[{n}]: '{to}' is not BACKEND/MODEL")
        if backend not in config.backends:
            raise ConfigError(f"{at}[{n}]: backend '{backend}' is unknown{nearest(backend, config.backends)}")

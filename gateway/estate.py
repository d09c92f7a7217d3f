"""Builds the estate a configuration describes, taking over the backends that did not change."""

import os
import re
from base64 import b64encode
from collections.abc import Iterable, Mapping
from functools import partial
from urllib.parse import unquote

from msgspec import Struct, json

import backends
from backends.base import Backend, Priced, Succeeds
from backends.ports import Local, Ports
from gateway.asking import ask
from gateway.auth.authenticator import Authenticator, Tokens
from gateway.discovery import discover
from gateway.discovery.headers import Headers, remembered
from gateway.discovery.problem import Problem
from gateway.findings import errors
from gateway.house import Estate
from gateway.reckoning import MemoryBook
from gateway.registry import Registry
from gateway.registry.entries import Entries, Found
from gateway.registry.places import allowed
from gateway.routing.router import Router
from gateway.settings import Auth, Config, ConfigError
from gateway.telemetry.prices import Prices, payees


class Scan(Struct, frozen=True):
    """What lay in the folders of local models when they were looked at, whatever is registered."""

    found: Found
    headers: Headers
    problems: tuple[Problem, ...]
    """What cannot be served."""


def scan(config: Config, *, again: bool = True) -> Scan:
    """Find the local models that there are now.  Reads their folders, which may take long.  Raises ConfigError.

    again: where folders are watched, a file that may still grow is no problem yet: it is looked at again.
    """
    found: dict[str, Mapping[str, Local]] = {}
    problems: list[Problem] = []
    with remembered(config.data_dir) as headers:
        for name, entry in config.backends.items():
            if entry.kind == "local":
                own = entry.settings
                where = (name, own.model_dirs, config.data_dir, own.models, problems)
                found[name] = discover(*where, adopt=own.adopt, patient=again and own.watch)
    return Scan(found, headers, tuple(problems))


def lay(config: Config, scanned: Scan, entries: Entries | None = None, problems: list[Problem] | None = None) -> Found:
    """What was found and is still here, as it is registered.  Looks into no folder but those of registered models.

    problems: filled with what cannot be served.
    """
    here = {
        name: {key: one for key, one in models.items() if os.path.exists(one.made_from or one.path)}
        for name, models in scanned.found.items()
    }
    told = [] if problems is None else problems
    told.extend(scanned.problems)
    laid: Found = here
    if entries is not None:
        settings = {name: config.backends[name].settings.models for name in here}
        inside = {name: allowed(config, name) for name in here}
        with remembered(config.data_dir, scanned.headers):
            laid = entries.laid_over(here, settings, told, inside)
    return {
        name: {one.name: config.backends[name].settings.bounded(one) for one in models.values()}
        for name, models in laid.items()
    }


def look(config: Config, entries: Entries | None = None, problems: list[Problem] | None = None) -> Found:
    """Both, once: what there is now, as it is registered.  Reads folders."""
    return lay(config, scan(config, again=False), entries, problems)


def build(config: Config, old: Estate | None = None, found: Found | None = None) -> Estate:
    """Connect the backends and draw the routes.  Raises ConfigError; opens no connection yet.

    A backend whose entry and models are the same as in `old` is taken over with its connections and processes.
    found: the local models; None: they are looked for now.
    """
    found = look(config) if found is None else found
    if wrong := errors(config, found):
        raise ConfigError("\n".join(wrong))
    demanding = frozenset(name for name, entry in config.backends.items() if entry.terms.own_keys == "required")
    connected: dict[str, Backend] = {}
    reckoning = MemoryBook() if old is None else old.reckoning
    for name, entry in config.backends.items():
        before = old.config.backends.get(name) if old is not None else None
        same = before is not None and (before.kind, before.settings) == (entry.kind, entry.settings)
        same = same and old is not None and (name in demanding) == (name in old.demanding)
        if old is not None and same and found.get(name) == old.local.get(name):
            connected[name] = old.backends[name]
            continue
        ports = Ports(
            catalogue=partial(dict, found.get(name, {})), reckoning=reckoning, ask=ask, keyless=name in demanding
        )
        try:
            connected[name] = backends.connect(name, entry.kind, entry.settings, ports)
        except ValueError as e:
            raise ConfigError(f"backends.{name}.{e}") from e
    # Without a key there is nothing to be listed: users' own lists stand in.
    registry = Registry({name: one for name, one in connected.items() if name not in demanding}, found)
    classes = {
        name: config.backends[name].terms.price or (backend.price if isinstance(backend, Priced) else None)
        for name, backend in connected.items()
    }
    return Estate(
        config=config,
        backends=connected,
        registry=registry,
        router=Router(config.models, connected, registry, classes),
        prices=Prices(config.prices, payees(config.backends, classes)),
        entry=Authenticator(config.auth, _tokens(config.auth, old)),
        local=found,
        demanding=demanding,
        reckoning=reckoning,
    )


def _tokens(auth: Auth, old: Estate | None) -> Tokens | None:
    if auth.jwt is None or not auth.takes_tokens:
        return None
    if old is not None and old.entry.tokens is not None and old.config.auth.jwt == auth.jwt:
        return old.entry.tokens
    from gateway.auth.jwt import TrustedTokens  # not before it is wanted: cryptography takes long to import

    return TrustedTokens(auth.jwt)


_SECRETIVE = ("_KEY", "_TOKEN", "_SECRET", "PASSWORD")
_userinfo = re.compile(r"(\w+)://([^/?#@\s\"':]*)(?::([^/?#\s\"']*))?@").findall


def succeed(old: Estate, new: Estate) -> None:
    """Have new backends go on with what those run whose places they take."""
    for name, backend in new.backends.items():
        before = old.backends.get(name)
        if before is not None and before is not backend and isinstance(backend, Succeeds):
            backend.succeed(before)


def changes(old: Found, new: Found) -> dict[str, list[str]]:
    """The local models that came, went and became others, in those words; empty where none did."""
    before = {one.model.id: one for models in old.values() for one in models.values()}
    after = {one.model.id: one for models in new.values() for one in models.values()}
    told = {
        "came": sorted(after.keys() - before.keys()),
        "went": sorted(before.keys() - after.keys()),
        "changed": sorted(id_ for id_ in after.keys() & before.keys() if after[id_] != before[id_]),
    }
    return {word: ids for word, ids in told.items() if ids}


def retired(old: Estate, new: Estate) -> list[Backend | Tokens]:
    """What only the old estate has, to be closed when its guests are gone."""
    kept = {id(one) for one in open_things(new)}
    return [one for one in open_things(old) if id(one) not in kept]


def open_things(estate: Estate) -> list[Backend | Tokens]:
    """What has connections or processes."""
    tokens = estate.entry.tokens
    return [*estate.backends.values(), *(() if tokens is None else (tokens,))]


def secrets(config: Config) -> list[str]:
    """Every secret the configuration holds, and those that backends may take from the environment."""
    found = [key.key for key in config.auth.keys]
    found += [secret for _, secret in config.secrets.named()]
    artifacts = config.artifacts
    own = (config.hub.token, artifacts.signing_key, *artifacts.old_signing_keys, artifacts.s3.secret_access_key)
    found += [secret for secret in own if secret]
    found += [value for name, value in os.environ.items() if name.endswith(_SECRETIVE)]
    found += [part for name, value in os.environ.items() if name.endswith("_HEADERS") for part in _headers(value)]
    found += _passwords([json.encode(config, enc_hook=str).decode(), *os.environ.values()])
    for entry in config.backends.values():
        settings = entry.settings
        found += [v for v in (getattr(settings, "api_key", None), *getattr(settings, "headers", {}).values()) if v]
    return found


def _passwords(texts: Iterable[str]) -> list[str]:
    """What stands before the @ of URLs, as it is written and as it is meant."""
    found = []
    for scheme, user, password in (url for text in texts for url in _userinfo(text)):
        if password:
            found += [password, unquote(password), b64encode(f"{unquote(user)}:{unquote(password)}".encode()).decode()]
        elif scheme in ("http", "https"):
            found += [user, unquote(user)]
    return found


def _headers(text: str) -> list[str]:
    """The values in a list of headers as OpenTelemetry's exporters take it: `name=value,name=value`."""
    values = [unquote(pair.partition("=")[2]).strip() for pair in text.split(",")]
    return [part for value in values for part in (value, value.rpartition(" ")[2])]

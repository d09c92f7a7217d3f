"""Builds the estate a configuration describes, taking over the backends that did not change."""

import os
from collections.abc import Mapping
from functools import partial

import backends
from backends.base import Backend, Local, Ports, Priced
from gateway.auth.authenticator import Authenticator
from gateway.discovery import discover
from gateway.house import Estate
from gateway.registry import Registry
from gateway.routing.router import Router
from gateway.settings import Config, ConfigError


def build(config: Config, old: Estate | None = None) -> Estate:
    """Connect the backends and draw the routes.  Raises ConfigError; opens no connection yet.

    A backend whose entry is the same as in `old` is taken over with its connections and processes.
    """
    connected: dict[str, Backend] = {}
    local: dict[str, dict[str, Local]] = {}
    for name, entry in config.backends.items():
        before = old.config.backends.get(name) if old is not None else None
        if old is not None and before is not None and (before.kind, before.settings) == (entry.kind, entry.settings):
            connected[name] = old.backends[name]
            if name in old.local:
                local[name] = dict(old.local[name])
            continue
        if entry.kind == "local":
            local[name] = discover(name, entry.settings.model_dirs)
        ports = Ports(catalogue=partial(dict, local.get(name, {})))
        try:
            connected[name] = backends.connect(name, entry.kind, entry.settings, ports)
        except ValueError as e:
            raise ConfigError(f"backends.{name}.{e}") from e
    registry = Registry(connected, local)
    prices = {
        name: config.backends[name].terms.price or (backend.price if isinstance(backend, Priced) else None)
        for name, backend in connected.items()
    }
    return Estate(
        config=config,
        backends=connected,
        registry=registry,
        router=Router(config.models, connected, registry, prices),
        entry=Authenticator(config.auth),
        local=local,
    )


_SECRETIVE = ("_KEY", "_TOKEN", "_SECRET", "_PASSWORD")


def retired(old: Estate, new: Estate) -> Mapping[str, Backend]:
    """The backends that only the old estate has, to be closed when its guests are gone."""
    kept = {id(backend) for backend in new.backends.values()}
    return {name: backend for name, backend in old.backends.items() if id(backend) not in kept}


def secrets(config: Config) -> list[str]:
    """Every secret the configuration holds, and those that backends may take from the environment."""
    found = [key.key for key in config.auth.keys]
    found += [secret for name in config.secrets.__struct_fields__ if (secret := getattr(config.secrets, name))]
    found += [value for name, value in os.environ.items() if name.endswith(_SECRETIVE)]
    for entry in config.backends.values():
        settings = entry.settings
        found += [v for v in (getattr(settings, "api_key", None), *getattr(settings, "headers", {}).values()) if v]
    return found

"""The configuration: one YAML file and the environment, decoded into frozen structs.

`load` reads, interpolates, lays `PLUGGABLY__SECTION__KEY` over it and decodes.  Whatever is wrong becomes
one ConfigError that names the path and the cure.  Nothing here opens a socket, a database or a model.
"""

import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args, get_type_hints

import msgspec
from msgspec import Struct

from backends import KINDS, settings_of
from backends.base import Timeouts
from compat.canonical.model import Modality
from gateway import embedded
from gateway.checks import check, nearest
from gateway.interpolation import expanded, interpolated, shielded
from gateway.routing.breaker import Rule
from gateway.settings import (
    Auth,
    BackendEntry,
    Config,
    ConfigError,
    Database,
    File,
    Jwt,
    Key,
    Limit,
    Limits,
    ModelEntry,
    Rate,
    Secrets,
    Server,
    Target,
    Telemetry,
    Terms,
    Tls,
)

PREFIX = "PLUGGABLY__"


_name = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def load(path: Path | None, environ: Mapping[str, str] | None = None, given: Mapping[str, str] | None = None) -> Config:
    """Read a configuration file (None: defaults) and the environment.  Raises ConfigError.

    given: more of the environment, which goes before it: what the command line says.
    """
    environ = os.environ if environ is None else environ
    tree: Any = {}
    if path is not None:
        try:
            tree = _yaml(shielded(path.read_text()), str(path))
        except OSError as e:
            raise ConfigError(f"{path}: cannot be read: {e.strerror}") from e
        except UnicodeDecodeError as e:
            raise ConfigError(f"{path}: not YAML: {e}") from e
        if tree is None:
            tree = {}
        if not isinstance(tree, dict):
            raise ConfigError(f"{path}: must be a mapping of sections")
    try:
        tree = interpolated(tree, environ)
        _overlay(tree, environ)
        _overlay(tree, given or {})
        return decode(tree, environ)
    except RecursionError as e:
        at = path or "the environment"
        raise ConfigError(f"{at}: an alias stands inside what it names, or all is nested too deep; write it out") from e


def decode(tree: dict[str, Any], environ: Mapping[str, str]) -> Config:
    """Decode a configuration tree.  Raises ConfigError."""
    try:
        file = msgspec.convert(tree, File, strict=False)
    except msgspec.ValidationError as e:
        raise ConfigError(_explained(str(e), tree)) from e
    data_dir = expanded(file.data_dir, "data_dir") if file.data_dir else default_data_dir(environ)
    config = Config(
        server=file.server,
        data_dir=data_dir,
        database_url=file.database.url.replace("{data_dir}", str(data_dir)),
        auth=file.auth,
        backends={name: _backend(name, fields) for name, fields in _backends_of(file).items()},
        models=_models_of(file),
        limits=file.limits,
        prices=file.prices,
        breaker=file.breaker,
        telemetry=file.telemetry,
        secrets=file.secrets,
    )
    check(config)
    return config


def schema() -> dict[str, Any]:
    """JSON Schema of the file, for editors and `check-config --schema`."""
    return msgspec.json.schema(File)


def default_data_dir(environ: Mapping[str, str]) -> Path:
    """`$PLUGGABLY__DATA_DIR`, else the platform's folder for a user's data."""
    if given := environ.get(f"{PREFIX}DATA_DIR"):
        return expanded(given, "data_dir")
    if sys.platform == "darwin":
        return expanded("~/Library/Application Support/pluggably", "data_dir")
    return expanded(environ.get("XDG_DATA_HOME") or "~/.local/share", "data_dir") / "pluggably"


def _backends_of(file: File) -> dict[str, dict[str, Any]]:
    return {"local": {"kind": "local"}} if file.backends is None else file.backends


def _models_of(file: File) -> dict[str, ModelEntry]:
    if "auto" in file.models:
        return file.models
    local = next((name for name, fields in _backends_of(file).items() if fields.get("kind") == "local"), None)
    if local is None:
        return file.models
    return {**file.models, "auto": embedded.routes(local)}


def _backend(name: str, fields: dict[str, Any]) -> BackendEntry:
    at = f"backends.{name}"
    if not _name.fullmatch(name):
        raise ConfigError(f"{at}: a backend's name has only letters, digits, '.', '_' and '-'")
    fields = dict(fields)
    kind = fields.pop("kind", None)
    if kind is None:
        raise ConfigError(f"{at}.kind: missing; known are {', '.join(KINDS)}")
    if kind not in KINDS:
        raise ConfigError(f"{at}.kind: '{kind}' is unknown{nearest(str(kind), KINDS)}; known are {', '.join(KINDS)}")
    own = set(settings_of(kind, {}).__struct_fields__)
    common = {name: fields.pop(name) for name in Terms.__struct_fields__ if name in fields and name not in own}
    try:
        terms = msgspec.convert(common, Terms, strict=False)
        return BackendEntry(kind=kind, settings=settings_of(kind, fields), terms=terms)
    except msgspec.ValidationError as e:
        text = str(e)
        unknown = re.match(r"Object contains unknown field `([^`]+)`", text)
        if unknown:
            known = (*own, *Terms.__struct_fields__)
            raise ConfigError(f"{at}.{unknown[1]}: unknown key{nearest(unknown[1], known)}") from e
        raise ConfigError(f"{at}{_tail(text)}") from e


def _overlay(tree: dict[str, Any], environ: Mapping[str, str]) -> None:
    for name, value in sorted(environ.items()):
        if not name.startswith(PREFIX):
            continue
        path = name.removeprefix(PREFIX).lower().split("__")
        node = tree
        for part in path[:-1]:
            # Keys of the file keep their case; the environment's are matched without it.
            part = next((k for k in node if k.lower() == part), part)
            node = node.setdefault(part, {})
            if not isinstance(node, dict):
                raise ConfigError(f"{name}: '{part}' is not a section")
        last = next((k for k in node if k.lower() == path[-1]), path[-1])
        node[last] = _yaml(value, name) if value[:1] in "[{" else value


def _yaml(text: str, at: str) -> Any:
    try:
        return msgspec.yaml.decode(text)
    except msgspec.DecodeError as e:
        raise ConfigError(f"{at}: not YAML: {e}") from e
    except Exception as e:  # a date that is none, say: the parser lets through whatever its parts raise
        raise ConfigError(f"{at}: not YAML: a value cannot be read ({type(e).__name__}); put it in quotes") from e


_SECTIONS: dict[str, type[Struct]] = {
    "server": Server,
    "server.tls": Tls,
    "database": Database,
    "auth": Auth,
    "auth.jwt": Jwt,
    "limits": Limits,
    "limits.default": Limit,
    "breaker": Rule,
    "secrets": Secrets,
    "telemetry": Telemetry,
}


_MAPPINGS: dict[str, Any] = {
    "models": ModelEntry,
    ".routes": tuple[str | Target, ...],
    "backends": dict[str, Any],
    "prices": Rate,
    "auth.jwt.roles": tuple[str, ...],
    **dict.fromkeys(("limits.keys", "limits.users", "limits.tenants", "limits.models"), Limit),
}
"""What the values of a mapping are."""
_place = re.compile(r" - at (`key` in )?`\$\.?([^`]*)`$")


def _explained(message: str, tree: Any) -> str:
    place = _place.search(message)
    if place is None:
        what, at = message, ""
    else:
        what, at = message[: place.start()], _unmasked(place[2], tree)
    if unknown := re.match(r"Object contains unknown field `([^`]+)`", what):
        path = f"{at}.{unknown[1]}" if at else unknown[1]
        return f"{path}: unknown key{nearest(unknown[1], _section(at).__struct_fields__)}"
    if wrong := re.match(r"Invalid enum value '([^']*)'", what):
        if place is not None and place[1]:
            return f"{at}.{wrong[1]}: unknown key{nearest(wrong[1], get_args(Modality))}"
        section, _, name = at.rpartition(".")
        kind = get_type_hints(_section(section)).get(name)
        return f"{at}: '{wrong[1]}' is unknown{nearest(wrong[1], get_args(kind))}"
    return f"{at}: {what}" if at else what


def _section(at: str) -> type[Struct]:
    if at.startswith("models"):
        return Timeouts if at.endswith(".timeouts") else Target if at.endswith("]") else ModelEntry
    if at.startswith("auth.keys"):
        return Key
    if at.startswith("prices."):
        return Rate
    if at.startswith(("limits.keys.", "limits.users.", "limits.tenants.", "limits.models.")):
        return Limit
    return _SECTIONS.get(at, File)


def _unmasked(at: str, tree: Any) -> str:
    """msgspec masks the keys of mappings: put in the first whose value it refuses."""
    *heads, rest = at.split("[...]")
    path = ""
    for head in heads:
        for part in head.lstrip(".").split("."):
            tree = tree[part]
        name = next(name for name, value in tree.items() if not _converts(value, _MAPPINGS[head]))
        path += f"{head}.{name}"
        tree = tree[name]
    return path + rest


def _converts(value: Any, kind: Any) -> bool:
    try:
        msgspec.convert(value, kind, strict=False)
    except msgspec.ValidationError:
        return False
    return True


def _tail(message: str) -> str:
    found = re.search(r"^(.*) - at `\$\.?(.*)`$", message)
    if not found:
        return f": {message}"
    what, at = found[1], found[2].replace("[...]", ".*")
    return f".{at}: {what}" if at else f": {what}"

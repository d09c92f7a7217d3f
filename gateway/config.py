"""The configuration: one YAML file and the environment, decoded into frozen structs.

`load` reads, interpolates `${VAR}` and `${VAR:-default}`, lays `PLUGGABLY__SECTION__KEY` over it and
decodes.  Whatever is wrong becomes one ConfigError that names the path and the cure.  Nothing here
opens a socket, a database or a model.
"""

import difflib
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec
from msgspec import Struct, field

from backends import KINDS, settings_of
from backends.base import Timeouts

PREFIX = "PLUGGABLY__"


class ConfigError(Exception):
    """The configuration cannot be used; the message says where and what to do."""


class _Section(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class Tls(_Section, frozen=True):
    cert: str | None = None
    """PEM file of the certificate chain."""
    key: str | None = None
    """PEM file of its private key."""


class Server(_Section, frozen=True):
    host: str = "127.0.0.1"
    port: int = 8080
    tls: Tls = Tls()
    allowed_hosts: tuple[str, ...] = ()
    """Host names clients may use; empty means loopback names without auth, any with auth."""
    cors_origins: tuple[str, ...] = ()
    """Origins whose pages may call the gateway from a browser; empty means none."""
    drain_s: float = 25.0
    """How long running requests may take to finish after SIGTERM."""
    body_limit_bytes: int = 33_554_432


class Database(_Section, frozen=True):
    url: str = "sqlite+aiosqlite:///{data_dir}/gateway.db"


class Key(_Section, frozen=True):
    name: str
    key: str
    scopes: tuple[str, ...] = ("inference",)
    tenant: str = "default"


class Auth(_Section, frozen=True):
    mode: Literal["local", "api_key"] = "local"
    keys: tuple[Key, ...] = ()


class Target(_Section, frozen=True):
    """One route of a model."""

    to: str
    """BACKEND/MODEL; a `*` in MODEL stands for the name the client asked for."""
    weight: float = 1.0


class ModelEntry(_Section, frozen=True):
    routes: tuple[str | Target, ...]
    strategy: Literal["order", "weighted"] = "order"
    retries: int = 2
    """Further attempts after each route has failed once."""
    timeouts: Timeouts = Timeouts()


class Telemetry(_Section, frozen=True):
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["auto", "json", "console"] = "auto"
    """json: one object a line; console: for people; auto: console on a terminal, else json."""


class BackendEntry(Struct, frozen=True):
    """A backend's kind and its own settings, decoded by the kind."""

    kind: str
    settings: Any


class _File(_Section, frozen=True):
    """The file as it is written; `backends` are decoded by their kinds."""

    server: Server = Server()
    data_dir: str | None = None
    database: Database = Database()
    auth: Auth = Auth()
    backends: dict[str, dict[str, Any]] | None = None
    models: dict[str, ModelEntry] = {}
    telemetry: Telemetry = Telemetry()


class Config(Struct, frozen=True, kw_only=True):
    """Everything decoded."""

    server: Server = Server()
    data_dir: Path
    database_url: str
    auth: Auth = Auth()
    backends: dict[str, BackendEntry] = field(default_factory=dict)
    models: dict[str, ModelEntry] = field(default_factory=dict)
    telemetry: Telemetry = Telemetry()


EMBEDDED_MODEL = "smollm2-135m-instruct"
LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
_variable = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")
_name = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def load(path: Path | None, environ: Mapping[str, str] | None = None) -> Config:
    """Read a configuration file (None: defaults) and the environment.  Raises ConfigError."""
    environ = os.environ if environ is None else environ
    tree: Any = {}
    if path is not None:
        try:
            tree = msgspec.yaml.decode(path.read_bytes())
        except OSError as e:
            raise ConfigError(f"{path}: cannot be read: {e.strerror}") from e
        except msgspec.DecodeError as e:
            raise ConfigError(f"{path}: not YAML: {e}") from e
        if tree is None:
            tree = {}
        if not isinstance(tree, dict):
            raise ConfigError(f"{path}: must be a mapping of sections")
    tree = _interpolate(tree, environ, "")
    _overlay(tree, environ)
    return decode(tree, environ)


def decode(tree: dict[str, Any], environ: Mapping[str, str]) -> Config:
    """Decode a configuration tree.  Raises ConfigError."""
    try:
        file = msgspec.convert(tree, _File, strict=False)
    except msgspec.ValidationError as e:
        raise ConfigError(_explained(str(e), _File, tree)) from e
    data_dir = Path(file.data_dir).expanduser() if file.data_dir else default_data_dir(environ)
    config = Config(
        server=file.server,
        data_dir=data_dir,
        database_url=file.database.url.replace("{data_dir}", str(data_dir)),
        auth=file.auth,
        backends={name: _backend(name, fields) for name, fields in _backends_of(file).items()},
        models=_models_of(file),
        telemetry=file.telemetry,
    )
    _check(config)
    return config


def schema() -> dict[str, Any]:
    """JSON Schema of the file, for editors and `check-config --schema`."""
    return msgspec.json.schema(_File)


def default_data_dir(environ: Mapping[str, str]) -> Path:
    """`$PLUGGABLY__DATA_DIR`, else the platform's folder for a user's data."""
    if given := environ.get(f"{PREFIX}DATA_DIR"):
        return Path(given).expanduser()
    if sys.platform == "darwin":
        return Path("~/Library/Application Support/pluggably").expanduser()
    return Path(environ.get("XDG_DATA_HOME") or "~/.local/share").expanduser() / "pluggably"


def _backends_of(file: _File) -> dict[str, dict[str, Any]]:
    return {"local": {"kind": "local"}} if file.backends is None else file.backends


def _models_of(file: _File) -> dict[str, ModelEntry]:
    if "auto" in file.models:
        return file.models
    local = next((name for name, fields in _backends_of(file).items() if fields.get("kind") == "local"), None)
    if local is None:
        return file.models
    return {**file.models, "auto": ModelEntry(routes=(f"{local}/{EMBEDDED_MODEL}",))}


def _backend(name: str, fields: dict[str, Any]) -> BackendEntry:
    at = f"backends.{name}"
    if not _name.fullmatch(name):
        raise ConfigError(f"{at}: a backend's name has only letters, digits, '.', '_' and '-'")
    fields = dict(fields)
    kind = fields.pop("kind", None)
    if kind is None:
        raise ConfigError(f"{at}.kind: missing; known are {', '.join(KINDS)}")
    if kind not in KINDS:
        raise ConfigError(f"{at}.kind: '{kind}' is unknown{_nearest(str(kind), KINDS)}; known are {', '.join(KINDS)}")
    try:
        return BackendEntry(kind=kind, settings=settings_of(kind, fields))
    except msgspec.ValidationError as e:
        text = str(e)
        unknown = re.match(r"Object contains unknown field `([^`]+)`", text)
        if unknown:
            known = settings_of(kind, {}).__struct_fields__
            raise ConfigError(f"{at}.{unknown[1]}: unknown key{_nearest(unknown[1], known)}") from e
        raise ConfigError(f"{at}{_tail(text)}") from e


def _check(config: Config) -> None:
    server, auth = config.server, config.auth
    if auth.mode == "local" and server.host not in LOOPBACK:
        raise ConfigError(
            f"server.host: {server.host} can be reached from other machines, but auth.mode is 'local' (no key "
            "needed). Set auth.mode to api_key with a key under auth.keys, or server.host to 127.0.0.1."
        )
    if auth.mode == "api_key" and not auth.keys:
        raise ConfigError("auth.keys: auth.mode is 'api_key', but there is no key; add {name: app, key: ${APP_KEY}}")
    names: set[str] = set()
    for n, key in enumerate(auth.keys):
        if len(key.key) < 16:
            raise ConfigError(f"auth.keys[{n}].key: too short to be a secret; use at least 16 characters")
        if key.name in names:
            raise ConfigError(f"auth.keys[{n}].name: '{key.name}' is used twice")
        names.add(key.name)
    if bool(server.tls.cert) != bool(server.tls.key):
        raise ConfigError("server.tls: cert and key are needed together")
    for name, entry in config.models.items():
        if not entry.routes:
            raise ConfigError(f"models.{name}.routes: empty; name at least one BACKEND/MODEL")
        for n, route in enumerate(entry.routes):
            to = route if isinstance(route, str) else route.to
            backend, slash, model = to.partition("/")
            if not slash or not model:
                raise ConfigError(f"models.{name}.routes[{n}]: '{to}' is not BACKEND/MODEL")
            if backend not in config.backends:
                raise ConfigError(
                    f"models.{name}.routes[{n}]: backend '{backend}' is unknown{_nearest(backend, config.backends)}"
                )


def _interpolate(value: Any, environ: Mapping[str, str], at: str) -> Any:
    if isinstance(value, dict):
        # A name that looks like a number is one to YAML.
        return {str(k): _interpolate(v, environ, f"{at}.{k}" if at else str(k)) for k, v in value.items()}
    if isinstance(value, list):
        return [_interpolate(v, environ, f"{at}[{n}]") for n, v in enumerate(value)]
    if not isinstance(value, str):
        return value

    def put(found: re.Match[str]) -> str:
        name, default = found[1], found[2]
        given = environ.get(name)
        if given:
            return given
        if default is None:
            raise ConfigError(f"{at}: environment variable {name} is not set; ${{{name}:-default}} gives a default")
        return default

    return _variable.sub(put, value)


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
        try:
            node[last] = msgspec.yaml.decode(value.encode()) if value[:1] in "[{" else value
        except (msgspec.DecodeError, IndexError) as e:
            raise ConfigError(f"{name}: not a YAML value") from e


def _explained(message: str, root: type[Struct], tree: Any) -> str:
    unknown = re.match(r"Object contains unknown field `([^`]+)`(?: - at `\$\.?(.*)`)?$", message)
    if not unknown:
        return _tail(message).lstrip(".: ") or message
    name, at = unknown[1], (unknown[2] or "")
    known: tuple[str, ...] = root.__struct_fields__
    section = {"server": Server, "server.tls": Tls, "database": Database, "auth": Auth, "telemetry": Telemetry}.get(at)
    if section is not None:
        known = section.__struct_fields__
    elif at.startswith("models"):
        known = Timeouts.__struct_fields__ if at.endswith("timeouts") else ModelEntry.__struct_fields__
        # msgspec masks keys of mappings; find the entry that has the key it refused.
        masked = next((k for k, v in tree.get("models", {}).items() if name in str(v)), "…")
        at = at.replace("[...]", f".{masked}")
    elif at.startswith("auth.keys"):
        known = Key.__struct_fields__
    path = f"{at}.{name}" if at else name
    return f"{path}: unknown key{_nearest(name, known)}"


def _nearest(name: str, known: Any) -> str:
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean '{close[0]}'?" if close else (f"; valid are {', '.join(known)}" if known else "")


def _tail(message: str) -> str:
    found = re.search(r"^(.*) - at `\$\.?(.*)`$", message)
    if not found:
        return f": {message}"
    what, at = found[1], found[2].replace("[...]", ".*")
    return f".{at}: {what}" if at else f": {what}"

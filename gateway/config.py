"""The configuration: one YAML file and the environment, decoded into frozen structs.

`load` reads, interpolates, lays `PLUGGABLY__SECTION__KEY` over it and decodes.  Whatever is wrong becomes
one ConfigError that names the path and the cure.  Nothing here opens a socket, a database or a model.
"""

import os
import re
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Union

import msgspec

from backends import KINDS, settings_of
from compat import inside
from gateway import embedded
from gateway.checks import check, nearest, unknown_word
from gateway.interpolation import expanded, interpolated, shielded
from gateway.settings import BackendEntry, Config, ConfigError, File, ModelEntry, Terms

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
        raise ConfigError(_explained(str(e), tree, File)) from e
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
        storage=file.storage,
        hub=file.hub,
        artifacts=file.artifacts,
        sessions=file.sessions,
        requests=file.requests,
        fetch=file.fetch,
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
        raise ConfigError(f"{at}.kind: {unknown_word(str(kind), KINDS)}")
    settings = type(settings_of(kind, {}))
    own = settings.__struct_fields__
    common = {name: fields.pop(name) for name in Terms.__struct_fields__ if name in fields and name not in own}
    try:
        terms = msgspec.convert(common, Terms, strict=False)
    except msgspec.ValidationError as e:
        raise ConfigError(_explained(str(e), common, Terms, at)) from e
    try:
        return BackendEntry(kind=kind, settings=settings_of(kind, fields), terms=terms)
    except msgspec.ValidationError as e:
        raise ConfigError(_explained(str(e), fields, settings, at, Terms.__struct_fields__)) from e


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


_place = re.compile(r" - at (`key` in )?`\$\.?([^`]*)`$")


def _explained(message: str, tree: Any, root: Any, at: str = "", known: Collection[str] = ()) -> str:
    """What msgspec says of a tree that is no `root`, with the path and what may stand there.

    at: the tree's own path.  known: keys of the root besides its own.
    """
    place = _place.search(message)
    what, masked = (message, "") if place is None else (message[: place.start()], place[2])
    path, kinds = _joined(at, _unmasked(masked, tree, root)), inside.at(root, masked)
    if unknown := re.match(r"Object contains unknown field `([^`]+)`", what):
        names = [*inside.fields(kinds), *(() if masked else known)]
        return f"{_joined(path, unknown[1])}: unknown key{nearest(unknown[1], names)}"
    if wrong := re.match(r"Invalid enum value '([^']*)'", what):
        if place is not None and place[1]:
            return f"{_joined(path, wrong[1])}: unknown key{nearest(wrong[1], inside.keys(kinds))}"
        return f"{path}: {unknown_word(wrong[1], inside.words(kinds))}"
    return f"{path}: {what}" if path else what


def _joined(path: str, name: str) -> str:
    return f"{path}.{name}" if path and name else path or name


def _unmasked(masked: str, tree: Any, root: Any) -> str:
    """msgspec masks the keys of mappings: put in the first whose value it refuses."""
    path, walked = "", ""
    for step in inside.steps(masked):
        walked += step if step.startswith("[") else f".{step}"
        if step == "[...]":
            step = next(name for name, value in tree.items() if not _converts(value, inside.at(root, walked)))
            tree = tree[step]
        else:
            tree = tree[int(step[1:-1])] if step.startswith("[") else tree[step]
        path = f"{path}{step}" if str(step).startswith("[") else _joined(path, str(step))
    return path


def _converts(value: Any, kinds: Sequence[Any]) -> bool:
    try:
        msgspec.convert(value, Union[tuple(kinds)], strict=False)  # noqa: UP007  made of what was found
    except msgspec.ValidationError:
        return False
    return True

"""`${VAR}`, `${VAR:-default}` and `${file:PATH}` in the configuration, replaced once it has been parsed.

Replaced afterwards, a value cannot break out of its place.  But YAML must not trip over what stands there before, such
as the braces in `{key: ${KEY}}`: until then it is spelled in digits, between two characters that mean nothing.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gateway.settings import ConfigError

_BEGIN, _END = "\ue000", "\ue001"  # of Unicode's private use
_written = re.compile(r"\$\{((?:[A-Za-z_][A-Za-z0-9_]*(?::-[^}\n]*)?|file:[^}\n]+))\}")
_shielded = re.compile(f"{_BEGIN}([0-9a-f]*){_END}")


def shielded(text: str) -> str:
    """A file's text as YAML can read it."""
    return _written.sub(lambda found: f"{_BEGIN}{found[1].encode().hex()}{_END}", text)


def interpolated(value: Any, environ: Mapping[str, str], at: str = "") -> Any:
    """The tree that was read from a shielded text, with everything in its place.  Raises ConfigError.

    at: the path of `value` in the file, for messages.
    """
    if isinstance(value, dict):
        # A name that looks like a number is one to YAML.
        return {str(k): interpolated(v, environ, f"{at}.{k}" if at else str(k)) for k, v in value.items()}
    if isinstance(value, list):
        return [interpolated(v, environ, f"{at}[{n}]") for n, v in enumerate(value)]
    if not isinstance(value, str):
        return value
    return _shielded.sub(lambda found: _value(bytes.fromhex(found[1]).decode(), environ, at), value)


def expanded(path: str, at: str) -> Path:
    """A path that may begin with `~`.  Raises ConfigError."""
    try:
        return Path(path).expanduser()
    except RuntimeError as e:
        raise ConfigError(f"{at}: '{path}' names no home folder; write the path in full") from e


def _value(wanted: str, environ: Mapping[str, str], at: str) -> str:
    if wanted.startswith("file:"):
        path = expanded(wanted.removeprefix("file:"), at)
        try:
            return path.read_text().rstrip("\r\n")
        except (OSError, ValueError) as e:
            reason = e.strerror if isinstance(e, OSError) else "not a text, or no file's name"
            raise ConfigError(f"{at}: the file {path} cannot be read: {reason}") from e
    name, dash, default = wanted.partition(":-")
    if given := environ.get(name):
        return given
    if not dash:
        raise ConfigError(f"{at}: environment variable {name} is not set; ${{{name}:-default}} gives a default")
    return default

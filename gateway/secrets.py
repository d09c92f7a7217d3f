"""The gateway's own secrets: from the configuration, else made once and kept in a file nobody else may read."""

import base64
import fcntl
import json
import os
import secrets as random
from pathlib import Path

import msgspec
from msgspec import Struct

from gateway.checks import OWN_SECRET_MIN
from gateway.settings import Config, ConfigError


class OwnSecrets(Struct, frozen=True, kw_only=True):
    key_pepper: bytes
    master_key: bytes
    signing_key: bytes


_NAMES = OwnSecrets.__struct_fields__


def own_secrets(config: Config) -> OwnSecrets:
    """Read them, making what is missing.  Raises ConfigError."""
    named = {
        **{name: getattr(config.secrets, name, None) for name in _NAMES},
        "signing_key": config.artifacts.signing_key,
    }
    given = {name: value for name, value in named.items() if value}
    if len(given) < len(_NAMES):
        given = _kept(config.data_dir / "secrets.json") | given
    return OwnSecrets(**{name: given[name].encode() for name in _NAMES})


def _kept(path: Path) -> dict[str, str]:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.with_name(f"{path.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # two may start at once
            if not path.exists():
                return _completed({}, path)
            path.chmod(0o600)  # a copy that was restored may be open to others
            try:
                kept = msgspec.json.decode(path.read_bytes(), type=dict[str, str])
            except msgspec.DecodeError as e:
                raise ConfigError(
                    f"{path}: damaged ({e}); restore it, or issued keys and users' provider keys are lost"
                ) from e
            return _completed(kept, path)
    except OSError as e:
        raise ConfigError(f"{path}: cannot be used: {e.strerror}; data_dir must be a folder that can be written") from e


def _completed(kept: dict[str, str], path: Path) -> dict[str, str]:
    for name in _NAMES:
        if name in kept and len(kept[name]) < OWN_SECRET_MIN:
            raise ConfigError(f"{path}: {name} is too short to be a secret")
    missing = [name for name in _NAMES if name not in kept]
    if missing:
        kept |= {name: base64.urlsafe_b64encode(random.token_bytes(32)).decode() for name in missing}
        # Replaced whole: half a file would lose what is sealed under it.  Closed to others from its first moment.
        fresh = path.with_name(f"{path.name}.new")
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600), "w") as file:
            json.dump(kept, file, indent=2)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    return kept

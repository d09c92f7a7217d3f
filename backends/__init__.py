"""The engines, by kind.  A new one is a module here and a line below."""

from importlib import import_module
from typing import Any

import msgspec

from backends.base import Backend
from backends.ports import Ports

KINDS = {
    "anthropic": "backends.anthropic",
    "fake": "backends.fake",
    "huggingface": "backends.huggingface",
    "local": "backends.local",
    "meshy": "backends.meshy",
    "openai": "backends.openai",
    "scene": "backends.scene",
}


def settings_of(kind: str, fields: dict[str, Any]) -> Any:
    """Decode a config entry with its kind's own `Settings`.  Raises msgspec.ValidationError."""
    return msgspec.convert(fields, import_module(KINDS[kind]).Settings, strict=False)


def connect(name: str, kind: str, settings: Any, ports: Ports) -> Backend:
    """Build the backend that a config entry describes.  Its SDK is imported only now."""
    backend: Backend = import_module(KINDS[kind]).connect(name, settings, ports)
    return backend

"""What a configuration says of local models that does not hold on this machine.

Errors are what every request would meet with: fields that are none, or have values that would be refused.  Warnings
are files, folders and models that are not here, which may still come.
"""

import difflib
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import replace

from backends.local.order import order, parameters
from backends.local.settings import ModelSettings, Settings
from backends.ports import Local
from compat import mesh
from compat.canonical.error import InvalidRequest
from compat.canonical.model import Modality
from compat.openai import chat, images, llamafield
from gateway.checks import nearest
from gateway.interpolation import expanded
from gateway.settings import Config, ModelEntry, Target

Catalogues = Mapping[str, Mapping[str, Local]]
"""Per local backend, its models by name."""
LONG = 1 << 20
"""Tokens of context, more than any default has."""
TYPO = 0.81
"""How like a known field's name an unknown one is that was meant to be it."""
_FIELDS: dict[Modality, tuple[str, ...]] = {
    "text": chat.ChatRequest.__struct_fields__,
    "image": images.ImagesRequest.__struct_fields__,
    "3d": mesh.MeshBody.__struct_fields__,
}
"""Those of a request that may have defaults."""
_ASKED = frozenset({"model", "messages", "prompt", "input", "image", "images", "stream", "stream_options"})
"""What is asked and how it is to be sent, which is each request's own."""
_SAID: dict[str, Any] = {"messages": [{"role": "user", "content": "Hello."}]}
_PROMPT: dict[str, Any] = {"prompt": "a chair"}


def errors(config: Config, found: Catalogues) -> list[str]:
    """What would have requests refused that have not asked for it."""
    return [
        f"backends.{backend}.models.{name}.defaults.{fault}"
        for backend, catalogue in found.items()
        for name, own in _settings(config, backend).models.items()
        if own.defaults and (local := catalogue.get(name)) is not None
        for fault in _defaults(local, own, own.slots or _settings(config, backend).slots)
    ]


def faults(local: Local, defaults: Mapping[str, Any], settings: object = None) -> list[str]:
    """What is wrong with defaults that a model is to have: each begins with the field's name and a colon.

    settings: a local backend's; None: as they are where nothing is said.
    """
    settings = settings if isinstance(settings, Settings) else Settings()
    own = settings.of(local.name)
    return list(_defaults(local, replace(own, defaults=dict(defaults)), own.slots or settings.slots))


def warnings(config: Config, found: Catalogues) -> list[str]:
    """What is named and not here."""
    said = [line for backend, catalogue in found.items() for line in _absent(config, backend, catalogue)]
    for name, entry in config.models.items():
        said += [f"models.{name}.{line}" for line in _routes(entry, found)]
    for field in ("summary_model", "title_model"):
        name = getattr(config.sessions, field)
        if name is not None and not _leads_anywhere(name, config, found):
            said.append(f"sessions.{field}: '{name}' is no name of models, no BACKEND/MODEL and no local model")
    return said


def _leads_anywhere(name: str, config: Config, found: Catalogues) -> bool:
    named = name == "auto" or any(fnmatchcase(name, pattern) for pattern in config.models)
    if named or name.partition("/")[0] in config.backends or any(name in models for models in found.values()):
        return True
    return "/" not in name and len(found) < len(config.backends)  # a provider may list it


def _settings(config: Config, backend: str) -> Settings:
    settings = config.backends[backend].settings
    assert isinstance(settings, Settings)
    return settings


def _defaults(local: Local, own: ModelSettings, slots: int) -> Iterator[str]:
    """Each of a model's defaults that is no field of a request, or has no value that a request may have."""
    made = local.model.modality
    if made not in _FIELDS:
        return
    known = [*_FIELDS[made], *(llamafield.NAMES if made == "text" else parameters(local))]
    for name, value in own.defaults.items():
        if name in _ASKED:
            yield f"{name}: it has no default: each request says it itself"
            continue
        # What makes text has more fields than are known here.
        if name not in known and (made != "text" or difflib.get_close_matches(name, known, n=1, cutoff=TYPO)):
            yield f"{name}: unknown field{nearest(name, known)}"
            continue
        try:
            _ask(replace(local, defaults={name: value}), len(own.adapters), slots)
        except InvalidRequest as e:
            yield f"{name}: {e.message}"


def _ask(local: Local, adapters: int, slots: int) -> None:
    """Read a request with a model's defaults as if a client had sent them.  Raises InvalidRequest."""
    match local.model.modality:
        case "image":
            order(images.parse_request(images.peek(msgspec.json.encode(_PROMPT | local.defaults))), local)
        case "3d":
            order(mesh.parse_request(mesh.peek(msgspec.json.encode(_PROMPT | local.defaults))), local)
        case _:
            asked = chat.peek(msgspec.json.encode(_SAID | local.defaults))
            chat.parse_request(asked)
            # The words here are ours: how long they are says nothing of the defaults.
            llamafield.check(asked, context=LONG, adapters=adapters, slots=slots)


def _absent(config: Config, backend: str, catalogue: Mapping[str, Local]) -> Iterator[str]:
    settings, at = _settings(config, backend), f"backends.{backend}"
    for n, folder in enumerate(settings.model_dirs):
        if not expanded(folder, f"{at}.model_dirs").is_dir():
            yield f"{at}.model_dirs[{n}]: there is no folder '{folder}'"
    for n, name in enumerate(settings.pin):
        if name not in catalogue:
            yield f"{at}.pin[{n}]: there is no local model '{name}'{nearest(name, catalogue)}"
    for name, own in settings.models.items():
        if name not in catalogue:
            yield f"{at}.models.{name}: there is no local model '{name}'{nearest(name, catalogue)}"
        if own.projector is not None and not Path(own.projector).is_file():
            yield f"{at}.models.{name}.projector: there is no file '{own.projector}'"
        for n, adapter in enumerate(own.adapters):
            if not Path(adapter.path).is_file():
                yield f"{at}.models.{name}.adapters[{n}].path: there is no file '{adapter.path}'"


def _routes(entry: ModelEntry, found: Catalogues) -> Iterator[str]:
    """Routes to local models that there are not."""
    lists = {"routes": entry.routes} if isinstance(entry.routes, tuple) else _by_modality(entry)
    for at, routes in lists.items():
        for n, route in enumerate(routes):
            backend, _, model = (route if isinstance(route, str) else route.to).partition("/")
            if backend in found and "*" not in model and model not in found[backend]:
                yield f"{at}[{n}]: there is no local model '{model}'{nearest(model, found[backend])}"


def _by_modality(entry: ModelEntry) -> dict[str, tuple[str | Target, ...]]:
    assert isinstance(entry.routes, dict)
    return {f"routes.{modality}": routes for modality, routes in entry.routes.items()}

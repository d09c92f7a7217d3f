"""What a type takes at a place inside it: for telling people what they may write where msgspec refused something."""

import re
from collections.abc import Iterator
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from msgspec import Struct

_step = re.compile(r"\[(?:\d+|\.\.\.)\]|[^.\[\]]+")


def at(kind: Any, path: str) -> list[Any]:
    """The types that stand in `kind` at a path as msgspec writes it (`a.b[0].c`, `a[...].b` for any key of a mapping);
    none where there is no such place."""
    kinds = list(_members(kind))
    for step in steps(path):
        kinds = [found for one in kinds for found in _below(one, step)]
    return kinds


def steps(path: str) -> list[str]:
    """The parts of a path."""
    return _step.findall(path)


def fields(kinds: list[Any]) -> list[str]:
    """The fields that structs among these have."""
    structs = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Struct)]
    return [name for kind in structs for name in kind.__struct_encode_fields__]


def words(kinds: list[Any]) -> list[str]:
    """The words that literals among these are, and what may stand there besides."""
    said = [str(word) for kind in kinds if get_origin(kind) is Literal for word in get_args(kind)]
    return said + (["a number"] if {int, float} & {kind for kind in kinds if isinstance(kind, type)} else [])


def keys(kinds: list[Any]) -> list[str]:
    """The keys that mappings among these may have, where they are named."""
    return [word for kind in kinds if get_origin(kind) is dict for word in words(list(_members(get_args(kind)[0])))]


def _members(kind: Any) -> Iterator[Any]:
    """What a value of this type may be, alternatives taken apart."""
    origin = get_origin(kind)
    if origin is Annotated:
        yield from _members(get_args(kind)[0])
    elif origin in (Union, UnionType):
        for one in get_args(kind):
            yield from _members(one)
    else:
        yield kind


def _below(kind: Any, step: str) -> Iterator[Any]:
    origin = get_origin(kind)
    if step == "[...]" and origin is dict:
        yield from _members(get_args(kind)[1])
    elif step.startswith("[") and origin in (tuple, list):
        yield from _members(get_args(kind)[0])
    elif isinstance(kind, type) and issubclass(kind, Struct):
        own = dict(zip(kind.__struct_encode_fields__, kind.__struct_fields__, strict=True))
        if step in own:
            yield from _members(get_type_hints(kind)[own[step]])

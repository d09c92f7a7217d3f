"""What the sections of the configuration are made of."""

from typing import Annotated

from msgspec import Meta, Struct

Count = Annotated[int, Meta(ge=1, le=10**12)]
Number = Annotated[int, Meta(ge=0, le=10**12)]
Amount = Annotated[int, Meta(ge=0)] | str
"""Bytes, as a number or like `20GiB` (see `compat.amount`)."""


class Section(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass

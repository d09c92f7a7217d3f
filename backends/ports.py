"""What the house lends to backends: the models on this machine, what was measured, other models, users' accounts."""

from collections.abc import AsyncGenerator, Callable
from typing import Any, Literal, Protocol

from msgspec import Struct

from backends.base import Call
from compat.canonical.event import Event
from compat.canonical.model import Model
from compat.canonical.request import TextRequest

Format = Literal["gguf", "diffusers", "onnx", "field"]
"""What a model's files are: one GGUF; a folder of diffusers (safetensors); the same as ONNX graphs; our own small
signed-distance field."""


class Traits(Struct, frozen=True, kw_only=True):
    """What a model's files say of what it takes to run it: read once, when it is found.  0: they do not say."""

    architecture: str = ""
    """llama.cpp's word for what it is: `llama`, `bert`, `qwen3`, …"""
    kv_bytes_per_token: int = 0
    """Of context, its keys and values as 16-bit floats."""
    layers: int = 0
    width: int = 0
    """Numbers that stand for one token inside it."""
    vocabulary: int = 0
    """Tokens it knows."""
    projector_bytes: int = 0
    tools: bool = False
    """The chat template has a place for tools; without it they are emulated."""
    modified_ns: int = 0
    """When its file was last changed, since 1970."""


class Local(Struct, frozen=True, kw_only=True):
    """A model on this machine: a file or a folder."""

    name: str
    path: str
    model: Model
    format: Format = "gguf"
    defaults: dict[str, Any] = {}
    """Fields of a request for where the client says nothing, by llama.cpp's names."""
    projector: str | None = None
    """The file that lets it see: llama.cpp's mmproj."""
    traits: Traits = Traits()
    made_from: str | None = None
    """The safetensors folder from which `path` is made when it is first wanted; None: the file is there."""
    sha256: str | None = None
    """Of the weights in `made_from`, where they are pinned."""


class Reckoning(Protocol):
    """What models were found to need in memory: kept by the house, over restarts."""

    def known(self, key: str) -> int | None:
        """Bytes, as measured the last times; None when it never ran.  `key` names model, file and settings."""
        ...

    def measured(self, key: str, size_bytes: int) -> None: ...


class Ask(Protocol):
    """Asks any of the house's models, by the name a client would use."""

    def __call__(self, request: TextRequest, call: Call) -> AsyncGenerator[Event, None]:
        """The answer's events, within what the call's own principal may use.  Raises GatewayError."""
        ...


class Token(Protocol):
    """Access tokens, where they take an API key's place."""

    async def get(self) -> str:
        """One that is good now.  Raises GatewayError."""
        ...

    def refused(self, token: str) -> bool:
        """The provider did not take this one; tells whether `get` may have another."""
        ...


class Account(Protocol):
    """A user's own account at a provider: a backend that is connected for one asks in its name, not the house's."""

    public_only: bool
    """Its address is the user's, not the house's: nothing but the public internet may be behind it."""

    @property
    def token(self) -> Token | None:
        """None where the account has an API key."""
        ...

    def judged(self, *, accepted: bool) -> None:
        """The provider took its key or token, or did not."""
        ...


class Ports(Struct, frozen=True, kw_only=True):
    """What the house lends to backends that need it."""

    catalogue: Callable[[], dict[str, Local]] = dict
    """The local models there are now, by name."""
    reckoning: Reckoning | None = None
    ask: Ask | None = None
    keyless: bool = False
    """No key is needed, and none is taken from the environment: users bring theirs."""
    account: Account | None = None
    """Whose backend this is; None is the house's."""

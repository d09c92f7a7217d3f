"""One user's own account at a provider: its secret, the backend that asks in its name, and what it offers."""

import time
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from msgspec import Struct

import backends
from backends.base import Backend
from backends.ports import Ports
from backends.token import Asserted, Fixed, OAuthToken, Refreshed, ServiceAccount
from gateway.auth.endpoint import endpoint
from gateway.db.credentials import Credential
from gateway.registry import Registry
from gateway.settings import BackendEntry

_HOUSES = ("headers", "organization", "project", "bill_to")
"""Settings of a backend that are about the house's own account, and may hold its secrets."""


class Secret(Struct, frozen=True, omit_defaults=True):
    """What is sealed in a credential: exactly one of these."""

    api_key: str | None = None
    service_account: ServiceAccount | None = None
    oauth_token: OAuthToken | None = None

    @property
    def kind(self) -> str:
        return next(name for name in self.__struct_fields__ if getattr(self, name) is not None)

    @property
    def words(self) -> list[str]:
        """What must not be seen anywhere."""
        account, token = self.service_account, self.oauth_token
        told = [self.api_key, account.private_key if account else None]
        told += [token.access_token, token.refresh_token, token.client_secret] if token else []
        return [word for word in told if word]


class Storage(Struct, frozen=True):
    """How an account reaches its own credential again, when its secret changes by itself."""

    load: Callable[[], Awaitable[Secret | None]]
    """What is kept now; None when it is gone, or was replaced by its user."""
    save: Callable[[Secret], Awaitable[None]]
    note: Callable[[], None]
    """`words` have changed."""


class Account:
    """It is lent to requests; one that is retired ends with the last of them."""

    def __init__(self, row: Credential, secret: Secret, entry: BackendEntry, storage: Storage) -> None:
        self.row = row
        self.entry = entry
        self.status = row.status
        self.used_at = row.last_used_at
        self.noted = (self.used_at, self.status)
        """What is written down of these two."""
        self.lent = 0
        self.retired = False
        self.public_only = False
        self._secret = secret
        self._access_token: str | None = None
        self._storage = storage
        allowed = entry.terms.user_endpoints
        settings = entry.settings
        if row.base_url is not None:
            self.public_only = endpoint(row.base_url, allowed, "base_url").public_only
            settings = msgspec.structs.replace(settings, base_url=row.base_url)
        defaults: dict[str, Any] = {name: {} if name == "headers" else None for name in _HOUSES}
        known = {name: value for name, value in defaults.items() if hasattr(settings, name)}
        settings = msgspec.structs.replace(settings, api_key=secret.api_key, **known)
        self.token = self._token_of(secret, allowed)
        self.backend: Backend = backends.connect(row.backend, entry.kind, settings, Ports(keyless=True, account=self))
        self.registry = Registry({row.backend: self.backend}, {})

    @property
    def id(self) -> str:
        return self.row.id

    @property
    def words(self) -> list[str]:
        """What must not be seen anywhere."""
        return [*self._secret.words, *([self._access_token] if self._access_token else [])]

    def serves(self, row: Credential, entry: BackendEntry) -> bool:
        """Whether it is still what its user and the configuration say."""
        if entry is not self.entry:  # another object after every reload, mostly with the same in it
            if entry != self.entry:
                return False
            self.entry = entry
        return row.updated_at == self.row.updated_at

    def judged(self, *, accepted: bool) -> None:
        self.status = "accepted" if accepted else "rejected"

    def touch(self) -> None:
        self.used_at = time.time()

    async def aclose(self) -> None:
        if self.token is not None:
            await self.token.aclose()
        await self.backend.aclose()

    def _token_of(self, secret: Secret, allowed: tuple[str, ...]) -> Asserted | Refreshed | Fixed | None:
        name = self.row.backend
        if (account := secret.service_account) is not None:
            public_only = endpoint(account.token_uri, allowed, "token_uri").public_only
            return Asserted(name, account, public_only=public_only, note=self._note)
        if (token := secret.oauth_token) is None:
            return None
        if token.refresh_token is None or token.token_url is None:
            return Fixed(token.access_token)
        public_only = endpoint(token.token_url, allowed, "token_url").public_only
        return Refreshed(name, token, public_only=public_only, note=self._note, load=self._load, save=self._save)

    def _note(self, token: str) -> None:
        self._access_token = token
        self._storage.note()

    async def _load(self) -> OAuthToken | None:
        secret = await self._storage.load()
        return None if secret is None else secret.oauth_token

    async def _save(self, token: OAuthToken) -> None:
        self._secret = Secret(oauth_token=token)
        self._storage.note()
        await self._storage.save(self._secret)

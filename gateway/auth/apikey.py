"""API keys: taken from a request in any of their forms, and looked up without comparing secrets.

A key is held as a MAC under a pepper made at start-up, so neither a memory dump nor the time a
lookup takes tells one.
"""

import hashlib
import os
from collections.abc import Iterable

from compat.canonical.error import InvalidRequest, Unauthenticated
from compat.canonical.principal import Principal
from gateway.settings import Auth

SCOPES = frozenset({"inference", "sessions", "models:read", "models:write", "admin"})
PUBLIC = "public"
"""What a route declares that needs no key."""

Headers = Iterable[tuple[bytes, bytes]]
_FORMS = (b"authorization", b"x-api-key", b"api-key")


def credential(headers: Headers) -> str | None:
    """The one credential a request carries; None when it has none.

    Raises InvalidRequest when it carries two that differ, Unauthenticated when it is not a bearer token.
    """
    found: str | None = None
    for name, value in headers:
        if name not in _FORMS:
            continue
        text = value.decode("latin-1").strip()
        if not text:
            continue  # some clients send each of them, and fill one
        if name == b"authorization":
            scheme, _, text = text.partition(" ")
            text = text.strip()
            if scheme.lower() != "bearer" or not text:
                raise Unauthenticated("The Authorization header must be 'Bearer' and an API key.")
        if found is not None and found != text:
            raise InvalidRequest("The request carries two different API keys; send one.")
        found = text
    return found


class KeyRing:
    """The principals of a configuration."""

    def __init__(self, auth: Auth) -> None:
        self._open = auth.mode == "local"
        self._pepper = os.urandom(32)
        self._principals = {
            self._digest(key.key): Principal(id=key.name, tenant=key.tenant, scopes=_expanded(key.scopes))
            for key in auth.keys
        }

    def principal(self, headers: Headers) -> Principal:
        """Who asks.  Raises Unauthenticated or InvalidRequest."""
        if self._open:
            # Clients must send some key; on loopback without auth any will do.
            return _LOCAL
        key = credential(headers)
        if key is None:
            raise Unauthenticated(
                "You didn't provide an API key. Send it as 'Authorization: Bearer YOUR_KEY'.", code="invalid_api_key"
            )
        found = self._principals.get(self._digest(key))
        if found is None:
            raise Unauthenticated("Incorrect API key provided.")
        return found

    def _digest(self, key: str) -> bytes:
        # Keyed BLAKE2 is a MAC by design, and a tenth of HMAC's price.
        return hashlib.blake2b(key.encode("utf-8", "surrogatepass"), key=self._pepper, digest_size=32).digest()


_LOCAL = Principal(id="local", scopes=SCOPES)


def _expanded(scopes: tuple[str, ...]) -> frozenset[str]:
    return SCOPES if "admin" in scopes else frozenset(scopes)

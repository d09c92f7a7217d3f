"""Who asks: a credential in, a grant out, by whatever the configuration takes for one."""

from typing import Protocol

from compat.canonical.error import Anonymous, Unauthenticated
from gateway.auth.apikey import KeyRing
from gateway.auth.credential import Headers, credential, is_token
from gateway.auth.principal import LOCAL, Grant
from gateway.settings import Auth


class Issued(Protocol):
    """The keys that this gateway has given out."""

    async def grant(self, key: str) -> Grant | None:
        """What a key is good for; None when it is not one of them, or not any more.

        Raises Overloaded when nobody can tell now.
        """
        ...


class Tokens(Protocol):
    """The tokens of an issuer that is trusted."""

    async def grant(self, token: str) -> Grant:
        """What a token is good for.  Raises Unauthenticated, or Overloaded when nobody can tell now."""
        ...

    def warm(self) -> None:
        """Get ready in the background."""

    async def aclose(self) -> None: ...


class Authenticator:
    """What one configuration takes for a credential."""

    def __init__(self, auth: Auth, tokens: Tokens | None = None) -> None:
        self._open = auth.mode == "local"
        self._takes_keys = auth.takes_keys
        self.keys = KeyRing(auth.keys)
        self.tokens = tokens

    async def grant(self, headers: Headers, issued: Issued | None) -> Grant:
        """What the sender of these headers may do.

        issued: None until the database is open.
        Raises Unauthenticated, InvalidRequest, or Overloaded.
        """
        if self._open:
            # Clients must send some key; on loopback without auth any will do.
            return LOCAL
        given = credential(headers)
        if given is None:
            what = "an API key" if self._takes_keys else "a token"
            # Not as an example: whatever follows that word is masked in errors.
            raise Anonymous(f"You didn't provide {what}. Send it in the header 'Authorization', after 'Bearer'.")
        if self.tokens is not None and is_token(given):
            return await self.tokens.grant(given)
        if not self._takes_keys:
            raise Unauthenticated("This gateway takes tokens of its identity provider, no API keys.")
        found = self.keys.grant(given)
        if found is None and issued is not None:
            found = await issued.grant(given)
        if found is None:
            raise Unauthenticated(
                "Incorrect API key provided: it is unknown, expired or revoked. Ask who runs this gateway for another."
            )
        return found

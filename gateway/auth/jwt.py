"""JSON Web Tokens of one issuer: from the text of a token to what its bearer may do.

A token is taken apart here, once and strictly; joserfc's algorithms check the signature.  The algorithm is the
key's, never the token's alone.  What was found good is remembered for a minute, under the whole token's digest and
only as long as the issuer's keys stay what they were.
"""

import hashlib
import json
import time
from typing import Any

from joserfc.util import urlsafe_b64decode
from msgspec import Struct

from compat.canonical.error import Unauthenticated
from compat.canonical.principal import Principal
from gateway.auth.issuer import Issuer, KeySet
from gateway.auth.principal import Grant, expanded
from gateway.checks import is_tenant
from gateway.settings import SCOPES, Jwt

REMEMBERED_S = 60.0
REMEMBERED_MAX = 4096
USER_MAX = 64
KID_MAX = 256

_TYPES = frozenset({"jwt", "at+jwt", "application/jwt", "application/at+jwt"})
_REFUSED = ("jwk", "jku", "x5u", "x5c", "crit", "b64", "zip", "enc")
"""Header fields that would have the token say how it is to be checked, or that it is none."""
_END_OF_TIME = 253_402_300_800
"""The year 10000: a date beyond is none."""


class _Token(Struct, frozen=True):
    """A token taken apart, nothing in it checked."""

    header: dict[str, Any]
    content: bytes
    """What was signed."""
    claims: bytes
    signature: bytes


class TrustedTokens:
    """The tokens that a configuration takes."""

    def __init__(self, jwt: Jwt) -> None:
        self._jwt = jwt
        self._issuer = Issuer(jwt)
        self._audiences = jwt.audiences
        self._remembered: dict[bytes, tuple[float, Grant]] = {}
        """By digest: until when, and what for."""
        self._under: KeySet | None = None
        """The keys under which these were found good."""

    def warm(self) -> None:
        """Get ready in the background."""
        self._issuer.warm()

    async def grant(self, token: str) -> Grant:
        """What a token is good for.  Raises Unauthenticated, or Overloaded when nobody can tell now."""
        digest = hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
        if self._issuer.current is self._under:
            found = self._remembered.get(digest)
            if found is not None and time.time() < found[0]:
                return found[1]
        parsed = _taken_apart(token)
        keys = await self._checked(parsed)
        claims = _object(parsed.claims, "claims")
        until = self._checked_claims(claims)
        grant = self._granted(claims)
        if keys is not self._under:
            self._remembered.clear()
            self._under = keys
        self._remembered.pop(digest, None)
        while len(self._remembered) >= REMEMBERED_MAX:
            del self._remembered[next(iter(self._remembered))]
        now = time.time()
        self._remembered[digest] = min(until, now + min(REMEMBERED_S, self._issuer.good_for_s)), grant
        return grant

    async def aclose(self) -> None:
        await self._issuer.aclose()

    async def _checked(self, token: _Token) -> KeySet:
        """The keys by one of which it is signed."""
        algorithm, kid = self._checked_header(token.header)
        keys = await self._issuer.keys()
        if _signed(token, algorithm, kid, keys):
            return keys
        if kid is None or not keys.named(kid):
            # Perhaps it is newer than the keys.  Its issuer is not asked for what would be refused all the same.
            self._checked_claims(_object(token.claims, "claims"))
            newer = await self._issuer.keys(unknown=True)
            if newer is not keys and _signed(token, algorithm, kid, newer):
                return newer
            keys = newer
        fitting = [key for key in keys.named(kid) if algorithm in key.algorithms]
        if not keys.named(kid):
            raise Unauthenticated("The token is signed by a key that its issuer does not publish.")
        if not fitting:
            raise Unauthenticated("The token's algorithm is not that of its issuer's key.")
        if kid is None and len(fitting) > 1:
            raise Unauthenticated("The token does not say which of its issuer's keys signed it: 'kid' is missing.")
        raise Unauthenticated("The token's signature is not valid.")

    def _checked_header(self, header: dict[str, Any]) -> tuple[str, str | None]:
        """The algorithm and the key id."""
        for name in _REFUSED:
            if name in header:
                raise Unauthenticated(f"The token's header has '{name}', which is not accepted.")
        algorithm, kid, kind = header.get("alg"), header.get("kid"), header.get("typ", "JWT")
        if not isinstance(kind, str) or kind.lower() not in _TYPES:
            raise Unauthenticated("The token's type is neither JWT nor at+jwt.")
        if not isinstance(algorithm, str) or algorithm not in self._jwt.algorithms:
            accepted = ", ".join(self._jwt.algorithms)
            raise Unauthenticated(f"The token's algorithm is not accepted; these are: {accepted}.")
        if kid is not None and (not isinstance(kid, str) or len(kid) > KID_MAX):
            raise Unauthenticated("The token's 'kid' is not a key id.")
        return algorithm, kid

    def _checked_claims(self, claims: dict[str, Any]) -> float:
        """Until when they hold, on the clock."""
        now, leeway_s = time.time(), self._jwt.leeway_s
        if claims.get("iss") != self._jwt.issuer:
            raise Unauthenticated("The token is of another issuer ('iss').")
        audience = claims.get("aud")
        named = audience if isinstance(audience, list) else [audience]
        if not any(isinstance(name, str) and name in self._audiences for name in named):
            raise Unauthenticated(
                f"The token is for another audience ('aud'); it must be for {' or '.join(sorted(self._audiences))}."
            )
        until = _date(claims, "exp")
        if until is None:
            raise Unauthenticated("The token has no end ('exp').")
        if now >= until + leeway_s:
            raise Unauthenticated("The token has expired.")
        for name, said in (("nbf", "is not valid yet"), ("iat", "was issued in the future")):
            date = _date(claims, name)
            if date is not None and date > now + leeway_s:
                raise Unauthenticated(f"The token {said} ('{name}').")
        return until + leeway_s

    def _granted(self, claims: dict[str, Any]) -> Grant:
        jwt = self._jwt
        user = _claim(claims, jwt.user_claim)
        if user is None:
            raise Unauthenticated(f"The token does not name its user: the claim '{jwt.user_claim}' is missing.")
        if not isinstance(user, str) or not user.strip() or len(user) > USER_MAX or not user.isprintable():
            raise Unauthenticated(
                f"The token's claim '{jwt.user_claim}' cannot name a user: it must be a text of 1 to {USER_MAX} "
                "printable characters."
            )
        tenant = jwt.tenant
        if jwt.tenant_claim is not None:
            tenant = _claim(claims, jwt.tenant_claim)
            if tenant is None:
                raise Unauthenticated(f"The token does not name its tenant: the claim '{jwt.tenant_claim}' is missing.")
            if not isinstance(tenant, str) or not is_tenant(tenant):
                raise Unauthenticated(
                    f"The token's claim '{jwt.tenant_claim}' cannot name a tenant: it must be a text of up to 64 "
                    "letters, digits, '.', '_', '@' and '-'."
                )
        scopes = set(jwt.scopes)
        scopes.update(SCOPES.intersection(_words(_claim(claims, jwt.scope_claim))))
        if jwt.roles_claim is not None:
            for role in _words(_claim(claims, jwt.roles_claim)):
                scopes.update(jwt.roles.get(role, ()))
        return Grant(principal=Principal(id=user, tenant=tenant, scopes=expanded(tuple(scopes))))


def _taken_apart(token: str) -> _Token:
    try:
        content, _, signature = token.encode("ascii").rpartition(b".")
        header, _, claims = content.partition(b".")
        return _Token(
            header=_object(urlsafe_b64decode(header), "header"),
            content=content,
            claims=urlsafe_b64decode(claims),
            signature=urlsafe_b64decode(signature),
        )
    except ValueError as e:
        raise Unauthenticated("The token is not a JSON Web Token.") from e


def _object(text: bytes, what: str) -> dict[str, Any]:
    """A JSON object that everybody reads in the same way: no name twice, no NaN, nothing but UTF-8."""
    try:
        value = json.loads(text.decode(), object_pairs_hook=_once, parse_constant=_not_json)
    except (ValueError, RecursionError) as e:
        raise Unauthenticated(f"The token's {what} cannot be read.") from e
    if not isinstance(value, dict):
        raise Unauthenticated(f"The token's {what} cannot be read.")
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name twice")
    return found


def _not_json(constant: str) -> Any:
    raise ValueError(constant)


def _signed(token: _Token, algorithm: str, kid: str | None, keys: KeySet) -> bool:
    fitting = [key for key in keys.named(kid) if algorithm in key.algorithms]
    if kid is None and len(fitting) != 1:
        return False
    return any(key.made(token.signature, algorithm, token.content) for key in fitting)


def _date(claims: dict[str, Any], name: str) -> float | None:
    value = claims.get(name)
    if value is None and name not in claims:
        return None
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 <= value < _END_OF_TIME:
        raise Unauthenticated(f"The token's claim '{name}' is not a date.")
    return float(value)


def _claim(claims: Any, name: str) -> Any:
    """The claim of that name; else `a.b` is `b` inside `a`.  None when there is none."""
    if not isinstance(claims, dict):
        return None
    if name in claims:
        return claims[name]
    dot = name.find(".")
    while dot >= 0:
        # Names may have dots themselves, such as those that are URLs.
        found = _claim(claims.get(name[:dot]), name[dot + 1 :])
        if found is not None:
            return found
        dot = name.find(".", dot + 1)
    return None


def _words(value: Any) -> list[str]:
    """A list of texts, or the words of one."""
    if isinstance(value, str):
        return value.split()
    return [word for word in value if isinstance(word, str)] if isinstance(value, list) else []

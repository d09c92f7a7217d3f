"""The issuer of tokens: its public keys, read when they are needed, kept while they are good.

Reading is one task at a time, whoever waits for it, and never more often than the intervals below, so neither
load nor a flood of unknown key ids reaches the issuer.  While it cannot be asked, the keys that are known serve
until `keys_stale_s`; after that nobody's token can be checked.
"""

import asyncio
import time
from collections import Counter
from typing import Any

import msgspec
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey, import_key
from joserfc.jws import JWSRegistry
from joserfc.util import urlsafe_b64decode
from msgspec import Struct
from yarl import URL

from backends.relay import Wire
from compat.canonical.error import GatewayError, Overloaded
from gateway.checks import is_guarded
from gateway.settings import Jwt
from gateway.telemetry.logging import logger

READ_S = 5.0
"""How long one of its documents may take."""
AGAIN_S = 10.0
"""Between two readings that something unknown has asked for."""
RETRY_S = 3.0
"""After a reading that failed."""
DOCUMENT_MAX_BYTES = 1024 * 1024
EARLY = 0.75
"""The part of their time after which keys are read anew in the background, before anybody has to wait."""
RSA_BITS = range(2048, 8193)
"""Less is broken too easily; more takes too long to check."""

_NAME = "auth.jwt"
_HEADERS = {"accept": "application/json", "user-agent": "pluggably"}
_RSA = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
_FITTING: dict[Any, tuple[str, ...]] = {
    ("RSA", None): _RSA,
    ("EC", "P-256"): ("ES256",),
    ("EC", "P-384"): ("ES384",),
    ("EC", "P-521"): ("ES512",),
    ("OKP", "Ed25519"): ("EdDSA", "Ed25519"),
}
_MEMBERS: dict[Any, tuple[str, ...]] = {"RSA": ("n", "e"), "EC": ("crv", "x", "y"), "OKP": ("crv", "x")}


class PublicKey(Struct, frozen=True):
    kid: str | None
    algorithms: frozenset[str]
    """What it may have signed with: its own word, else what its kind allows, and the configuration."""
    key: RSAKey | ECKey | OKPKey

    def made(self, signature: bytes, algorithm: str, content: bytes) -> bool:
        """Whether a signature is this key's."""
        try:
            return algorithm in self.algorithms and JWSRegistry.algorithms[algorithm].verify(
                content, signature, self.key
            )
        except (ValueError, JoseError):
            return False


class KeySet:
    """The keys of an issuer at one time."""

    def __init__(self, keys: tuple[PublicKey, ...]) -> None:
        self.keys = keys
        self.identity = Counter((key.kid, key.algorithms, key.key.thumbprint()) for key in keys)

    def named(self, kid: str | None) -> list[PublicKey]:
        """Those that a token with this key id may mean; without one, all."""
        return [key for key in self.keys if kid is None or key.kid == kid]


class Issuer:
    def __init__(self, jwt: Jwt) -> None:
        self._jwt = jwt
        self._wire = Wire(_NAME)
        self._read_at = 0.0
        self._asked_at = self._wanted_at = float("-inf")
        """When it was asked last, and when it was for something unknown."""
        self._trouble: str | None = None
        """Why the last reading failed."""
        self._ignored: dict[str, int] = {}
        self._task: asyncio.Task[None] | None = None
        self.current: KeySet | None = None
        """The keys that were read last, however old."""

    @property
    def good_for_s(self) -> float:
        """How long the current keys will serve if no others come."""
        return self._read_at + self._jwt.keys_stale_s - time.monotonic()

    def warm(self) -> None:
        """Read the keys in the background, so that the first token need not wait for them."""
        self._refresh()

    async def keys(self, *, unknown: bool = False) -> KeySet:
        """The keys that count now.  Raises Overloaded when there are none that could be trusted.

        unknown: a token wants one that is not among those given before.
        """
        max_age_s = self._jwt.keys_max_age_s
        age_s = time.monotonic() - self._read_at
        if self.current is None or self.good_for_s <= 0 or unknown or (age_s > max_age_s and self._trouble is None):
            if (task := self._refresh(unknown=unknown)) is not None:
                await asyncio.shield(task)
        elif age_s > max_age_s * EARLY:
            self._refresh()
        if self.current is None or self.good_for_s <= 0:
            raise Overloaded(
                "Tokens cannot be checked now: their issuer's keys cannot be read.",
                code="auth_unavailable",
                retry_after_s=max(1.0, self._asked_at + RETRY_S - time.monotonic()),
            )
        return self.current

    async def aclose(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._wire.aclose()

    def _refresh(self, *, unknown: bool = False) -> asyncio.Task[None] | None:
        """The reading that is under way, or a new one; None when it is too early for that."""
        if self._task is None or self._task.done():
            now = time.monotonic()
            if self._trouble is not None:
                due = self._asked_at + RETRY_S
            else:
                # What is unknown may be asked for right after an ordinary reading, but not again and again.
                last = self._wanted_at if unknown else self._asked_at
                due = last + min(AGAIN_S, self._jwt.keys_max_age_s)
            if now < due:
                return None
            if unknown:
                self._wanted_at = now
            self._task = asyncio.create_task(self._read())
        return self._task

    async def _read(self) -> None:
        self._asked_at = began = time.monotonic()
        try:
            document = await self._get(self._jwt.jwks_url or await self._discovered())
            keys, ignored = await asyncio.to_thread(read, document, frozenset(self._jwt.algorithms))
        except (GatewayError, ValueError, RecursionError, msgspec.DecodeError) as e:
            reason = _told(str(e))
            if reason != self._trouble:
                logger().warning("issuer_unreadable", issuer=self._jwt.issuer, reason=reason)
            self._trouble, self._asked_at = reason, time.monotonic()
            return
        if ignored != self._ignored or (not keys.keys and self.current is None):
            logger().warning("issuer_keys_ignored", issuer=self._jwt.issuer, left=len(keys.keys), reasons=ignored)
        if self.current is None or self.current.identity != keys.identity:
            # Equal ones stay the object they were: whoever holds what was verified under it may go on.
            self.current = keys
            logger().info("issuer_keys_read", issuer=self._jwt.issuer, keys=len(keys.keys))
        elif self._trouble is not None:
            logger().info("issuer_readable", issuer=self._jwt.issuer)
        self._trouble, self._ignored, self._read_at = None, ignored, began

    async def _discovered(self) -> str:
        """Where its keys are, in its own words."""
        found = msgspec.json.decode(await self._get(self._jwt.discovery_url), type=_Discovery)
        if found.issuer != self._jwt.issuer:
            raise ValueError(
                f"its discovery document is another issuer's: auth.jwt.issuer may have to be {found.issuer}"
            )
        if not is_guarded(found.jwks_uri, loopback=URL(self._jwt.issuer).scheme == "http"):
            raise ValueError("the jwks_uri in its discovery document is not https")
        return found.jwks_uri

    async def _get(self, url: str) -> bytes:
        return await self._wire.get(URL(url), _HEADERS, READ_S, limit=DOCUMENT_MAX_BYTES)


def _told(reason: str) -> str:
    """A wire takes whoever it asks for a backend."""
    return reason.replace(f"Backend '{_NAME}'", "The issuer").replace(f"backend '{_NAME}'", "the issuer")


class _Discovery(Struct):
    issuer: str
    jwks_uri: str


class _Jwks(Struct):
    keys: list[dict[str, Any]]


def read(document: bytes, allowed: frozenset[str]) -> tuple[KeySet, dict[str, int]]:
    """The keys of a JWKS that can be used, and how many cannot, by reason.

    Raises ValueError, RecursionError or msgspec.DecodeError when it is no JWKS.
    """
    keys: list[PublicKey] = []
    ignored: Counter[str] = Counter()
    for jwk in msgspec.json.decode(document, type=_Jwks).keys:
        try:
            keys.append(_public_key(jwk, allowed))
        except _Unusable as e:
            ignored[str(e)] += 1
    return KeySet(tuple(keys)), dict(ignored)


class _Unusable(Exception):
    """A key that is not taken; the message says why."""


def _public_key(jwk: dict[str, Any], allowed: frozenset[str]) -> PublicKey:
    kty, kid = jwk.get("kty"), jwk.get("kid")
    if "k" in jwk or "d" in jwk:
        raise _Unusable("symmetric, or private")
    uses = jwk.get("key_ops")
    if jwk.get("use", "sig") != "sig" or (isinstance(uses, list) and "verify" not in uses):
        raise _Unusable("not for signatures")
    if kid is not None and not isinstance(kid, str):
        raise _Unusable("its id is no text")
    try:
        fitting = _FITTING[kty, jwk["crv"] if kty != "RSA" else None]
        if kty == "RSA" and int.from_bytes(urlsafe_b64decode(jwk["n"].encode()), "big").bit_length() not in RSA_BITS:
            raise _Unusable("of a length that is not safe")
        key = import_key({name: jwk[name] for name in ("kty", *_MEMBERS[kty])}, kty)
    except (KeyError, TypeError, ValueError, AttributeError, JoseError) as e:
        raise _Unusable("of an unknown kind, or malformed") from e
    assert not isinstance(key, OctKey)
    algorithms = allowed.intersection(fitting)
    if (alg := jwk.get("alg")) is not None:
        algorithms &= {alg} if isinstance(alg, str) else frozenset()
    if not algorithms:
        raise _Unusable("of an algorithm that is not accepted")
    return PublicKey(kid=kid, algorithms=algorithms, key=key)

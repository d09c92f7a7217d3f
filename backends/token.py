"""Access tokens for users' own accounts: made with a service account's key, or refreshed with what OAuth left.

A token is kept until shortly before it expires; who comes meanwhile waits for the same new one.
RFC 7523 (a signed assertion for a token), RFC 6749 section 6 (a refresh token for a token).
"""

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated
from urllib.parse import urlencode

import msgspec
from msgspec import Meta, Struct
from yarl import URL

from backends.failures import of_exception
from backends.http1 import Client
from backends.rsakey import private_key
from compat.canonical.error import AuthFailed, BackendError, BadResponse, UpstreamFailed

GOOGLE_TOKENS = "https://oauth2.googleapis.com/token"
SCOPE = "https://www.googleapis.com/auth/cloud-platform"
"""Of a service account's tokens: all that it may do is set in its own project."""
EARLY_S = 60.0
"""A token is replaced this long before it expires, or at half its time if that is shorter."""
FAILED_S = 10.0
"""How long nobody is asked again who has refused."""
AGAIN_S = 30.0
"""A token that the provider refused is replaced, but not more often than this."""
LIFE_S = 3600.0
"""Of an assertion, and of a token whose answer does not say."""
TIMEOUT_S = 15.0
ANSWER_MAX_BYTES = 64 * 1024
WORD = r"[!#-&(-\[\]-_a-~]"
"""A character of a key or token: printable ASCII without blanks, quotes and backslashes."""
TOKEN_MAX = 8192


class ServiceAccount(Struct, frozen=True):
    """The parts of Google's key file that are needed; the others are left out."""

    client_email: str
    private_key: str
    private_key_id: str | None = None
    token_uri: str = GOOGLE_TOKENS
    type: str = "service_account"


class OAuthToken(Struct, frozen=True, forbid_unknown_fields=True):
    access_token: str
    refresh_token: str | None = None
    token_url: str | None = None
    """Where a refresh token is turned into an access token."""
    client_id: str | None = None
    client_secret: str | None = None
    expires_at: float | None = None
    """In seconds since 1970, UTC; None: not known, or never."""


_Token = Annotated[str, Meta(pattern=rf"\A{WORD}+\Z", max_length=TOKEN_MAX)]


class _Answer(Struct, frozen=True):
    access_token: _Token
    expires_in: float | None = None
    refresh_token: _Token | None = None


_answer = msgspec.json.Decoder(_Answer, strict=False)  # some say "3600"


class Fixed:
    """An access token that cannot be replaced."""

    def __init__(self, token: str) -> None:
        self._token = token

    async def get(self) -> str:
        return self._token

    def refused(self, token: str) -> bool:  # noqa: ARG002
        return False

    async def aclose(self) -> None:
        pass


class _Renewed(ABC):
    """A token that is replaced in time, by one question for all who wait."""

    def __init__(self, provider: str, *, public_only: bool, note: Callable[[str], None]) -> None:
        self._provider = provider
        self._note = note
        """Told of each new token before it is used."""
        self._client = Client(public_only=public_only)
        self._token = ""
        self._due = 0.0
        """When it is to be replaced, and when it ends: in seconds since 1970."""
        self._ends = 0.0
        self._renewed_at = 0.0
        self._failed: tuple[float, str] | None = None
        """Until when nobody is asked, and why."""
        self._asking: asyncio.Task[None] | None = None

    async def get(self) -> str:
        if time.time() >= self._due:
            try:
                await self._renewal()
            except BackendError as e:
                if time.time() >= self._ends or isinstance(e, AuthFailed):
                    # Each waiter's own: the house writes the request's id into it.
                    raise type(e)(e.message, code=e.code, retry_after_s=e.retry_after_s) from e
        return self._token

    def refused(self, token: str) -> bool:
        if token != self._token:
            return True  # it has been replaced meanwhile
        if time.time() - self._renewed_at < AGAIN_S:
            return False
        self._due = self._ends = 0.0
        return True

    async def aclose(self) -> None:
        if self._asking is not None:
            await asyncio.wait([self._asking], timeout=TIMEOUT_S)  # a refresh token may be spent by now
        await self._client.aclose()

    def _take(self, token: str, ends: float) -> None:
        self._note(token)
        now = time.time()
        self._token, self._ends, self._renewed_at = token, ends, now
        self._due = ends - min(EARLY_S, (ends - now) / 2)

    async def _renewal(self) -> None:
        if self._failed is not None:
            until, why = self._failed
            if time.monotonic() < until:
                raise AuthFailed(why)
            self._failed = None
        if self._asking is None:
            # It outlives the client that asked first.
            self._asking = asyncio.create_task(self._renew())
            self._asking.add_done_callback(self._renewal_over)
        await asyncio.shield(self._asking)

    def _renewal_over(self, task: asyncio.Task[None]) -> None:
        self._asking = None
        error = None if task.cancelled() else task.exception()
        if isinstance(error, AuthFailed):
            self._failed = time.monotonic() + FAILED_S, error.message

    @abstractmethod
    async def _renew(self) -> None:
        """Get a token and `_take` it.  Raises BackendError."""

    def _refusal(self) -> AuthFailed:
        return AuthFailed(
            f"The sign-in to your own account at backend '{self._provider}' was refused; "
            "give it anew with POST /v1/credentials."
        )

    async def _ask(self, url: str, form: Mapping[str, str]) -> _Answer:
        """Send a form to a token endpoint.  Raises BackendError."""
        headers = {
            "content-type": "application/x-www-form-urlencoded",
            "accept": "application/json",
            "user-agent": "pluggably",
        }
        body = b""
        try:
            async with asyncio.timeout(TIMEOUT_S):
                response = await self._client.request("POST", URL(url, encoded=True), headers, urlencode(form).encode())
                while len(body) <= ANSWER_MAX_BYTES and (data := await response.read(ANSWER_MAX_BYTES)):
                    body += data
                response.close()
        except Exception as e:
            error = of_exception(e, self._provider)
            raise e if error is None else error from e
        if response.status in (400, 401, 403):
            raise self._refusal()
        if response.status != 200:
            raise UpstreamFailed(f"The sign-in to your own account at backend '{self._provider}' failed.")
        try:
            return _answer.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError) as e:
            raise BadResponse(f"The sign-in to your own account at backend '{self._provider}' gave no token.") from e


class Asserted(_Renewed):
    """Tokens of a service account, for assertions that it signs."""

    def __init__(
        self, provider: str, account: ServiceAccount, *, public_only: bool, note: Callable[[str], None]
    ) -> None:
        super().__init__(provider, public_only=public_only, note=note)
        self._account = account

    async def _renew(self) -> None:
        now = time.time()
        try:
            assertion = await asyncio.to_thread(signed, self._account, now)
        except ValueError as e:  # it was taken when more was
            raise self._refusal() from e
        form = {"grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer", "assertion": assertion}
        answer = await self._ask(self._account.token_uri, form)
        self._take(answer.access_token, now + (answer.expires_in or LIFE_S))


class Refreshed(_Renewed):
    """A token with a refresh token, which may be replaced as well whenever it is used."""

    def __init__(
        self,
        provider: str,
        token: OAuthToken,
        *,
        public_only: bool,
        note: Callable[[str], None],
        load: Callable[[], Awaitable[OAuthToken | None]],
        save: Callable[[OAuthToken], Awaitable[None]],
    ) -> None:
        super().__init__(provider, public_only=public_only, note=note)
        self._load = load
        self._save = save
        self._use(token)

    def _use(self, token: OAuthToken) -> None:
        self._known = token
        # Where nobody says when it ends, its provider will.
        self._take(token.access_token, token.expires_at or float("inf"))
        self._renewed_at = 0.0

    async def _renew(self) -> None:
        stored = await self._load()
        if stored is not None and stored != self._known:
            self._use(stored)  # another process has been here
            if time.time() < self._due:
                return
        known = self._known
        form = {
            "grant_type": "refresh_token",
            "refresh_token": known.refresh_token or "",
            **({"client_id": known.client_id} if known.client_id else {}),
            **({"client_secret": known.client_secret} if known.client_secret else {}),
        }
        asked_at = time.time()
        answer = await self._ask(known.token_url or "", form)
        fresh = msgspec.structs.replace(
            known,
            access_token=answer.access_token,
            refresh_token=answer.refresh_token or known.refresh_token,
            expires_at=asked_at + answer.expires_in if answer.expires_in is not None else None,
        )
        self._use(fresh)
        self._renewed_at = asked_at
        await self._save(fresh)  # the old refresh token may be worth nothing from here on


def signed(account: ServiceAccount, now: float) -> str:
    """The assertion that is exchanged for a token.  Takes milliseconds.  Raises ValueError for an unfit key."""
    from joserfc import jwt
    from joserfc.jwk import RSAKey

    raw = private_key(account.private_key)
    header = {"alg": "RS256", **({"kid": account.private_key_id} if account.private_key_id else {})}
    claims = {
        "iss": account.client_email,
        "scope": SCOPE,
        "aud": account.token_uri,
        "iat": int(now),
        "exp": int(now + LIFE_S),
    }
    return jwt.encode(header, claims, RSAKey(raw, raw), algorithms=["RS256"])

"""The relay lane's transport: a body goes up as it is, and whole SSE events or one body come back.

Every backend that speaks HTTP sends through here, so deadlines, size limits, truncation checks and
the closing of connections exist once.  Invariant: when a `frames` generator ends, however it ends,
the provider's connection is either free for reuse or closed.

Through `backends.http1` instead of the SDK's client: a fifth of its CPU per request.  Redirects are not followed
(a 307 would re-send the request to another host) and no encoding is asked for (bombs).
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Container, Iterable, Mapping
from typing import Protocol

from yarl import URL

from backends.base import Call, Held, Relayed, Tally
from backends.failures import of_exception, of_status, of_stream, retry_after
from backends.http1 import Client
from backends.ports import Account
from backends.response import Response
from compat import inflation
from compat.canonical.error import AuthFailed, BackendError, BadResponse, GatewayError, TimedOut
from compat.inflation import inflated
from compat.openai.error import Verdict, parse_error
from compat.sse import Cutter, TooLong

BODY_MAX_BYTES = 64 * 1024 * 1024
ERROR_MAX_BYTES = 64 * 1024
LARGE_BYTES = 1024 * 1024
"""From here on a body is sent in pieces, and an answer is looked at in a thread: neither may hold up the loop."""
PIECE_BYTES = 64 * 1024
"""What is taken of a stream at a time: a client that does not read holds several copies of it."""
AFTER_DONE_S = 0.25
"""How long the connection may take to end after the last event, to be worth keeping."""
LAST_WORDS_S = 2.0
"""How long to wait for what may follow a complete answer: its usage, the last event."""

_UPSTREAM_ID = "x-gateway-upstream-request-id"
_ENCODINGS = frozenset({"identity", "gzip", "x-gzip", "deflate"})
_PASSED = frozenset({"openai-processing-ms", "openai-version", "openai-model", "request-id"})
_PASSED_PREFIXES = ("x-ratelimit-", "anthropic-ratelimit-", "ratelimit")


class Tap(Tally, Protocol):
    """Watches a dialect's answer: see `compat.openai.tap`."""

    done: bool
    failure: Verdict | None

    def feed(self, events: bytes) -> bytes: ...
    def end(self) -> bytes: ...
    def whole(self, body: bytes) -> bytes | None: ...


class Wire:
    """A pool of connections to one provider."""

    def __init__(
        self,
        provider: str,
        *,
        unix_socket: str | None = None,
        parse_error: Callable[[bytes], Verdict] = parse_error,
        account: Account | None = None,
    ) -> None:
        self._provider = provider
        self._parse_error = parse_error
        self._account = account
        self._client = Client(unix_socket, public_only=account is not None and account.public_only)
        self._request = self._client.request if account is None else self._in_the_name_of(account)

    async def send(
        self,
        url: URL,
        headers: Mapping[str, str],
        body: bytes,
        tap: Tap,
        call: Call,
        *,
        stream: bool,
        tells_progress: bool = False,
    ) -> Relayed:
        """POST a body; returns once the provider has accepted it.  Raises GatewayError.

        tells_progress: what comes before the first content is a sign of work, after which as long is waited again.
        """
        loop = asyncio.get_running_loop()
        began = loop.time()
        due = min(began + call.timeouts.first_token_s, call.deadline) if stream else call.deadline
        if call.traceparent is not None:
            headers = {**headers, "traceparent": call.traceparent}
        response: Response | None = None
        try:
            async with asyncio.timeout_at(due) as patience:
                response = await self._request("POST", url, headers, body, connect_s=call.timeouts.connect_s)
                if response.status != 200:
                    raise await self._refusal(response)
                encoding = response.headers.get("content-encoding", "identity")
                if encoding not in _ENCODINGS or (stream and encoding != "identity"):
                    raise BadResponse(f"Backend '{self._provider}' sent a compressed answer, which nobody asked for.")
                if not stream:

                    def rest() -> None:
                        patience.reschedule(min(loop.time() + call.timeouts.idle_s, call.deadline))

                    whole = await _read(response, BODY_MAX_BYTES, self._provider, rest)
                    if encoding != "identity":
                        whole = await asyncio.to_thread(self._unpacked, whole)
                    if len(whole) < LARGE_BYTES:
                        whole = self._whole(tap, whole)
                    else:
                        whole = await asyncio.to_thread(self._whole, tap, whole)
                    return Relayed(headers=passed_headers(response), tally=tap, body=whole)
                if response.content_type != "text/event-stream":
                    self._whole(tap, await _read(response, BODY_MAX_BYTES, self._provider))
                    raise BadResponse(f"Backend '{self._provider}' did not stream its answer.")
        except BaseException as e:
            if response is not None:
                response.close()
            if isinstance(e, Exception) and (error := of_exception(e, self._provider)) is not None:
                if response is not None:
                    error.headers = own_headers(passed_headers(response))
                if error is e:
                    raise
                raise error from e
            raise
        watch = _Watch(loop, response, due, call, self._provider, tells_progress=tells_progress)
        frames = Held(self._frames(response, tap, watch), watch.release)
        return Relayed(headers=passed_headers(response), tally=tap, frames=frames)

    async def get(
        self,
        url: URL,
        headers: Mapping[str, str],
        timeout_s: float = 10.0,
        *,
        method: str = "GET",
        body: bytes = b"",
        ok: Container[int] = (200,),
        anonymous: bool = False,
        limit: int = BODY_MAX_BYTES,
    ) -> bytes:
        """A small document; with method POST, the answer to another.  Raises GatewayError.

        ok: statuses of an answer.
        anonymous: whoever is asked must not see an account's token.
        """
        response: Response | None = None
        try:
            async with asyncio.timeout(timeout_s):
                ask = self._client.request if anonymous else self._request
                response = await ask(method, url, headers, body)
                if response.status not in ok:
                    raise await self._refusal(response)
                answer = await _read(response, limit, self._provider)
                packed = response.headers.get("content-encoding", "identity") != "identity"
                return await asyncio.to_thread(self._unpacked, answer, limit) if packed else answer
        except BaseException as e:
            if response is not None:
                response.close()
            if isinstance(e, Exception) and (error := of_exception(e, self._provider)) is not None:
                raise error from e
            raise

    async def aclose(self) -> None:
        await self._client.aclose()

    def _whole(self, tap: Tap, body: bytes) -> bytes:
        answer = tap.whole(body)
        if answer is None:
            raise BadResponse(f"Backend '{self._provider}' answered with what is not an answer of this kind.")
        if tap.failure is not None:
            raise self._own(of_stream(tap.failure, self._provider))
        return answer

    def _unpacked(self, body: bytes, limit: int = BODY_MAX_BYTES) -> bytes:
        try:
            return inflated(body, limit)
        except (inflation.TooLong, inflation.Broken) as e:
            raise BadResponse(f"Backend '{self._provider}' sent an answer that cannot be decompressed.") from e

    async def _refusal(self, response: Response) -> GatewayError:
        body = b""
        while len(body) < ERROR_MAX_BYTES and (data := await response.read(ERROR_MAX_BYTES)):
            body += data
        verdict = self._parse_error(body)
        status = 400 if verdict.blames else response.status
        return self._own(of_status(status, verdict, retry_after(response.headers), self._provider))

    def _own(self, error: GatewayError, *, worked: bool = False) -> GatewayError:
        """The provider's own word, said to a user whose own account it is about."""
        error.worked = worked
        if self._account is None or not isinstance(error, AuthFailed):
            return error
        return AuthFailed(
            f"Backend '{self._provider}' rejected your own key; give it another with POST /v1/credentials."
        )

    def _in_the_name_of(self, account: Account) -> Callable[..., Awaitable[Response]]:
        async def request(
            method: str, url: URL, headers: Mapping[str, str], body: bytes = b"", *, connect_s: float = 10.0
        ) -> Response:
            token, given = account.token, ""
            if token is not None:
                given = await token.get()
                headers = {**headers, "authorization": f"Bearer {given}"}
            response = await self._client.request(method, url, headers, body, connect_s=connect_s)
            if response.status == 401 and token is not None and token.refused(given):
                # Nothing was done with the request: once more, with a token that is new.
                response.close()
                headers = {**headers, "authorization": f"Bearer {await token.get()}"}
                response = await self._client.request(method, url, headers, body, connect_s=connect_s)
            if response.status < 300 or response.status == 401:
                account.judged(accepted=response.status != 401)
            return response

        return request

    async def _frames(self, response: Response, tap: Tap, watch: "_Watch") -> AsyncGenerator[bytes, None]:
        cutter = Cutter()
        ended = False
        try:
            while not ended:
                watch.waiting(tap.began, tap.finished)
                data = await response.read(PIECE_BYTES)
                watch.resting()
                ended = not data
                events = cutter.feed(data) if data else cutter.flush()
                if not events:
                    continue
                out = tap.feed(events)
                if out:
                    yield out
                if tap.failure is not None:
                    raise self._own(of_stream(tap.failure, self._provider), worked=tap.began)
                if tap.done:
                    break
            if not tap.finished:
                raise BadResponse(f"The answer of backend '{self._provider}' ended before it was complete.")
            if owed := tap.end():
                yield owed
            if not ended:
                await _drain(response)
        except GatewayError as e:
            if not (tap.finished and tap.failure is None and isinstance(e, TimedOut)):
                e.headers = own_headers(passed_headers(response))
                raise
            if owed := tap.end():  # all of it has come; nobody waits for a connection to end
                yield owed
        except TooLong as e:
            cutter.flush()  # the error keeps this frame alive
            raise BadResponse(f"Backend '{self._provider}' sent an event that is too large.") from e
        except OSError as e:
            if tap.done:
                return
            if tap.finished:  # all of it has come; how the connection ended is no matter
                if owed := tap.end():
                    yield owed
                return
            error = of_exception(e, self._provider)
            raise (error or e) from e


class _Watch:
    """Ends a stream that takes too long, from the side: one timer a stream, no task, no cancelling."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        response: Response,
        first_due: float,
        call: Call,
        provider: str,
        *,
        tells_progress: bool,
    ) -> None:
        self._loop = loop
        self._response = response
        self._first_due = first_due
        self._first_s = call.timeouts.first_token_s if tells_progress else None
        self._idle_s = call.timeouts.idle_s
        self._deadline = call.deadline
        self._provider = provider
        self._due = first_due
        self._timer = loop.call_at(first_due, self._fire)

    def waiting(self, began: bool, finished: bool) -> None:
        """The next piece is awaited from now on."""
        if began:
            patience_s = min(self._idle_s, LAST_WORDS_S) if finished else self._idle_s
            self._due = min(self._loop.time() + patience_s, self._deadline)
        elif self._first_s is not None:
            self._due = min(self._loop.time() + self._first_s, self._deadline)
        else:
            self._due = self._first_due
        if self._due < self._timer.when():
            self._timer.cancel()
            self._timer = self._loop.call_at(self._due, self._fire)

    def resting(self) -> None:
        """A slow reader is not a silent provider: only the deadline counts."""
        self._due = self._deadline

    async def release(self) -> None:
        """The stream is over: keep the connection if it was read to its end, close it otherwise."""
        self._timer.cancel()
        if not self._response.at_eof():
            self._response.close()

    def _fire(self) -> None:
        if self._loop.time() < self._due:
            self._timer = self._loop.call_at(self._due, self._fire)
            return
        self._response.fail(TimedOut(f"Backend '{self._provider}' did not answer in time."))
        self._response.close()


def passed_headers(response: Response) -> list[tuple[str, str]]:
    """Those of a provider's headers that may reach a client."""
    passed = []
    for name, value in response.headers.items():
        if name in _PASSED or name.startswith(_PASSED_PREFIXES):
            passed.append((name, value))
        elif name == "x-request-id":
            passed.append((_UPSTREAM_ID, value))
    return passed


def own_headers(passed: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """The same beside an answer in our own words, whose request is ours: the provider's is named apart."""
    return list({_UPSTREAM_ID if name == "request-id" else name: value for name, value in passed}.items())


async def _read(response: Response, limit: int, provider: str, more: Callable[[], None] | None = None) -> bytes:
    """The body; `more` is called when a piece has come and others are awaited."""
    if (response.content_length or 0) <= limit:
        pieces: list[bytes] = []
        size = 0
        while data := await response.read():
            pieces.append(data)
            size += len(data)
            if size > limit:
                pieces.clear()  # the error keeps this frame alive
                break
            if more is not None and not response.at_eof():
                more()
        else:
            return pieces[0] if len(pieces) == 1 else b"".join(pieces)
    raise BadResponse(f"Backend '{provider}' sent an answer that is too large.")


async def _drain(response: Response) -> None:
    try:
        async with asyncio.timeout(AFTER_DONE_S):
            while await response.read():
                pass
    except (TimeoutError, BackendError):
        return

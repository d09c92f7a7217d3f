"""Asks the hub for a file from some byte on, goes where it is sent, and gives what comes.

The token goes to the hub itself, by scheme, host and port, and nowhere else.  An answer is taken only if it is a part
of the file that was asked for.
"""

import http.client
import re
import ssl
import time
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from urllib.parse import SplitResult, quote, unquote, urljoin, urlsplit
from urllib.request import getproxies_environment, proxy_bypass_environment  # type: ignore[attr-defined]

from msgspec.structs import replace

from compat.canonical.error import (
    AuthFailed,
    BadResponse,
    Corrupted,
    GatewayError,
    NotFound,
    RateLimited,
    TimedOut,
    Unreachable,
    UpstreamFailed,
)
from gateway.downloads.line import Line, Silent, Stop, connect
from gateway.downloads.piece import Piece
from gateway.hub import failures

REDIRECTS_MAX = 5
_PORTS = {"http": 80, "https": 443}
_MOVED = (301, 302, 303, 307, 308)
_HEX_SHA256 = re.compile(r"[0-9a-f]{64}").fullmatch
_HEX_BLOB = re.compile(r"[0-9a-f]{40}").fullmatch
_content_range = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)$").match


class Failed(Exception):
    """An attempt that failed; the next may do better."""

    def __init__(self, error: GatewayError, *, wait_s: float | None = None, anew: bool = False) -> None:
        super().__init__(error.message)
        self.error = error
        self.wait_s = wait_s
        """How long the hub wants to be left alone."""
        self.anew = anew
        """What is here is of no use for it."""


class Answer:
    """The bytes of the file from `start` on."""

    def __init__(self, response: http.client.HTTPResponse, line: Line, start: int) -> None:
        self.start = start
        self.served = None if (etag := response.getheader("etag", "")).startswith("W/") else etag or None
        """What the host calls the file, with quotes; None where that cannot be relied on."""
        self._response = response
        self._line = line

    def read(self, buffer: memoryview, until: float) -> int:
        """What there is, as soon as there is any; 0 at the end.  Raises Failed or Stopped."""
        self._line.until = until
        with failing():
            if self._response.chunked:
                data = self._response.read1(len(buffer))
                buffer[: len(data)] = data
                return len(data)
            return int(self._response.fp.readinto1(buffer))


class Source:
    def __init__(self, piece: Piece, token: str | None, stop: Stop) -> None:
        self._piece = piece
        self._token = token
        self._stop = stop
        page = piece.url.partition("/resolve/")[0]
        self._repo = piece.repo or unquote("/".join(page.rsplit("/", 2)[1:]))
        self._endpoint = page.removesuffix(f"/{quote(self._repo)}")
        self._hub = _origin(urlsplit(piece.url))

    def expected(self, until: float) -> Piece:
        """The piece with what the file must be, as the hub itself says where it hands it out: that is what is held
        against from now on.

        Raises Failed, Stopped, GatedRepo, NotFound; BadResponse where the hub does not say it.
        """
        url = urlsplit(self._piece.url)
        for _ in range(REDIRECTS_MAX + 1):
            with failing():
                line = self._connected(url, until)
            try:
                with failing():
                    response = self._asked(line, url, 0, None, until)
                moved = response.status in _MOVED
                if not moved:
                    self._check(response, url, 0)
                linked = response.getheader("x-linked-etag")
                told = linked or ("" if moved else response.getheader("etag")) or ""
                told = told.removeprefix("W/").strip('"').lower()
                if _HEX_SHA256(told):
                    self._piece = replace(self._piece, sha256=told, etag=told)
                    return self._piece
                if _HEX_BLOB(told):
                    self._piece = replace(self._piece, blob=told, etag=told)
                    return self._piece
                if moved:
                    url = _sent_on(url, response.getheader("location", ""))
            finally:
                line.close()
            if not moved or _origin(url) != self._hub:
                break  # what another host says of a file does not vouch for what it hands out
        name = self._piece.path.name
        raise BadResponse(f"The model hub does not say what the file '{name}' must be (no hash): it is not fetched.")

    @contextmanager
    def opened(self, start: int, served: str | None, until: float) -> Iterator[Answer]:
        """The file from byte `start` on, or from its first where that is all there is to be had.

        served: what it was called where it came from.  until: when, by time.monotonic, the answer has begun.
        Raises Failed, Stopped, GatedRepo, NotFound.
        """
        url = urlsplit(self._piece.url)
        for _ in range(REDIRECTS_MAX + 1):
            with failing():
                line = self._connected(url, until)
            try:
                with failing():
                    response = self._asked(line, url, start, served, until)
                if response.status not in _MOVED:
                    self._check(response, url, start)
                    # Without a Range header what comes is what was asked for, also with status 200.
                    yield Answer(response, line, start if response.status == 206 else 0)
                    return
                self._check_etag(response.getheader("x-linked-etag"))
                url = _sent_on(url, response.getheader("location", ""))
            finally:
                line.close()
        raise Failed(BadResponse("The model hub sends on and on, and to no file."))

    def _connected(self, url: SplitResult, until: float) -> Line:
        host, port = _address(url)
        proxy = _proxy(url)
        line = connect(*_address(proxy or url), self._stop, until)
        try:
            if url.scheme == "https":
                if proxy is not None:
                    self._tunnel(line, proxy, f"{_bracketed(host)}:{port}")
                line.secure(host)
        except BaseException:
            line.close()
            raise
        return line

    def _tunnel(self, line: Line, proxy: SplitResult, target: str) -> None:
        head = {"Host": target, **_proxy_authorization(proxy)}
        line.send(_head(f"CONNECT {target} HTTP/1.1", head))
        response = http.client.HTTPResponse(line, method="CONNECT")  # type: ignore[arg-type]
        response.begin()
        response.fp.detach()  # else the line is closed with the answer
        response.fp = None  # type: ignore[assignment]
        if response.status != 200:
            raise Failed(Unreachable("The proxy before the model hub refuses to connect."))

    def _asked(
        self, line: Line, url: SplitResult, start: int, served: str | None, until: float
    ) -> http.client.HTTPResponse:
        target = _quoted(url.path or "/") + (f"?{_quoted(url.query)}" if url.query else "")
        host, port = _address(url)
        name = _bracketed(host) + ("" if port == _PORTS[url.scheme] else f":{port}")
        head = {"Host": name, "User-Agent": "pluggably", "Accept": "*/*", "Accept-Encoding": "identity"}
        proxy = _proxy(url) if url.scheme == "http" else None
        if proxy is not None:
            target = f"http://{name}{target}"
            head |= _proxy_authorization(proxy)
        if self._token and _origin(url) == self._hub:
            head["Authorization"] = f"Bearer {self._token}"
        if start:
            head["Range"] = f"bytes={start}-"
            if served is not None:
                head["If-Range"] = served
        line.until = until
        line.send(_head(f"GET {target} HTTP/1.1", head | {"Connection": "close"}))
        response = http.client.HTTPResponse(line, method="GET")  # type: ignore[arg-type]
        response.begin()
        return response

    def _check(self, response: http.client.HTTPResponse, url: SplitResult, start: int) -> None:
        status, size = response.status, self._piece.size_bytes
        at_hub = _origin(url) == self._hub
        if status == 416:
            raise Failed(BadResponse("The model hub has no more of the file than is here."), anew=True)
        if status not in (200, 206):
            raise self._refusal(response, at_hub=at_hub)
        if response.getheader("content-encoding", "identity").lower() != "identity":
            raise Failed(BadResponse("The model hub sends the file packed, which was not asked for."))
        if at_hub:
            linked = response.getheader("x-linked-etag")
            self._check_etag(linked or (response.getheader("etag") if response.getheader("x-repo-commit") else None))
        length = response.getheader("content-length")
        told = int(length) if length and length.isascii() and length.isdecimal() else None
        if status == 206:
            given = _content_range(response.getheader("content-range", ""))
            if given is None or int(given[1]) != start or given[3] not in (str(size), "*") or int(given[2]) >= size:
                raise Failed(BadResponse("The model hub sends another part of the file than was asked for."))
        elif told is not None and told != size:
            raise Failed(Corrupted(f"The model hub sends a file of {told:,} bytes that is to have {size:,}."))

    def _check_etag(self, given: str | None) -> None:
        """Raises Failed where the hub says that it is another file by now."""
        wanted = self._piece.etag
        if given and wanted and given.removeprefix("W/").strip('"').lower() != wanted.strip('"').lower():
            raise Failed(Corrupted("The model hub has another file under this name than the one that was planned."))

    def _refusal(self, response: http.client.HTTPResponse, *, at_hub: bool) -> Exception:
        status, code = response.status, response.getheader("x-error-code", "")
        wait = _wait_s(dict(response.getheaders()))
        if status == 429:
            error = RateLimited("The model hub's rate limit is reached; try again later.", retry_after_s=wait)
            return Failed(error, wait_s=wait)
        if status >= 500:
            return Failed(UpstreamFailed(f"The model hub failed with status {status}."), wait_s=wait)
        if status == 408:
            return Failed(TimedOut("The model hub did not answer in time."), wait_s=wait)
        if not at_hub:
            # What the hub signs holds for a while: the next attempt asks it for another address.
            return Failed(BadResponse(f"The host that the model hub names refuses to hand out the file ({status})."))
        repo, has_token = self._repo, self._token is not None
        if code == "GatedRepo":
            return failures.gated(self._endpoint, repo, has_token=has_token)
        if status in (401, 403):
            cure = "the token that is configured may not read it" if has_token else "no token is configured for it"
            if code == "RepoNotFound":
                return NotFound(
                    f"There is no repository '{repo}' on the hub, or it is private and {cure}.",
                    param="repo",
                    code="repo_not_found",
                )
            return AuthFailed(f"The model hub refuses to hand out the files of '{repo}': {cure}.")
        if status in (404, 410):
            what = {"RevisionNotFound": "revision", "RepoNotFound": "repo"}.get(code, "file")
            said = f"The repository '{repo}' has no such {what} any more."
            return NotFound(said, param=what, code=f"{what}_not_found")
        return BadResponse(f"The model hub answers with status {status} about a file of '{repo}'.")


@contextmanager
def failing() -> Iterator[None]:
    """What goes wrong with a connection, as Failed."""
    try:
        yield
    except Silent:
        raise Failed(TimedOut("The model hub has fallen silent.")) from None
    except ssl.SSLError as e:
        raise Failed(Unreachable("The model hub cannot be reached: TLS failed.")) from e
    except (http.client.HTTPException, ValueError) as e:
        raise Failed(BadResponse("The model hub answers in a way that cannot be read.")) from e
    except OSError as e:
        raise Failed(Unreachable("The model hub cannot be reached, or hung up.")) from e


def _wait_s(headers: dict[str, str]) -> float | None:
    """How long the hub wants to be left alone, in seconds or until a date."""
    if (wait := failures.retry_after(headers)) is not None:
        return wait
    given = next((text for name, text in headers.items() if name.lower() == "retry-after"), "")
    try:
        until = parsedate_to_datetime(given).timestamp()
    except (ValueError, OverflowError, OSError):
        return None
    return min(max(0.0, until - time.time()), failures.RETRY_MAX_S)


def _sent_on(url: SplitResult, location: str) -> SplitResult:
    try:
        following = urlsplit(urljoin(url.geturl(), location.strip()))
        _address(following)
    except ValueError:
        raise Failed(BadResponse("The model hub sends on to what is no address.")) from None
    if not location or following.scheme not in _PORTS:
        raise Failed(BadResponse("The model hub sends on to what is no address of a file."))
    if url.scheme == "https" and following.scheme == "http":
        raise Failed(BadResponse("The model hub sends on to an address without TLS, which is not followed."))
    return following


def _address(url: SplitResult) -> tuple[str, int]:
    """Raises ValueError."""
    if not url.hostname:
        raise ValueError("no host")
    return url.hostname, url.port or _PORTS.get(url.scheme, 80)


def _origin(url: SplitResult) -> tuple[str, str, int]:
    return url.scheme, *_address(url)


def _proxy(url: SplitResult) -> SplitResult | None:
    """Raises Failed where the proxy is none that we speak to."""
    host, port = _address(url)
    proxies = getproxies_environment()
    given = proxies.get(url.scheme) or proxies.get("all")
    if not given or proxy_bypass_environment(f"{_bracketed(host)}:{port}", proxies):
        return None
    proxy = urlsplit(given if "://" in given else f"http://{given}")
    if proxy.scheme != "http" or not proxy.hostname:
        raise Failed(Unreachable("The proxy before the model hub must be one for HTTP: http://HOST:PORT."))
    return proxy


def _proxy_authorization(proxy: SplitResult) -> dict[str, str]:
    if proxy.username is None:
        return {}
    named = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
    return {"Proxy-Authorization": f"Basic {b64encode(named.encode()).decode()}"}


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _quoted(text: str) -> str:
    """As it is, but for what cannot be in a request's first line."""
    return quote(text, safe="%/?:@!$&'()*+,;=~-._[]|")


def _head(first: str, fields: dict[str, str]) -> bytes:
    lines = [first, *(f"{name}: {text}" for name, text in fields.items())]
    if any(c in line for line in lines for c in "\r\n\0"):
        raise ValueError("a line break in a header")
    return "\r\n".join([*lines, "", ""]).encode("latin-1")

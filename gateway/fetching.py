"""Getting what a client names by URL: pictures, from public addresses only, within limits.

A request makes the gateway send another one, so nothing of it may reach the gateway's own network, nor tell what is
there: a name is resolved once, all of its addresses have to be public, and what was looked at is what is connected to.
No cookies, no credentials, no proxy, no referer.  Everything that kept a connection from being made, or cut it, is
told in the same words.
"""

import asyncio
import re
from contextlib import suppress
from urllib.parse import urljoin

from yarl import URL

from backends.http1 import Client, Malformed
from backends.response import Response
from compat import amount
from compat.canonical.error import InvalidRequest, TimedOut
from compat.canonical.message import Media
from compat.magic import mime_of
from gateway.auth.endpoint import Endpoint, endpoint
from gateway.keeping import Fetch

LENGTH_MAX = 8192
"""Characters of an address: signatures of buckets are long."""
REDIRECTS_MAX = 3
STALL_S = 5.0
"""How long a body may bring nothing."""
_url = re.compile(r"(?P<origin>https?://[^/?#\\]+)(?P<path>/[^?#]*)?(?P<query>\?[^#]*)?(?:#.*)?").fullmatch
_spelled = re.compile(r"[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=%|]+").fullmatch
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_HEADERS = {"user-agent": "pluggably", "accept": "image/*", "connection": "close"}


class _Unreachable(Exception):
    """No answer: whatever the reason is, it is not told."""


class Fetcher:
    def __init__(self, settings: Fetch) -> None:
        self.settings = settings
        """The limits; another configuration may replace them at any time."""

    async def picture(self, url: str, param: str, deadline: float) -> Media:
        """The picture at an address.

        param: what the client calls the field.  deadline: by the loop's clock.
        Raises InvalidRequest: not allowed, not there, too large, too slow, no picture.  TimedOut at the deadline.
        """
        settings = self.settings
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout_at(min(loop.time() + settings.timeout_s, deadline)):
                data = await self._followed(url, param, settings)
        except (_Unreachable, TimeoutError) as e:
            if isinstance(e, TimeoutError) and loop.time() >= deadline:
                raise TimedOut(f"The request's time was over before the picture in '{param}' was there.") from e
            raise _invalid(
                param,
                "no picture could be fetched from there. See that its address is public and that it answers within "
                f"{settings.timeout_s:g} s, or send the picture as a data URL",
            ) from e
        mime = mime_of(data)
        if mime is None:
            raise _invalid(param, "what is there is not a picture; PNG, JPEG, WebP, GIF, AVIF, BMP and TIFF are")
        return Media(mime=mime, data=data)

    async def _followed(self, url: str, param: str, settings: Fetch) -> bytes:
        """The body at the end of its redirects."""
        target, place = _allowed(url, settings, param)
        for left in reversed(range(REDIRECTS_MAX + 1)):
            # One of its own, so that nobody is answered over what was connected to for somebody else.
            client = Client(public_only=place.public_only)
            try:
                response = await _asked(client, target, within_s=settings.timeout_s)
                if response.status not in _REDIRECTS:
                    return await _body(response, amount.parse(settings.max_bytes), param)
                if not left:
                    raise _invalid(param, f"it leads on more than {REDIRECTS_MAX} times")
                if not (location := response.headers.get("location")):
                    raise _Unreachable
                onward = urljoin(str(target), location)
            finally:
                await client.aclose()
            secured = target.scheme == "https"
            try:
                target, place = _allowed(onward, settings, param)
            except InvalidRequest as e:
                # Where it would have led is the server's to tell, not ours.
                raise _Unreachable from e
            if secured and target.scheme != "https":
                raise _Unreachable
        raise AssertionError("the last time it is returned or raised")


def _allowed(url: str, settings: Fetch, param: str) -> tuple[URL, Endpoint]:
    """An address that may be asked, and how.  Raises InvalidRequest."""
    parts = _url(url) if len(url) <= LENGTH_MAX and _spelled(url) else None
    if parts is None:
        raise _invalid(
            param,
            f"expected an https URL of at most {LENGTH_MAX} characters, percent-encoded and its host in ASCII, "
            "a data URL, or an artifact's id",
        )
    origin, path = parts["origin"], parts["path"] or ""
    place = None
    with suppress(InvalidRequest):
        place = endpoint(origin + path, settings.allow, param)
    if place is None or place.public_only:
        try:
            # What is a trick in a path is one only where the path decides what is allowed.
            place = endpoint(origin, (), param)
        except InvalidRequest as e:
            raise _invalid(
                param, "only https URLs of the public internet are fetched. Send the picture as a data URL"
            ) from e
    return URL(f"{origin}{path or '/'}{parts['query'] or ''}", encoded=True), place


async def _asked(client: Client, url: URL, *, within_s: float) -> Response:
    try:
        return await client.request("GET", url, _HEADERS, connect_s=within_s)
    except (OSError, Malformed, ValueError) as e:  # ValueError: a name that cannot be one
        raise _Unreachable from e


async def _body(response: Response, most: int, param: str) -> bytes:
    """Raises InvalidRequest for what is not to be had, or not to be read."""
    if response.status != 200:
        raise _invalid(param, f"its server answers with status {response.status}")
    encodings = (response.headers.get("content-encoding", "identity"), response.headers.get("transfer-encoding", ""))
    if encodings[0].strip().lower() not in ("", "identity") or encodings[1].strip().lower() not in ("", "chunked"):
        raise _invalid(param, "its server sends it compressed, though asked not to")
    too_large = _invalid(param, f"the picture is larger than {most} bytes")
    if (response.content_length or 0) > most:
        raise too_large
    data = bytearray()
    try:
        while True:
            async with asyncio.timeout(STALL_S):
                piece = await response.read()
            if not piece:
                return bytes(data)
            data += piece
            if len(data) > most:
                raise too_large
    except (OSError, Malformed) as e:
        raise _Unreachable from e


def _invalid(param: str, why: str) -> InvalidRequest:
    return InvalidRequest(f"Invalid value for '{param}': {why}.", param=param, code="invalid_image_url")

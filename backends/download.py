"""Files that a provider made and keeps elsewhere: fetched without its key, and from nowhere they should not be.

A provider's answer says where they are.  Where that is its own server, as configured, that is fine whatever its
address; everything else must be reached over TLS at a public address, checked for every redirect and on the address
that is connected to, so that no answer leads the gateway into its own network.
"""

import asyncio

from yarl import URL

from backends.failures import of_exception, of_status
from backends.http1 import Client
from backends.response import Response
from compat.canonical.error import BadResponse, GatewayError
from compat.openai.error import Verdict

REDIRECTS_MAX = 3
_REDIRECTS = frozenset({301, 302, 303, 307, 308})


class Downloads:
    """Fetches what one provider made."""

    def __init__(self, provider: str, base_url: str, *, public_only: bool = False) -> None:
        """public_only: the provider's own server must be a public one as well."""
        self._provider = provider
        self._home = None if public_only else URL(base_url).origin()
        self._near = Client()
        self._far = Client(public_only=True)

    async def fetch(self, address: str, due: float, limit: int) -> bytes:
        """A file of at most so many bytes, by then (on the loop's clock).  Raises GatewayError."""
        response: Response | None = None
        try:
            async with asyncio.timeout_at(due):
                url = self._checked(address)
                for _ in range(REDIRECTS_MAX + 1):
                    client = self._near if url.origin() == self._home else self._far
                    response = await client.request("GET", url, {"user-agent": "pluggably"})
                    if response.status not in _REDIRECTS:
                        return await self._body(response, limit)
                    target = response.headers.get("location", "")
                    response.close()
                    url = self._checked(target, url)
                raise BadResponse(f"Backend '{self._provider}' sends from one address to the next.")
        except BaseException as e:
            if response is not None:
                response.close()
            if isinstance(e, Exception) and (error := of_exception(e, self._provider)) is not None:
                raise error from e
            raise

    async def aclose(self) -> None:
        await self._near.aclose()
        await self._far.aclose()

    def _checked(self, address: str, base: URL | None = None) -> URL:
        try:
            url = URL(address, encoded=True)
            url = url if base is None else base.join(url)
            if url.host and (url.scheme == "https" or url.origin() == self._home):
                return url
        except ValueError:
            pass
        raise BadResponse(f"Backend '{self._provider}' points to a file that is not to be fetched.")

    async def _body(self, response: Response, limit: int) -> bytes:
        if response.status != 200:
            raise self._refused(response.status)
        body = bytearray()
        if (response.content_length or 0) <= limit:
            while data := await response.read():
                body += data
                if len(body) > limit:
                    break
            else:
                return bytes(body)
        raise BadResponse(f"Backend '{self._provider}' has made a file that is too large.")

    def _refused(self, status: int) -> GatewayError:
        """What is refused here is a file, not a key: the address was wrong, or good for too short a time."""
        if status >= 500:
            return of_status(status, Verdict(), None, self._provider)
        return BadResponse(f"Backend '{self._provider}' does not give out what it has made.")

"""Getting what a client names by URL: pictures, from public addresses only, within limits."""

from compat.canonical.message import Media
from gateway.keeping import Fetch


class Fetcher:
    def __init__(self, settings: Fetch) -> None:
        self.settings = settings
        """The limits; another configuration may replace them at any time."""

    async def picture(self, url: str, param: str, deadline: float) -> Media:
        """The picture at an address.

        param: what the client calls the field.  deadline: by the loop's clock.
        Raises InvalidRequest: not allowed, not there, too large, too slow, no picture.
        """
        raise NotImplementedError

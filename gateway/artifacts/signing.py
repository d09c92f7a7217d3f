"""Signed URLs: whoever has one may fetch one artifact for a while, without a key.

The signature is HMAC-SHA256 over the method, the path, every other parameter of the query, the moment of expiry and
the id of the signing key, each with its length before it.  A store that is a folder cannot sign, so this is ours.
"""

from collections.abc import Sequence

PARAMETERS = ("expires", "key", "signature")
"""What a signature is made of in a query."""


class Signer:
    """Signs under the first of its keys and believes all of them, so that a key can be changed without cutting
    anybody off.

    Raises ValueError for a key of fewer than 32 bytes, and for none.
    """

    def __init__(self, keys: Sequence[bytes]) -> None:
        self._keys = keys

    def signed(self, method: str, path: str, query: Sequence[tuple[str, str]], expires_at: int) -> str:
        """The path with its query, signed.

        expires_at: seconds since 1970, UTC.
        """
        raise NotImplementedError

    def check(self, method: str, path: str, query: Sequence[tuple[str, str]], now: float) -> None:
        """Raises Forbidden, `url_expired` or `invalid_signature`: also where a parameter is there twice."""
        raise NotImplementedError

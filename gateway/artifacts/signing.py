"""Signed URLs: whoever has one may fetch one artifact for a while, without a key.

The signature is HMAC-SHA256 over the method, the path, every other parameter of the query, the moment of expiry and
the id of the signing key, each with its length before it.  A store that is a folder cannot sign, so this is ours.
"""

import hashlib
import hmac
import re
from collections.abc import Sequence
from urllib.parse import parse_qsl, quote, urlencode

from compat.canonical.error import Forbidden

PARAMETERS = ("expires", "key", "signature")
"""What a signature is made of in a query."""
KEY_MIN_BYTES = 32
"""What HMAC-SHA256 makes full use of."""
ENDED_AT = 10**11
"""Seconds since 1970 that no expiry reaches: one has a single spelling, and no more digits than a clock."""
_SCHEME = b"pluggably artifact url 1"
"""Said first, so that nothing else the key may ever sign is taken for a URL."""
_canonical = re.compile(r"[1-9][0-9]{0,10}", re.ASCII).fullmatch
_hex = re.compile(r"[0-9a-f]{64}", re.ASCII).fullmatch

Query = Sequence[tuple[str, str]]


class Signer:
    """Signs under the first of its keys and believes all of them, so that a key can be changed without cutting
    anybody off.

    Raises ValueError for a key of fewer than 32 bytes, and for none.
    """

    def __init__(self, keys: Sequence[bytes]) -> None:
        if not keys:
            raise ValueError("there is no key to sign with")
        if any(len(key) < KEY_MIN_BYTES for key in keys):
            raise ValueError(f"a signing key has fewer than {KEY_MIN_BYTES} bytes")
        self._first = _id(keys[0])
        self._keys = {_id(key): key for key in keys}

    def signed(self, method: str, path: str, query: Query, expires_at: int) -> str:
        """The path with its query, signed.

        expires_at: seconds since 1970, UTC.
        """
        given, expires = list(query), str(int(expires_at))
        if not 0 < expires_at < ENDED_AT or _doubled([*given, *((name, "") for name in PARAMETERS)]):
            raise ValueError("this cannot be signed: its expiry is no time, or a parameter of its query is there twice")
        signature = _mac(self._keys[self._first], method, path, given, expires, self._first)
        whole = [*given, *zip(PARAMETERS, (expires, self._first, signature), strict=True)]
        return f"{quote(path)}?{urlencode(whole, quote_via=quote)}"

    def check(self, method: str, path: str, query: Query, now: float) -> None:
        """Raises Forbidden, `url_expired` or `invalid_signature`: also where a parameter is there twice."""
        said = dict(query)
        expires, key_id, signature = (said.get(name, "") for name in PARAMETERS)
        key = self._keys.get(key_id)
        if _doubled(query) or key is None or not _canonical(expires) or not _hex(signature):
            raise invalid()
        others = [(name, value) for name, value in query if name not in PARAMETERS]
        if not hmac.compare_digest(_mac(key, method, path, others, expires, key_id), signature):
            raise invalid()
        # Only now: of a URL that nobody signed there is no expiry to tell of.
        if now >= int(expires):
            raise Forbidden("This URL has expired: ask for the artifact again to get another.", code="url_expired")


def parsed(query: bytes) -> list[tuple[str, str]]:
    """A query as it is signed, and as what it asks for is read: there is only one reading.

    Raises Forbidden, `invalid_signature`, where it is not UTF-8, or its parameters cannot be counted.
    """
    try:
        return parse_qsl(query.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=32)
    except ValueError as e:
        raise invalid() from e


def invalid() -> Forbidden:
    return Forbidden("This URL's signature is not valid: use it exactly as it was given.", code="invalid_signature")


def _mac(key: bytes, method: str, path: str, others: Query, expires: str, key_id: str) -> str:
    # Sorted, as what lies between may put parameters in another order, which changes nothing.
    fields = [method, path, expires, key_id, *(word for pair in sorted(others) for word in pair)]
    said = [field.encode() for field in fields]
    framed = b"".join(b"%d:%b" % (len(field), field) for field in (_SCHEME, *said))
    return hmac.digest(key, framed, "sha256").hex()


def _id(key: bytes) -> str:
    """Names a key and tells nothing of it."""
    return hmac.digest(key, b"pluggably key id", hashlib.sha256).hex()[:12]


def _doubled(query: Query) -> bool:
    names = [name for name, _ in query]
    return len(set(names)) < len(names)

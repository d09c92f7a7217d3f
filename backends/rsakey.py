"""A private RSA key out of PEM, from someone who is not trusted with our time.

The usual import looks whether a key's numbers are primes, which for a large key takes minutes during which nothing
else in the process runs.  Here the size is read first, and the numbers are held against each other by arithmetic; that
a factor is no prime hurts only whose key it is.
"""

import base64
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

PEM_MAX = 4096
"""Characters; a key of the largest size has 3,300."""
BITS_MIN, BITS_MAX = 2048, 4096
_EXPONENT_BITS_MAX = 64
_UNEVEN_BITS_MAX = 16
"""By how much a factor may be longer than half of the modulus."""
_block = re.compile(r"\s*-----BEGIN (RSA )?PRIVATE KEY-----([A-Za-z0-9+/=\s]+)-----END (?:RSA )?PRIVATE KEY-----\s*")
_INTEGER, _OCTETS, _OID, _SEQUENCE = 0x02, 0x04, 0x06, 0x30
_RSA = bytes.fromhex("2a864886f70d010101")


class _Der:
    """DER, read from its beginning."""

    def __init__(self, raw: bytes) -> None:
        self._raw = raw
        self._at = 0

    def take(self, tag: int) -> bytes:
        """What the next element holds.  Raises ValueError when it is no such one."""
        raw, at = self._raw, self._at
        if len(raw) < at + 2 or raw[at] != tag:
            raise ValueError("is not the DER of a private RSA key")
        length, at = raw[at + 1], at + 2
        if length > 0x7F:
            size = length & 0x7F
            if not 1 <= size <= 2:  # for no key of ours it takes more
                raise ValueError("is not the DER of a private RSA key")
            length, at = int.from_bytes(raw[at : at + size]), at + size
        self._at = at + length
        if self._at > len(raw):
            raise ValueError("ends too early")
        return raw[at : self._at]

    def number(self) -> int:
        return int.from_bytes(self.take(_INTEGER), signed=True)


def private_key(pem: str) -> "RSAPrivateKey":
    """Raises ValueError, in words that do not quote the key."""
    if len(pem) > PEM_MAX or (found := _block.fullmatch(pem)) is None:
        raise ValueError("must be one private key in PEM")
    der = base64.b64decode("".join(found[2].split()), validate=True)
    outer = _Der(_Der(der).take(_SEQUENCE))
    version = outer.number()
    if found[1] is None:  # PKCS #8, with PKCS #1 inside
        if _Der(outer.take(_SEQUENCE)).take(_OID) != _RSA:
            raise ValueError("must be an RSA key")
        outer = _Der(_Der(outer.take(_OCTETS)).take(_SEQUENCE))
        version = outer.number()
    n, e, d, p, q, dp, dq, qi = (outer.number() for _ in range(8))
    if not BITS_MIN <= n.bit_length() <= BITS_MAX:
        raise ValueError(f"must have {BITS_MIN} to {BITS_MAX} bits")
    half = n.bit_length() // 2 + _UNEVEN_BITS_MAX
    sound = (
        version == 0
        and 2 < e < 1 << _EXPONENT_BITS_MAX
        and e & p & q & 1
        and 1 < p < 1 << half
        and 1 < q < 1 << half
        and p * q == n
        and 0 < d < n
        and e * d % (p - 1) == 1
        and e * d % (q - 1) == 1
        and dp == d % (p - 1)
        and dq == d % (q - 1)
        and 0 < qi < p
        and q * qi % p == 1
    )
    if not sound:
        raise ValueError("its numbers do not fit each other")
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateNumbers, RSAPublicNumbers

    numbers = RSAPrivateNumbers(p, q, d, dp, dq, qi, RSAPublicNumbers(e, n))
    return numbers.private_key(unsafe_skip_rsa_key_validation=True)

"""Sealing what must be readable again, and only where it belongs: AES-256-GCM under the gateway's master key.

What is sealed is bound to its row: moved to another, or with any of the row's own words changed, it does not open.
Several master keys may be known; the first seals, the others only open what they sealed before.
"""

import base64
import binascii
import os
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_NONCE_BYTES = 12
_KEY = b"pluggably: sealing of credentials, 1"
_ID = b"pluggably: name of a master key, 1"


class Broken(Exception):
    """What was sealed does not open: it was altered or moved, or its master key is not known.

    The message says which, in words fit for the log.
    """


class Sealed(Struct, frozen=True):
    master_id: str
    """Which master key sealed it."""
    text: str


class Vault:
    def __init__(self, master: bytes, old: Iterable[bytes] = ()) -> None:
        self._masters = (master, *old)

    @property
    def master_id(self) -> str:
        """Of the key that seals."""
        return next(iter(self._ciphers))

    def seal(self, secret: bytes, bound_to: Sequence[str | None]) -> Sealed:
        nonce = os.urandom(_NONCE_BYTES)
        closed = self._ciphers[self.master_id].encrypt(nonce, secret, _bond(bound_to))
        return Sealed(self.master_id, base64.b64encode(nonce + closed).decode())

    def open(self, sealed: Sealed, bound_to: Sequence[str | None]) -> bytes:
        """Raises Broken."""
        from cryptography.exceptions import InvalidTag

        cipher = self._ciphers.get(sealed.master_id)
        if cipher is None:
            raise Broken("its master key is not known: name it in secrets.old_master_keys")
        try:
            raw = base64.b64decode(sealed.text, validate=True)
            return cipher.decrypt(raw[:_NONCE_BYTES], raw[_NONCE_BYTES:], _bond(bound_to))
        except (InvalidTag, ValueError, binascii.Error) as e:
            raise Broken("it was altered or moved") from e

    @cached_property
    def _ciphers(self) -> "dict[str, AESGCM]":
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # long to import, and not always wanted

        ciphers: dict[str, AESGCM] = {}
        for key in self._masters:
            ciphers.setdefault(_derived(key, _ID, 8).hex(), AESGCM(_derived(key, _KEY, 32)))
        return ciphers


def _bond(words: Sequence[str | None]) -> bytes:
    # JSON: no two lists of words are written alike.
    return msgspec.json.encode(words)


def _derived(key: bytes, purpose: bytes, length: int) -> bytes:
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    return HKDF(algorithm=SHA256(), length=length, salt=None, info=purpose).derive(key)

"""What the files of a hub's repository hold: bytes, or content that is made as it is read, for large files."""

import hashlib
from functools import cached_property
from typing import Protocol

BLOCK = 1 << 20
_POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize {}\n"


class Content(Protocol):
    @property
    def size(self) -> int: ...

    def read(self, start: int, end: int) -> bytes:
        """The bytes from `start` up to `end`, without the latter."""
        ...


class Made:
    """So many bytes that look random, the same ones for the same seed, and take no memory; `head` goes before."""

    def __init__(self, size: int, seed: int = 0, head: bytes = b"") -> None:
        self.size = size
        self.head = head
        self._pattern = hashlib.shake_128(f"made {seed}".encode()).digest(BLOCK)

    def _block(self, number: int) -> bytes:
        # Each differs from the others, so that one in the wrong place is noticed.
        return number.to_bytes(8, "big") + self._pattern[8:]

    def read(self, start: int, end: int) -> bytes:
        end = min(end, self.size)
        pieces = [self.head[start:end]]
        at = max(start, len(self.head))
        while at < end:
            number, inside = divmod(at, BLOCK)
            until = min(BLOCK, inside + end - at)
            pieces.append(self._block(number)[inside:until])
            at += until - inside
        return b"".join(pieces)


class Plain:
    def __init__(self, content: bytes) -> None:
        self._content = content

    @property
    def size(self) -> int:
        return len(self._content)

    def read(self, start: int, end: int) -> bytes:
        return self._content[start:end]


class HubFile:
    """A file at one commit.  lfs: it is kept apart, and known by its sha256."""

    def __init__(self, path: str, content: bytes | Content, *, lfs: bool) -> None:
        self.path = path
        self.content: Content = Plain(content) if isinstance(content, bytes) else content
        self.lfs = lfs

    @property
    def size(self) -> int:
        return self.content.size

    @cached_property
    def sha256(self) -> str:
        digest = hashlib.sha256()
        for start in range(0, self.size, BLOCK):
            digest.update(self.content.read(start, min(start + BLOCK, self.size)))
        return digest.hexdigest()

    @cached_property
    def pointer(self) -> bytes:
        """What git keeps of a file in LFS."""
        return _POINTER.format(self.sha256, self.size).encode()

    @cached_property
    def blob_id(self) -> str:
        kept = self.pointer if self.lfs else self.content.read(0, self.size)
        return hashlib.sha1(b"blob %d\0" % len(kept) + kept, usedforsecurity=False).hexdigest()

    @property
    def etag(self) -> str:
        """As `resolve` gives it, without its quotes."""
        return self.sha256 if self.lfs else self.blob_id

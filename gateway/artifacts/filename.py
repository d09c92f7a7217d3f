"""File names for those who save an artifact: whatever a client called it, it is no path, and ends as what it is."""

import unicodedata

from compat.canonical.message import GLB

BYTES_MAX = 200
"""In UTF-8: fewer than any file system takes."""
ENDINGS: dict[str, tuple[str, ...]] = {
    "image/png": (".png",),
    "image/jpeg": (".jpg", ".jpeg"),
    "image/webp": (".webp",),
    "image/gif": (".gif",),
    GLB: (".glb",),
    "model/obj": (".obj",),
    "model/ply": (".ply",),
    "model/stl": (".stl",),
    "text/plain": (".txt", ".md", ".log", ".csv"),
    "application/json": (".json",),
}
"""By media type how its files are called, the usual way first; of others nothing is known."""
_RESERVED = str.maketrans(dict.fromkeys('<>:"|?*%', "_"))
"""What some file systems, or some who read headers, take for something else."""


def filename(name: str | None, mime: str, otherwise: str) -> str:
    """A name that can be saved everywhere, ending as this media type does.

    otherwise: what it is called where nothing is left of the name; safe by itself.
    """
    endings = ENDINGS.get(mime.partition(";")[0], ())
    stem, ending = clean(name or "") or otherwise, endings[0] if endings else ""
    if not endings or stem.lower().endswith(endings):
        return stem
    return f"{_cut(stem, BYTES_MAX - len(ending))}{ending}"


def renamed(name: str | None, mime: str) -> str | None:
    """The name of what was made from a file of this name."""
    if not (plain := clean(name or "")):
        return None
    stem, dot, _ = plain.rpartition(".")
    return filename(stem if dot and stem else plain, mime, "artifact")


def clean(name: str) -> str:
    """The last part of a path, of printable characters, without dots at either end; it may be empty."""
    last = unicodedata.normalize("NFC", name).replace("\\", "/").rpartition("/")[2]
    # Control characters, those that turn the reading direction, halves of pairs, and what is not assigned.
    plain = "".join(" " if c.isspace() else c for c in last if c.isspace() or unicodedata.category(c)[0] != "C")
    plain = " ".join(plain.split()).translate(_RESERVED).strip(". ")
    stem, dot, ending = plain.rpartition(".")
    if not dot or len(ending) > 10:
        return _cut(plain, BYTES_MAX)
    return f"{_cut(stem, BYTES_MAX - len(ending.encode()) - 1)}.{ending}"


def _cut(text: str, most: int) -> str:
    return text.encode()[:most].decode(errors="ignore").strip(". ")

"""What kind of picture some bytes are, told by how they begin.

Sources: https://mimesniff.spec.whatwg.org/#matching-an-image-type-pattern and the formats' own papers.
"""


def mime_of(data: bytes) -> str | None:
    """The media type of a PNG, JPEG, GIF, WebP, AVIF, BMP or TIFF; None for anything else."""
    for magic, mime in _BEGINNINGS:
        if data.startswith(magic):
            return mime
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    if data[4:8] == b"ftyp" and data[8:12] in (b"avif", b"avis"):
        return "image/avif"
    return None


_BEGINNINGS = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"BM", "image/bmp"),
    (b"II*\x00", "image/tiff"),
    (b"MM\x00*", "image/tiff"),
)

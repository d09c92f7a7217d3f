"""How large pictures are, by their heads."""

import io

import pytest
from PIL import Image

from gateway.artifacts.dimensions import dimensions

KINDS = ["PNG", "JPEG", "GIF", "BMP", "WEBP"]


def picture(kind: str, **more: object) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (321, 123), (200, 30, 30)).save(file, kind, **more)
    return file.getvalue()


@pytest.mark.parametrize("kind", KINDS)
def test_a_pictures_size_is_known(kind: str) -> None:
    assert dimensions(picture(kind)) == (321, 123)


def test_of_every_kind_of_webp_and_of_a_jpeg_with_much_before_it() -> None:
    assert dimensions(picture("WEBP", lossless=True)) == (321, 123)
    assert dimensions(picture("WEBP", exif=b"Exif\0\0" + bytes(100))) == (321, 123)
    assert dimensions(picture("JPEG", exif=b"Exif\0\0" + bytes(60_000), progressive=True)) == (321, 123)


@pytest.mark.parametrize("kind", KINDS)
def test_one_that_is_cut_off_anywhere_is_no_trouble(kind: str) -> None:
    whole = picture(kind)
    for end in range(min(len(whole), 700)):
        assert dimensions(whole[:end]) in (None, (321, 123))


def test_what_is_no_picture_has_no_size() -> None:
    assert dimensions(b"") is None
    assert dimensions(b"\xff\xd8" + b"\xff" * 100_000) is None
    assert dimensions(b"\x89PNG\r\n\x1a\n" + bytes(100)) is None
    assert dimensions(picture("TIFF")) is None

"""Whatever an artifact was called, it is saved under a name that harms nobody."""

import pytest

from gateway.artifacts.filename import filename, renamed


@pytest.mark.parametrize(
    ("given", "becomes"),
    [
        ("cat.png", "cat.png"),
        ("cat.PNG", "cat.PNG"),
        ("../../etc/passwd", "passwd.png"),
        ("..\\..\\boot.ini", "boot.ini.png"),
        ("/", "art_1.png"),
        ("..", "art_1.png"),
        ("", "art_1.png"),
        ("evil.html", "evil.html.png"),
        ("a\r\nset-cookie: b.png", "a set-cookie_ b.png"),
        ("a\0b.png", "ab.png"),
        ('say "hi";.png', "say _hi_;.png"),
        ("\u202egnp.exe", "gnp.exe.png"),
        ("\ud800.png", "png.png"),
        (".htaccess", "htaccess.png"),
        ("Katze 猫.png", "Katze 猫.png"),
        ("a%0d%0ab.png", "a_0d_0ab.png"),
    ],
)
def test_a_name_is_the_last_part_and_ends_as_its_type(given: str, becomes: str) -> None:
    assert filename(given, "image/png", "art_1") == becomes


@pytest.mark.parametrize("given", ["x" * 5000, "猫" * 5000, "x" * 5000 + ".png", "." * 5000, "😀" * 300 + ".jpeg"])
def test_a_long_name_is_cut_to_what_every_disk_takes(given: str) -> None:
    name = filename(given, "image/png", "art_1")
    assert len(name.encode()) <= 255
    assert name.endswith(".png")


def test_a_type_that_nobody_knows_adds_nothing() -> None:
    assert filename("notes", "application/x-thing", "art_1") == "notes"
    assert filename(None, "application/x-thing", "art_1") == "art_1"


def test_what_was_converted_keeps_its_name_with_another_ending() -> None:
    assert renamed("chair.glb", "model/stl") == "chair.stl"
    assert renamed("a.b.png", "image/jpeg") == "a.b.jpg"
    assert renamed(None, "image/jpeg") is None

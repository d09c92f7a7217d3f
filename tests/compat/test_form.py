"""Forms: read as another reader reads them, sent on byte for byte, refused when they are unsound."""

import io
from contextlib import suppress
from typing import Any

import httpx2
import multipart  # type: ignore[import-untyped]
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compat.canonical.error import InvalidRequest
from compat.form import FIELDS_MAX, read_form

TYPE = "multipart/form-data; boundary=b0undary"


def form(*fields: bytes, end: bytes = b"--b0undary--\r\n") -> bytes:
    return b"".join(b"--b0undary\r\n" + field + b"\r\n" for field in fields) + end


def text(name: bytes, value: bytes) -> bytes:
    return b'Content-Disposition: form-data; name="' + name + b'"\r\n\r\n' + value


def encoded(files: list[Any]) -> tuple[bytes, str]:
    """A form as httpx2, and so the SDKs, write it."""
    request = httpx2.Request("POST", "http://x/", files=files)
    return request.read(), request.headers["content-type"]


def test_fields_keep_their_order_names_files_and_types() -> None:
    body, content_type = encoded(
        [
            ("prompt", (None, "a héron")),
            ("image[]", ("a.png", b"\x89PNG\r\n\x1a\n--\r\n", "image/png")),
            ("image[]", ("b.bin", b"", "application/octet-stream")),
        ]
    )
    read = read_form(body, content_type)
    assert [(f.name, f.filename, f.mime) for f in read.fields] == [
        ("prompt", None, None),
        ("image[]", "a.png", "image/png"),
        ("image[]", "b.bin", "application/octet-stream"),
    ]
    assert read.text(read.fields[0]) == "a héron"
    assert [read.value(f) for f in read.fields[1:]] == [b"\x89PNG\r\n\x1a\n--\r\n", b""]


names = st.text(st.characters(min_codepoint=32, max_codepoint=0x2FF, exclude_characters='"\\\x7f%'), min_size=1)
types = st.sampled_from(["image/png", "text/plain"])
fields = st.lists(
    st.tuples(names, st.one_of(st.none(), names), st.binary(max_size=200), types),
    min_size=1,
    max_size=6,
)


def agreed(body: bytes, content_type: str) -> list[tuple[str, str | None, bytes]]:
    _, options = multipart.parse_options_header(content_type)
    parts = multipart.MultipartParser(io.BytesIO(body), options["boundary"], strict=True).parts()
    return [(part.name, part.filename, part.raw) for part in parts]


@given(fields)
def test_any_form_reads_as_another_reader_reads_it(given_fields: list[tuple[str, str | None, bytes, str]]) -> None:
    files = [(n, (f, v, t)) if f is not None else (n, (None, v)) for n, f, v, t in given_fields]
    body, content_type = encoded(files)
    read = read_form(body, content_type)
    assert [(f.name, f.filename, read.value(f)) for f in read.fields] == agreed(body, content_type)


@given(fields, names)
def test_exchanging_a_value_changes_that_field_alone(
    given_fields: list[tuple[str, str | None, bytes, str]], value: str
) -> None:
    files = [("model", (None, b"old"))] + [("x" + n, (f, v, t)) for n, f, v, t in given_fields]
    for body, content_type in (encoded(files), encoded(files[1:])):
        changed = agreed(read_form(body, content_type).with_text("model", value), content_type)
        rest = [one for one in agreed(body, content_type) if one[0] != "model"]
        assert [one for one in changed if one[0] != "model"] == rest
        assert [one for one in changed if one[0] == "model"] == [("model", None, value.encode())]


@given(st.data())
def test_a_form_cut_anywhere_is_refused_never_read_as_a_shorter_one(data: st.DataObject) -> None:
    whole = form(text(b"prompt", b"hi"), text(b"image", b"\x00\r\n--b0\r\n"))
    cut = data.draw(st.integers(0, len(whole) - 5))
    with pytest.raises(InvalidRequest):
        read_form(whole[:cut], TYPE)


@given(st.binary(max_size=300))
def test_any_bytes_are_a_form_or_are_refused(body: bytes) -> None:
    for candidate in (body, b"--b0undary\r\n" + body, form(body)):
        with suppress(InvalidRequest):
            read = read_form(candidate, TYPE)
            assert all(field.name for field in read.fields)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b"", None),
        (b"{}", None),
        (b"preamble\r\n" + form(text(b"a", b"b")), None),
        (form(text(b"a", b"b"), end=b""), "a"),
        (form(text(b"a", b"b\r\n--b0undaryX")), "a"),
        (form(b"Content-Type: text/plain\r\n\r\nx"), None),
        (form(b'Content-Disposition: attachment; name="a"\r\n\r\nx'), None),
        (form(b'Content-Disposition: form-data; name=""\r\n\r\nx'), None),
        (form(b"\r\nx"), None),
        (form(b"no header\r\n\r\nx"), None),
        (form(b"Content-Disposition: form-data; name=\xff\r\n\r\nx"), None),
        (form(b'Content-Disposition: form-data; name="a"\r\nContent-Transfer-Encoding: base64\r\n\r\nx'), "a"),
        (form(b'Content-Disposition: form-data; name="a"\r\n' * 2 + b"\r\nx"), None),
        (form(b"X: " + b"y" * 9000 + b"\r\n\r\nx"), None),
        (form(*[text(b"a", b"")] * (FIELDS_MAX + 1)), None),
        (form(b'Content-Disposition: form-data; name="a"\r\n--b0undary\r\nX: y\r\n\r\nz'), None),
    ],
)
def test_an_unsound_form_is_refused(body: bytes, param: str | None) -> None:
    with pytest.raises(InvalidRequest) as refused:
        read_form(body, TYPE)
    assert refused.value.param == param


@pytest.mark.parametrize(
    "content_type",
    [
        "multipart/form-data",
        "multipart/form-data; boundary=",
        "multipart/form-data; boundary=a; boundary=b",
        'multipart/form-data; boundary="a\r\nb"',
        "multipart/form-data; boundary=" + "x" * 71,
        "multipart/form-data; boundary=é",
    ],
)
def test_an_unsound_boundary_is_refused(content_type: str) -> None:
    with pytest.raises(InvalidRequest):
        read_form(form(text(b"a", b"b")), content_type)


def test_quoted_names_are_unescaped() -> None:
    body = form(b'Content-Disposition: form-data; name="a\\"b"; filename="c\\\\d;e.png"\r\n\r\nx')
    assert [(f.name, f.filename) for f in read_form(body, TYPE).fields] == [('a"b', "c\\d;e.png")]


def test_a_value_that_contains_the_boundary_is_not_put_in() -> None:
    with pytest.raises(InvalidRequest):
        read_form(form(text(b"model", b"m")), TYPE).with_text("model", "x\r\n--b0undary--")


def test_an_empty_form_is_a_form() -> None:
    read = read_form(b"--b0undary--\r\n", TYPE)
    assert read.fields == ()


@pytest.mark.parametrize("step", [1, 2, 7, 10, 13])
def test_the_steps_in_which_a_body_is_walked_do_not_show(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    body, content_type = encoded([("model", (None, "m")), ("image", ("a", b"\r\n-" * 9 + bytes(30), "image/png"))])
    at_once, changed = read_form(body, content_type), read_form(body, content_type).with_text("model", "other")
    monkeypatch.setattr("compat.form.STEP_BYTES", step)
    assert read_form(body, content_type) == at_once
    assert at_once.with_text("model", "other") == changed

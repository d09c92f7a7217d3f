"""multipart/form-data: a body cut into its fields, in place.

Sources: https://www.rfc-editor.org/rfc/rfc7578 and https://www.rfc-editor.org/rfc/rfc2046#section-5.1.1

A field is a pair of offsets into the body, so a form goes on to a provider as the client's own bytes,
whatever they hold, with at most one value exchanged.  Strict: where two readers could disagree about
what a body says, it is refused.
"""

import re
from io import BytesIO

from msgspec import Struct

from compat.canonical.error import InvalidRequest

FIELDS_MAX = 256
HEADERS_MAX_BYTES = 8 * 1024
"""Of one field."""
STEP_BYTES = 1024 * 1024
"""Bodies are walked in steps, so that in a thread of its own the walk lets other threads go on."""

_boundary = re.compile(r';\s*boundary\s*=\s*(?:"([^"]*)"|([^\s;"]*))', re.IGNORECASE)
_sane_boundary = re.compile(r"[0-9A-Za-z'()+_,./:=? -]{0,69}[0-9A-Za-z'()+_,./:=?-]").fullmatch
_parameter = re.compile(r';\s*([^\s=;]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s;]*))')
_escape = re.compile(r'\\(["\\])')
_PLAIN = ("7bit", "8bit", "binary")


class Field(Struct, frozen=True, kw_only=True):
    name: str
    filename: str | None = None
    """None for what is not a file."""
    mime: str | None = None
    """As the client says."""
    begin: int
    end: int
    """Where the value stands in the body."""


class Form(Struct, frozen=True, kw_only=True):
    body: bytes
    boundary: bytes
    fields: tuple[Field, ...]
    close: int
    """Where the line end before the closing delimiter stands."""

    def value(self, field: Field) -> bytes:
        return self.body[field.begin : field.end]

    def text(self, field: Field) -> str:
        """Raises InvalidRequest."""
        try:
            return self.value(field).decode()
        except UnicodeDecodeError as e:
            raise _wrong(f"the field '{field.name}' is not valid UTF-8", field.name) from e

    def with_text(self, name: str, value: str) -> bytes:
        """The same body with this value for a field, which is added if there is none."""
        data = value.encode()
        if self.boundary in data:
            raise _wrong(f"the field '{name}' contains the boundary", name)
        for field in self.fields:
            if field.name == name:
                return self._spliced(field.begin, data, field.end)
        head = b'\r\n--%s\r\nContent-Disposition: form-data; name="%s"\r\n\r\n' % (self.boundary, name.encode())
        return self._spliced(self.close, head + data, self.close)

    def _spliced(self, begin: int, data: bytes, end: int) -> bytes:
        out, view = BytesIO(), memoryview(self.body)
        for piece in (view[:begin], memoryview(data), view[end:]):
            for at in range(0, len(piece), STEP_BYTES):
                out.write(piece[at : at + STEP_BYTES])
        return out.getvalue()


def read_form(body: bytes, content_type: str) -> Form:
    """Cut a body whose Content-Type header is this one.  Raises InvalidRequest."""
    boundary = _boundary_of(content_type)
    delimiter = b"\r\n--" + boundary
    at = 2 if body.startswith(b"\r\n") else 0
    if not body.startswith(delimiter[2:], at):
        raise _wrong("the body does not begin with the boundary that the Content-Type header names")
    fields: list[Field] = []
    at += len(delimiter) - 2
    while not body.startswith(b"--", at):
        line_end = body.find(b"\r\n", at, at + 128)
        if line_end < 0 or body[at:line_end].strip(b" \t"):
            raise _wrong("a boundary is not followed by the end of its line", fields[-1].name if fields else None)
        if len(fields) == FIELDS_MAX:
            raise _wrong(f"there are more than {FIELDS_MAX} fields")
        begin = body.find(b"\r\n\r\n", line_end, line_end + HEADERS_MAX_BYTES)
        if begin < 0:
            raise _wrong(f"the headers of field number {len(fields) + 1} do not end")
        head, begin = body[line_end + 2 : begin], begin + 4
        if delimiter in head:
            raise _wrong(f"the headers of field number {len(fields) + 1} do not end")
        name, filename, mime = _head(head, len(fields) + 1)
        end = _find(body, delimiter, begin)
        if end < 0:
            raise _wrong(f"the field '{name}' has no end", name)
        fields.append(Field(name=name, filename=filename, mime=mime, begin=begin, end=end))
        at = end + len(delimiter)
    close = at - len(delimiter)
    return Form(body=body, boundary=boundary, fields=tuple(fields), close=max(close, 0))


def _find(body: bytes, what: bytes, begin: int) -> int:
    for at in range(begin, len(body), STEP_BYTES):
        found = body.find(what, at, at + STEP_BYTES + len(what) - 1)
        if found >= 0:
            return found
    return -1


def _boundary_of(content_type: str) -> bytes:
    found: list[str] = [quoted or bare for quoted, bare in _boundary.findall(content_type)]
    if len(found) != 1 or not _sane_boundary(found[0]):
        raise _wrong("the Content-Type header does not name one sound boundary")
    return found[0].encode()


def _head(head: bytes, position: int) -> tuple[str, str | None, str | None]:
    """A field's name, file name and media type."""
    try:
        lines = head.decode().split("\r\n")
    except UnicodeDecodeError as e:
        raise _wrong(f"the headers of field number {position} are not valid UTF-8") from e
    disposition, mime, encoding = None, None, "binary"
    for line in lines:
        key, colon, value = line.partition(":")
        match key.strip().lower():
            case "content-disposition":
                if disposition is not None:
                    raise _wrong(f"field number {position} has more than one Content-Disposition header")
                disposition = value.strip()
            case "content-type":
                mime = value.strip().lower() or None
            case "content-transfer-encoding":
                encoding = value.strip().lower()
            case _ if not colon:
                raise _wrong(f"field number {position} has a line that is no header")
    kind, _, _ = (disposition or "").partition(";")
    parameters = {
        key.lower(): _escape.sub(r"\1", quoted) if quoted else bare
        for key, quoted, bare in _parameter.findall(disposition or "")
    }
    name = parameters.get("name")
    if kind.strip().lower() != "form-data" or not name:
        raise _wrong(f"field number {position} has no name")
    if encoding not in _PLAIN:
        raise _wrong(f"the field '{name}' has a Content-Transfer-Encoding", name)
    return name, parameters.get("filename", parameters.get("filename*")), mime


def _wrong(what: str, param: str | None = None) -> InvalidRequest:
    return InvalidRequest(f"The multipart body is malformed: {what}.", param=param, code="invalid_multipart")

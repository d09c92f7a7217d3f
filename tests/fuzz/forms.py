"""multipart/form-data: sound forms for /v1/images/edits, with what senders get wrong and what attackers get right."""

from random import Random

from tests.fuzz.ask import Ask, Key
from tests.fuzz.bodies import MODELS
from tests.fuzz.stage import MISBEHAVING

Part = tuple[list[bytes], bytes]
"""The lines of a part's head, and its value."""

PNG = b"\x89PNG\r\n\x1a\n\x00\xff--\r\n picture"
_NAMES = (
    b'"model"', b"model", b'"image"', b'"image[]"', b'"mask"', b'"prompt"', b'"n"', b'"stream"', b'"api_key"',
    b'"base_url"',
    b'"response_format"', b'""', b"", b'"a\\"b"', b'"a"b"', b"'model'", b'"mod\\el"', b'"model\r\n"', b'"\xc3\xa9"',
    b'"\xff"',
    b'"model";name="prompt"', b'"a;b=c"', b'"%6dodel"', b'"' + b"x" * 3000 + b'"', b'"\x00"', b'"model" ', b'"MODEL"',
)  # fmt: skip
_FILENAMES = (
    b'; filename="a.png"', b"; filename=a.png", b'; filename="a\\"b.png"', b'; filename="a"b.png"', b'; filename=""',
    b"; filename", b'; filename*=UTF-8\'\'%e2%82%ac.png', b'; filename="\xff.png"', b'; filename="../../x"',
    b'; filename="a;b"', b'; filename="C:\\dir\\a.png"', b'; filename="a\\', b'; filename="a\r\nb"',
    b';filename="a.png";',
    b'; filename="' + b"y" * 7000 + b'"', b'; filename="a"; filename="b"',
)  # fmt: skip
_LINES = (
    b"Content-Type: image/png", b"Content-Type:", b"content-type", b"Content-Type: application/json; charset=utf-8",
    b"Content-Transfer-Encoding: base64", b"Content-Transfer-Encoding: binary", b"X-Odd: " + b"z" * 9000, b": x",
    b" folded",
    b'Content-Disposition: form-data; name="model"', b'Content-Disposition: attachment; name="model"', b"\xff: \xfe",
    b"X: \x00",
    b"X-Many: 1\r\nX-Many: 2",
)  # fmt: skip
_VALUES = (
    b"", b"1", b"0", b"-1", b"1e9", b"99999999999999999999", b"9" * 5000, b"NaN", b"true", b"false", b"TRUE", b"null",
    b"{}", b"\xff\xfe",
    b"\x00", b"b64_json", b"1024x1024", b"0x0", b"auto", b"\r\n", b"\r\n--", b"--b\r\n", b"\r\n--bound",
    b"x" * 20_000, PNG,
)  # fmt: skip
_BOUNDARIES = (
    b"boundary=bound", b'boundary="bound"', b"BOUNDARY=bound", b"boundary=bound; boundary=other", b"boundary=other",
    b"boundary=",
    b'boundary="', b'boundary=""', b"boundary", b"", b"boundary=b\xffd", b"boundary=" + b"b" * 71,
    b"boundary=bound;charset=utf-8",
    b"charset=utf-8; boundary=bound", b'x="; boundary=other"; boundary=bound', b"boundary =bound", b"boundary= bound",
    b"boundary=bo und",
)  # fmt: skip
_MEDIA = (
    b"multipart/form-data", b"Multipart/Form-Data", b"multipart/mixed", b"multipart/form-data ", b"application/json",
    b"application/x-www-form-urlencoded", b"multipart/", b"text/plain",
)  # fmt: skip


def field(name: bytes, value: bytes, filename: bytes = b"") -> Part:
    lines = [b"Content-Disposition: form-data; name=%s%s" % (name, filename)]
    return ([*lines, b"Content-Type: image/png"] if filename else lines), value


def sound(chance: Random) -> list[Part]:
    model = chance.choice(MODELS) if chance.random() < 0.85 else "up/" + chance.choice(MISBEHAVING)
    parts = [
        field(b'"model"', model.encode()),
        field(b'"image"', PNG, b'; filename="a.png"'),
        field(b'"prompt"', b"more birds"),
    ]
    if chance.random() < 0.5:
        parts.append(field(b'"stream"', b"true"))
    if chance.random() < 0.3:
        parts += [field(b'"n"', b"1"), field(b'"size"', b"auto"), field(b'"mask"', PNG, b'; filename="m.png"')]
    return parts


def mutate(parts: list[Part], chance: Random) -> None:
    """One change to a form's parts."""
    at = chance.randrange(len(parts)) if parts else 0
    lines, value = parts[at] if parts else field(b'"x"', b"")
    match chance.randrange(9):
        case 0:
            del parts[at : at + 1]
        case 1:
            parts[at : at + 1] = [(lines, value)] * chance.choice((2, 3, 300))
        case 2:
            parts.append(field(chance.choice(_NAMES), chance.choice(_VALUES)))
        case 3:
            parts.append(field(chance.choice(_NAMES), chance.choice(_VALUES), chance.choice(_FILENAMES)))
        case 4:
            parts[at : at + 1] = [(lines, chance.choice(_VALUES))]
        case 5:
            parts[at : at + 1] = [([*lines, chance.choice(_LINES)], value)]
        case 6:
            parts[at : at + 1] = [([chance.choice(_LINES), *lines], value)]
        case 7:
            parts[at : at + 1] = [(lines[1:], value)]
        case _:
            chance.shuffle(parts)


def written(parts: list[Part], chance: Random) -> bytes:
    pieces = [b"--bound\r\n%s\r\n\r\n%s\r\n" % (b"\r\n".join(lines), value) for lines, value in parts]
    body = b"".join((*pieces, b"--bound--\r\n"))
    if chance.random() < 0.7:
        return body
    at = chance.randrange(len(body) + 1)
    match chance.randrange(8):
        case 0:
            return body[:at]
        case 1:
            return body.replace(b"\r\n", b"\n")
        case 2:
            return chance.choice((b"\r\n", b"preamble\r\n", b"\n", b" ")) + body
        case 3:
            return body + chance.choice((b"epilogue", b"\r\n", body))
        case 4:
            return body.replace(
                b"--bound--\r\n", chance.choice((b"", b"--bound", b"--bound-", b"--bound--", b"--bound  --"))
            )
        case 5:
            return body[:at] + bytes([chance.randrange(256)]) + body[at + 1 :]
        case 6:
            return body.replace(b"--bound\r\n", b"--bound \t\r\n")
        case _:
            return body[:at] + b"\r\n--bound" + body[at:]


def ask(chance: Random) -> Ask:
    """A request whose body says it is a form."""
    parts = sound(chance)
    for _ in range(chance.choice((0, 1, 1, 2, 3))):
        mutate(parts, chance)
    media, boundary = b"multipart/form-data", b"boundary=bound"
    if chance.random() < 0.15:
        boundary = chance.choice(_BOUNDARIES)
    if chance.random() < 0.05:
        media = chance.choice(_MEDIA)
    target = b"/v1/images/edits"
    if chance.random() < 0.05:
        target = chance.choice((b"/v1/chat/completions", b"/v1/images/generations", b"/v1/messages"))
    locked = chance.random() < 0.3
    return Ask(
        target=target,
        headers=((b"content-type", b"%s; %s" % (media, boundary)),),
        body=written(parts, chance),
        locked=locked,
        key=Key.PLAIN if locked else Key.NONE,
    )

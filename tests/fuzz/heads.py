"""What comes before the body: methods, targets, headers, and how long the body is said to be."""

from random import Random

from tests.fuzz.ask import JSON, Ask, Header, Key
from tests.fuzz.bodies import MODELS
from tests.gateway.conftest import APP_KEY

TARGETS = (
    b"/v1/chat/completions", b"/v1/completions", b"/v1/embeddings", b"/v1/rerank", b"/v1/responses",
    b"/v1/images/generations", b"/v1/images/edits", b"/v1/messages", b"/v1/messages/count_tokens", b"/v1/generate",
    b"/v1/models", b"/v1/models/fake/fake", b"/v1/models/fake%2Ffake", b"/v1/responses/resp_0",
    b"/v1/responses/resp_0/input_items",
    b"/v1/responses/resp_0/cancel",
    b"/health", b"/ready", b"/metrics", b"/openapi.json", b"/docs", b"/docs/", b"/docs/openapi.json",
    b"/docs/assets/swagger-ui.css",
    b"/docs/assets/..%2f..%2fdoor.py", b"/", b"/v1", b"/v1/", b"/favicon.ico",
)  # fmt: skip
GENERATING = TARGETS[:10]
METHODS = (
    b"GET", b"POST", b"PUT", b"DELETE", b"PATCH", b"HEAD", b"OPTIONS", b"TRACE", b"PROPFIND", b"LOCK", b"SEARCH",
    b"CONNECT",
    b"PRI", b"get", b"G", b"X" * 40, b"GET\x00", b"M-SEARCH", b"QUERY",
)  # fmt: skip
_PIECES = (
    b"/", b"//", b"/.", b"/..", b"/../", b"%00", b"%2e%2e/", b"%2f", b"%2F", b"%5c", b"%ff", b"%c3%a9", b"%ed%a0%80",
    b"%", b"%zz",
    b"%2", b"%0d%0a", b"%0D%0AX-Evil:%20yes", b"%25", b"%2525", b";", b";a=b", b"?", b"#x", b"#", b"*", b"~", b"{id}",
    b"\\", b"'",
    b'"', b"<script>", b"a" * 300, b"a" * 9000, b"/x" * 200, b"\xc3\xa9", b"\xff", b"\x01", b"\x7f", b"@", b":",
    b"%E2%80%AE",
)  # fmt: skip
_QUERIES = (
    b"?", b"?stream=true", b"?stream=true&stream=false", b"?starting_after=-1",
    b"?starting_after=99999999999999999999", b"?limit=0", b"?limit=" + b"9" * 5000,
    b"?stream=true&starting_after=" + b"9" * 5000,
    b"?limit=abc&limit=1", b"?limit=%00", b"?order=up", b"?after=%ff", b"?modality=%zz",
    b"?modality=text&backend=fake", b"?backend=",
    b"?after_id=%ed%a0%80&before_id=x", b"?a=" + b"b" * 9000, b"?" + b"a&" * 2000, b"?%", b"?%ff=%fe", b"?=&==&",
    b"?include[]=x",
    b"?api_key=x", b"?a[b][c]=d", b"?\xff", b"?a=b?c=d", b"?limit=%F0%9F%98%80", b"?include=a&include=b",
    b"?limit=1&limit=2",
)  # fmt: skip
_VALUES = (
    b"", b" ", b"0", b"1", b"-1", b"nan", b"inf", b"1e3", b"1e-9", b"1e999", b"0x10", b"1_0", b"true", b"TRUE",
    b"false", b"a, b",
    b"\xff", b"\xc3\xa9", b"a" * 200, b"a" * 20_000, b'"', b"'", b"${jndi:ldap://x}", b"../..", b"%0d%0a", b"\t",
    b"a\tb", b"\x01",
    b"\x7f", b"null", b"*/*", b"none", b"2023-06-01", b"\xd9\xa3",
)  # fmt: skip
_NAMED: dict[bytes, tuple[bytes, ...]] = {
    b"x-request-timeout": (b"5", b"0.5", b"0.000001", b"1e-300", b"86400", b"86399", b"+5", b"5s", b"\xd9\xa3", b"1_0"),
    b"x-request-id": (b"mine-1", b"a b", b"a" * 128, b"a" * 129, b"x\xffy", b"<b>", b"0"),
    b"x-gateway-strict": (b"true", b"yes", b"1"),
    b"x-gateway-explain": (b"true", b"yes"),
    b"x-gateway-selection-mode": (b"local_only", b"free_only", b"commercial_only", b"auto", b"AUTO", b"x"),
    b"content-type": (
        b"application/json", b"application/json; charset=utf-16", b"application/problem+json", b"+json",
        b"text/plain", b"json",
        b"application/json, text/html", b"APPLICATION/JSON", b";", b"multipart/form-data",
        b"multipart/form-data; boundary=x",
    ),
    b"content-encoding": (b"gzip", b"deflate", b"br", b"identity", b"gzip, gzip", b"GZIP"),
    b"host": (b"localhost", b"evil.example", b"127.0.0.1:80", b"127.0.0.1:99999999", b"[::1]", b"[::1",
    b"127.0.0.1@x", b"a b"),
    b"origin": (b"null", b"http://evil.example", b"http://127.0.0.1", b"http://[::1", b"http://[", b"http://]",
    b"://", b"http://a b"),
    b"anthropic-version": (b"2023-06-01", b"1"),
    b"anthropic-beta": (b"a,b", b"x" * 500, b"\xff"),
    b"openai-beta": (b"responses=v1",),
    b"openai-organization": (b"org",),
    b"expect": (b"100-continue", b"200-ok"),
    b"upgrade": (b"h2c", b"websocket"),
    b"connection": (b"upgrade", b"close", b"keep-alive, upgrade"),
    b"accept": (b"text/event-stream", b"application/json;q=0", b"image/png"),
    b"accept-encoding": (b"gzip", b"identity;q=0, *;q=0"),
    b"cookie": (b"a=b", b"a=\xff; ;=;", b"=" * 4000),
    b"range": (b"bytes=0-", b"bytes=9-1"),
    b"if-none-match": (b"*",),
    b"x-forwarded-for": (b"1.2.3.4",),
    b"forwarded": (b"for=x",),
    b"idempotency-key": (b"k",),
    b"prefer": (b"respond-async",),
    b"access-control-request-method": (b"POST",),
    b"authorization": (b"Bearer", b"bearer  x", b"Bearer a b", b"Negotiate x", b"Bearer " + b"k" * 9000,
    b"Bearer \xff"),
    b"x-api-key": (b"k", APP_KEY.encode() + b" ", APP_KEY.upper().encode()),
    b"api-key": (b"k", b""),
}  # fmt: skip
_FRAMINGS: tuple[tuple[Header, ...], ...] = (
    (),
    ((b"content-length", b"0"),),
    ((b"content-length", b"-1"),),
    ((b"content-length", b"+5"),),
    ((b"content-length", b"5, 5"),),
    ((b"content-length", b"abc"),),
    ((b"content-length", b"10"),),
    ((b"content-length", b"10"), (b"content-length", b"11")),
    ((b"content-length", b"10"), (b"content-length", b"10")),
    ((b"content-length", b"999999"),),
    ((b"content-length", b"1000001"),),
    ((b"content-length", b"99999999999999999999999"),),
    ((b"content-length", b"0x10"),),
    ((b"content-length", b"\xb2"),),
    ((b"transfer-encoding", b"chunked"),),
    ((b"transfer-encoding", b"chunked"), (b"content-length", b"10")),
    ((b"transfer-encoding", b"chunked, chunked"),),
    ((b"transfer-encoding", b"gzip, chunked"),),
    ((b"transfer-encoding", b"identity"),),
    ((b"transfer-encoding", b"xchunked"),),
    ((b"transfer-encoding", b"chunked"), (b"transfer-encoding", b"identity")),
    ((b"transfer-encoding", b"\x0bchunked"),),
)
_CHUNKS = (
    b"5\r\nhello\r\n0\r\n\r\n", b"5\r\nhell\r\n0\r\n\r\n", b"0\r\n\r\n", b"0\r\n", b"-1\r\n",
    b"ffffffffffffffffff\r\nx", b"zz\r\n",
    b"5;ext=1\r\nhello\r\n0\r\nTrailer: x\r\n\r\n", b"5;" + b"e" * 9000 + b"\r\nhello\r\n0\r\n\r\n",
    b"0x5\r\nhello\r\n0\r\n\r\n",
    b"5\nhello\n0\n\n", b"1\r\n{\r\n" * 2000 + b"0\r\n\r\n",
    b"0\r\nContent-Length: 5\r\nHost: evil\r\n\r\nGET / HTTP/1.1\r\n\r\n",
)  # fmt: skip
_LINES = (
    b"no colon", b": no name", b"sp ace: x", b"x : y", b" folded", b"\tfolded", b"x:y\x00z", b"\xff: x",
    b"x: y\nz: w", b"x: y\rz",
    b"", b"\r\nGET /health HTTP/1.1", b"Host: evil.example", b"h: " + b"v" * 40_000, b"Transfer-Encoding : chunked",
    b"\x00", b"(x): y",
    b"a: b\r\n" * 150 + b"c: d",
)  # fmt: skip
_VERSIONS = (
    b"HTTP/1.0",
    b"HTTP/0.9",
    b"HTTP/2.0",
    b"HTTP/1.2",
    b"HTTP/9",
    b"http/1.1",
    b"",
    b"HTTP/1.1 x",
    b"HTTP/11.1",
)


def target(chance: Random) -> bytes:
    """A path, sound or not, and perhaps a query."""
    path = chance.choice(TARGETS)
    for _ in range(chance.choice((0, 0, 1, 1, 2))):
        at = chance.choice((0, len(path), chance.randrange(len(path) + 1)))
        match chance.randrange(5):
            case 0:
                path = path[:at] + b"".join(b"%%%02x" % byte for byte in path[at : at + 2]) + path[at + 2 :]
            case 1:
                path = path.upper()
            case 2:
                path = path[:at]
            case _:
                path = path[:at] + chance.choice(_PIECES) + path[at:]
    if chance.random() < 0.3:
        path += chance.choice(_QUERIES)
    if chance.random() < 0.05:
        path = chance.choice(
            (b"*", b"http://127.0.0.1/health", b"//evil/health", b"127.0.0.1:80", b"", b"health", b"/ /", b"\xff")
        )
    return path


def headers(chance: Random) -> tuple[Header, ...]:
    found: list[Header] = []
    for _ in range(chance.choice((0, 1, 1, 2, 3))):
        name = chance.choice(sorted(_NAMED))
        values = _NAMED[name] if chance.random() < 0.6 else _VALUES
        found += [(name, chance.choice(values))] * (2 if chance.random() < 0.05 else 1)
    if chance.random() < 0.03:
        found += [(b"x-%d" % n, b"y") for n in range(chance.choice((60, 99, 100, 500)))]
    return tuple(found)


def body(chance: Random) -> bytes:
    if chance.random() < 0.5:
        return b""
    model, stream = chance.choice(MODELS).encode(), chance.choice((b"true", b"false"))
    return (
        b'{"model":"%s","stream":%s,"max_tokens":5,"input":"x","prompt":"x",' % (model, stream)
        + b'"messages":[{"role":"user","content":"x"}]}'
    )


def _rest(chance: Random, of: bytes) -> tuple[Header, ...]:
    given = headers(chance)
    typed = any(name == b"content-type" for name, _ in given)
    return given if typed or not of else (JSON, *given)


def asked_elsewhere(chance: Random) -> Ask:
    """Any method on any target."""
    said = body(chance) if chance.random() < 0.5 else b""
    method, key = chance.choice(METHODS), chance.choice(list(Key))
    if chance.random() < 0.4:
        method = b"GET"
    return Ask(
        method=method,
        target=target(chance),
        headers=_rest(chance, said) if chance.random() < 0.3 else ((JSON,) if said else ()),
        body=said,
        locked=chance.random() < 0.4,
        key=key,
        sure=False,
    )


def asked_oddly(chance: Random) -> Ask:
    """A sound method and target, with odd headers."""
    said, place = body(chance), chance.choice(TARGETS)
    method = chance.choice((b"GET", b"DELETE")) if place not in GENERATING and chance.random() < 0.9 else b"POST"
    given = _rest(chance, said)
    hosts = sum(name == b"host" for name, _ in given)
    return Ask(
        method=method,
        target=place,
        headers=given,
        body=said,
        locked=chance.random() < 0.5,
        key=chance.choice(list(Key)),
        host=None if hosts or chance.random() < 0.02 else b"127.0.0.1",
        sure=all(name not in (b"connection", b"upgrade", b"expect") for name, _ in given),
    )


def asked_falsely(chance: Random) -> Ask:
    """A request whose length, version or lines cannot be trusted."""
    framing = chance.choice(_FRAMINGS)
    said = chance.choice(_CHUNKS) if any(value.endswith(b"chunked") for _, value in framing) else body(chance)
    if chance.random() < 0.2:
        said = b"%x\r\n%s\r\n0\r\n\r\n" % (len(said), said)
    return Ask(
        target=chance.choice(GENERATING),
        headers=_rest(chance, b"x"),
        body=said,
        framing=framing if chance.random() < 0.8 else None,
        extra=tuple(chance.choice(_LINES) for _ in range(chance.choice((0, 0, 1, 2)))),
        sure=False,
        version=chance.choice(_VERSIONS) if chance.random() < 0.15 else b"HTTP/1.1",
        locked=chance.random() < 0.3,
        key=chance.choice((Key.GOOD, Key.NONE)),
    )

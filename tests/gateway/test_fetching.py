"""Pictures by URL: what is fetched, what is not, and how little is told of why."""

import asyncio
import gzip
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohappyeyeballs
import pytest

from backends import http1
from backends.fake import _picture
from compat.canonical.error import InvalidRequest, TimedOut
from compat.canonical.message import Media
from gateway.fetching import Fetcher
from gateway.keeping import Fetch
from tests.deployment.certificates import Authority

PNG = _picture("a hat")
MOST = 4096

Reply = Callable[[asyncio.StreamWriter], Awaitable[None]]


class Site:
    """A server of pictures on loopback, which remembers what it was asked."""

    def __init__(self) -> None:
        self.heads: list[str] = []
        self.connections = 0
        self.left = asyncio.Event()
        """A client has hung up before its answer was whole."""
        self.replies: dict[str, Reply] = {}
        self.url = ""
        self.port = 0

    def say(self, path: str, body: bytes = PNG, status: str = "200 OK", **headers: str) -> None:
        given = {"content-length": str(len(body))} | {name.replace("_", "-"): value for name, value in headers.items()}
        head = "\r\n".join([f"HTTP/1.1 {status}", *(f"{k}: {v}" for k, v in given.items()), "", ""])

        async def reply(writer: asyncio.StreamWriter) -> None:
            writer.write(head.encode() + body)

        self.replies[path] = reply

    async def met(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            self.heads.append(head)
            work = asyncio.ensure_future(self.replies[head.split(" ")[1]](writer))
            gone = asyncio.ensure_future(reader.read())
            await asyncio.wait((work, gone), return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                self.left.set()
                work.cancel()
            gone.cancel()
            await asyncio.gather(work, gone, return_exceptions=True)
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            self.left.set()
        finally:
            writer.close()


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    found = Site()
    server = await asyncio.start_server(found.met, "127.0.0.1", 0)
    found.port = server.sockets[0].getsockname()[1]
    found.url = f"http://127.0.0.1:{found.port}"
    yield found
    server.close()


def fetcher(site: Site | None = None, *, timeout_s: float = 5.0) -> Fetcher:
    allow = () if site is None else (f"{site.url}/pictures",)
    return Fetcher(Fetch(allow=allow, max_bytes=MOST, timeout_s=timeout_s))


async def fetched(by: Fetcher, url: str) -> Media:
    return await by.picture(url, "input.images[0]", asyncio.get_running_loop().time() + 10)


async def refused(by: Fetcher, url: str) -> str:
    with pytest.raises(InvalidRequest) as caught:
        await fetched(by, url)
    assert (caught.value.status, caught.value.param) == (400, "input.images[0]")
    assert caught.value.code == "invalid_image_url"
    assert "input.images[0]" in caught.value.message
    return caught.value.message


def resolving(monkeypatch: pytest.MonkeyPatch, *answers: list[str]) -> list[str]:
    """Have names resolve to these, one answer after the other, the last for ever; the names that were asked for."""
    asked: list[str] = []

    async def resolve(host: str, port: int, **_: Any) -> list[Any]:
        found = answers[min(len(asked), len(answers) - 1)]
        asked.append(host)
        families = [
            (socket.AF_INET6, (one, port, 0, 0)) if ":" in one else (socket.AF_INET, (one, port)) for one in found
        ]
        return [(family, socket.SOCK_STREAM, 6, "", address) for family, address in families]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", resolve)
    return asked


HOSTILE = [
    "http://pictures.example/a.png",
    "http://127.0.0.1/a.png",
    "https://127.0.0.1/a.png",
    "https://127.0.0.1:8443/a.png",
    "https://127.1/a.png",
    "https://127.0.1/a.png",
    "https://2130706433/a.png",
    "https://0x7f000001/a.png",
    "https://0x7f.0x0.0x0.0x1/a.png",
    "https://0177.0.0.1/a.png",
    "https://017700000001/a.png",
    "https://127.0.0.1./a.png",
    "https://0/a.png",
    "https://0.0.0.0/a.png",
    "https://10.0.0.5/a.png",
    "https://172.16.0.1/a.png",
    "https://192.168.1.1/a.png",
    "https://100.64.0.1/a.png",
    "https://100.100.100.200/latest/meta-data",
    "https://169.254.169.254/latest/meta-data",
    "https://168.63.129.16/metadata",
    "https://192.0.0.192/a.png",
    "https://192.0.2.1/a.png",
    "https://198.18.0.1/a.png",
    "https://224.0.0.1/a.png",
    "https://255.255.255.255/a.png",
    "https://[::]/a.png",
    "https://[::1]/a.png",
    "https://[0:0:0:0:0:0:0:1]/a.png",
    "https://[::127.0.0.1]/a.png",
    "https://[::ffff:127.0.0.1]/a.png",
    "https://[::ffff:7f00:1]/a.png",
    "https://[::ffff:8.8.8.8]/a.png",
    "https://[64:ff9b::7f00:1]/a.png",
    "https://[64:ff9b::8.8.8.8]/a.png",
    "https://[2002:7f00:1::]/a.png",
    "https://[2001::1]/a.png",
    "https://[fe80::1]/a.png",
    "https://[fe80::1%25lo]/a.png",
    "https://[fc00::1]/a.png",
    "https://[fd00:ec2::254]/a.png",
    "https://[ff02::1]/a.png",
    "https://[::1/a.png",
    "https://localhost/a.png",
    "https://localhost./a.png",
    "https://LOCALHOST/a.png",
    "https://metadata.google.internal/computeMetadata/v1",
    "https://inside.example/a.png",
    "https://inside.example./a.png",
    "https://user@inside.example/a.png",
    "https://user:password@inside.example/a.png",
    "https://public.example@127.0.0.1/a.png",
    "https://public.example\\@127.0.0.1/a.png",
    "https://127.0.0.1\\.public.example/a.png",
    "https://127.0.0.1#@public.example/a.png",
    "https://127.0.0.1?@public.example/a.png",
    "https://127.0.0.1%00.public.example/a.png",
    "https://127%2e0%2e0%2e1/a.png",
    "https://%6c%6f%63%61%6c%68%6f%73%74/a.png",
    "https://public.example:22/a.png",
    "https://public.example:0/a.png",
    "https://public.example:80/a.png",
    "https://public.example:99999/a.png",
    "https://public.example:x/a.png",
    "https://１２７.０.０.１/a.png",
    "https://ⓛocalhost/a.png",
    "https://127。0。0。1/a.png",
    "https://bücher.example/a.png",
    "https://a..example/a.png",
    "https://" + "a" * 64 + ".example/a.png",
    "https:///a.png",
    "https://",
    "https:127.0.0.1/a.png",
    "//127.0.0.1/a.png",
    "/etc/passwd",
    "file:///etc/passwd",
    "ftp://public.example/a.png",
    "gopher://127.0.0.1:6379/_FLUSHALL",
    "javascript:alert(1)",
    "dict://127.0.0.1/",
    "https://public.example/a.png\r\nhost: 127.0.0.1",
    "https://public.example/a b.png",
    "https://public.example/a\tb.png",
    "https://public.example/a.png\0",
    " https://public.example/a.png",
    "HTTPS ://public.example/",
    "https://public.example/" + "a" * 9000,
    "",
]


@pytest.mark.parametrize("url", HOSTILE, ids=[str(n) for n in range(len(HOSTILE))])
async def test_no_address_leads_inside(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every name there is leads to this machine here: still nobody is connected to."""
    resolving(monkeypatch, ["127.0.0.1"])
    connected: list[Any] = []

    async def connect(*given: Any, **_: Any) -> socket.socket:
        connected.append(given)
        raise OSError

    monkeypatch.setattr(aiohappyeyeballs, "start_connection", connect)
    monkeypatch.setattr(asyncio.get_running_loop(), "create_connection", connect)
    await refused(fetcher(), url)
    assert connected == []


def test_there_are_sixty_of_them() -> None:
    assert len(set(HOSTILE)) >= 60


async def test_what_the_operator_allows_is_fetched(site: Site) -> None:
    site.say("/pictures/a.png?v=1&x=%2F", content_type="text/html", set_cookie="a=b")
    for _ in range(2):
        picture = await fetched(fetcher(site), f"{site.url}/pictures/a.png?v=1&x=%2F#top")
        assert picture == Media(mime="image/png", data=PNG), "by its bytes, whatever its server calls it"
    lines = site.heads[1].strip().lower().split("\r\n")
    assert lines[0] == "get /pictures/a.png?v=1&x=%2f http/1.1"
    assert sorted(line.partition(":")[0] for line in lines[1:]) == [
        "accept", "accept-encoding", "connection", "host", "user-agent",
    ]  # fmt: skip
    assert "accept-encoding: identity" in lines


@pytest.mark.parametrize(
    "path", ["/a.png", "/pictures2/a.png", "/pictures/../a.png", "/pictures/%2e%2e/a", "/pictures//a"]
)
async def test_and_nothing_beside_it(site: Site, path: str) -> None:
    site.say(path)
    await refused(fetcher(site), f"{site.url}{path}")
    assert site.connections == 0


@pytest.fixture
def secured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """The context of a server for public.example that this process trusts."""
    authority = Authority(tmp_path)
    monkeypatch.setattr(http1, "trust", authority.trusting)
    return authority.issue("public.example", "other.example").context()


async def secure_site(secured: ssl.SSLContext) -> tuple[Site, asyncio.Server, list[str]]:
    names: list[str] = []
    secured.sni_callback = lambda _socket, name, _context: names.append(str(name))
    found = Site()
    server = await asyncio.start_server(found.met, "127.0.0.1", 0, ssl=secured)
    found.port = server.sockets[0].getsockname()[1]
    return found, server, names


def led(monkeypatch: pytest.MonkeyPatch, port: int) -> list[str]:
    """Have connections end at a port of this machine; the addresses that they were meant for."""
    meant: list[str] = []

    async def connect(found: list[Any], **_: Any) -> socket.socket:
        meant.extend(one[4][0] for one in found)
        sock = socket.socket()
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
        return sock

    monkeypatch.setattr(aiohappyeyeballs, "start_connection", connect)
    return meant


async def test_a_name_is_resolved_once_and_held_to(secured: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch) -> None:
    site, server, names = await secure_site(secured)
    site.say("/a.png")
    asked = resolving(monkeypatch, ["1.1.1.1"], ["127.0.0.1"])
    meant = led(monkeypatch, site.port)
    assert (await fetched(fetcher(), "https://public.example/a.png")).data == PNG
    assert (asked, meant, names) == (["public.example"], ["1.1.1.1"], ["public.example"])
    assert "host: public.example\r\n" in site.heads[0]
    await refused(fetcher(), "https://public.example/a.png")
    assert meant == ["1.1.1.1"], "what it says the second time is looked at anew"
    server.close()


async def test_one_private_address_among_public_ones_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    resolving(monkeypatch, ["1.1.1.1", "::1"])
    meant = led(monkeypatch, 9)
    await refused(fetcher(), "https://public.example/a.png")
    assert meant == []


async def test_somebody_elses_certificate_is_not_believed(
    secured: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    site, server, _ = await secure_site(secured)
    resolving(monkeypatch, ["1.1.1.1"])
    led(monkeypatch, site.port)
    await refused(fetcher(), "https://stranger.example/a.png")
    assert site.heads == []
    server.close()


@pytest.mark.parametrize(
    ("location", "sees"),
    [
        ("https://other.example/b.png", True),
        ("//other.example/b.png", True),
        ("b.png", True),
        ("https://169.254.169.254/b.png", False),
        ("https://localhost/b.png", False),
        ("https://user@other.example/b.png", False),
        ("http://other.example/b.png", False),
        ("file:///etc/passwd", False),
        ("", False),
        ("https://b\u00fccher.example/b.png", False),
    ],
)
async def test_where_it_leads_on_is_looked_at_anew(
    secured: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch, location: str, sees: bool
) -> None:
    site, server, _ = await secure_site(secured)
    site.say("/a.png", b"", "302 Found", **({"location": location} if location else {}))
    site.say("/b.png")
    resolving(monkeypatch, ["1.1.1.1"], ["127.0.0.1"] if "localhost" in location else ["1.1.1.1"])
    led(monkeypatch, site.port)
    if sees:
        assert (await fetched(fetcher(), "https://public.example/a.png")).data == PNG
    else:
        why = await refused(fetcher(), "https://public.example/a.png")
        assert "no picture could be fetched" in why
        assert location not in why or not location
        assert len(site.heads) == 1
    server.close()


async def test_never_from_https_to_http_even_where_that_is_allowed(
    secured: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch, site: Site
) -> None:
    site.say("/pictures/b.png")
    secure, server, _ = await secure_site(secured)
    secure.say("/a.png", b"", "301 Moved", location=f"{site.url}/pictures/b.png")
    resolving(monkeypatch, ["1.1.1.1"])
    led(monkeypatch, secure.port)
    await refused(fetcher(site), "https://public.example/a.png")
    assert site.connections == 0
    server.close()


async def test_it_is_led_on_three_times_and_no_more(site: Site) -> None:
    for n in range(4):
        site.say(f"/pictures/{n}", b"", "307 Moved", location=f"{n + 1}")
    site.say("/pictures/4")
    assert (await fetched(fetcher(site), f"{site.url}/pictures/1")).data == PNG
    assert "more than 3 times" in await refused(fetcher(site), f"{site.url}/pictures/0")


async def test_what_cannot_be_reached_is_all_told_alike(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused, private, unknown, silent, cut off, no HTTP, led astray: the network is nobody's to explore."""

    async def silence(_: asyncio.StreamWriter) -> None:
        await asyncio.sleep(60)

    async def nonsense(writer: asyncio.StreamWriter) -> None:
        writer.write(b"+PONG\r\n" * 10)

    async def cut(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nx")

    site.replies |= {"/pictures/silent": silence, "/pictures/odd": nonsense, "/pictures/cut": cut}
    site.say("/pictures/astray", b"", "302 Found", location="http://169.254.169.254/latest/meta-data/")
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{closed.getsockname()[1]}"
        by = Fetcher(Fetch(allow=(f"{site.url}/pictures", nobody), timeout_s=0.3))
        told = {await refused(by, f"{site.url}/pictures/{path}") for path in ("silent", "odd", "cut", "astray")}
        told.add(await refused(by, f"{nobody}/a.png"))
    resolving(monkeypatch, ["10.0.0.1"])
    told.add(await refused(by, "https://inside.example/a.png"))

    async def unknown(*_: Any, **__: Any) -> list[Any]:
        raise socket.gaierror(socket.EAI_NONAME, "unknown")

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", unknown)
    told.add(await refused(by, "https://nowhere.example/a.png"))
    assert len(told) == 1, told


async def test_a_trickle_ends_with_the_time_there_is(site: Site) -> None:
    async def trickle(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 4000\r\n\r\n")
        while True:
            writer.write(b"x")
            await asyncio.sleep(0.02)

    site.replies["/pictures/slow"] = trickle
    began = asyncio.get_running_loop().time()
    await refused(fetcher(site, timeout_s=0.4), f"{site.url}/pictures/slow")
    assert asyncio.get_running_loop().time() - began < 2
    await asyncio.wait_for(site.left.wait(), 2)


async def test_the_requests_own_deadline_counts_as_well(site: Site) -> None:
    async def silence(_: asyncio.StreamWriter) -> None:
        await asyncio.sleep(60)

    site.replies["/pictures/silent"] = silence
    with pytest.raises(TimedOut) as caught:
        await fetcher(site).picture(f"{site.url}/pictures/silent", "image", asyncio.get_running_loop().time() + 0.2)
    assert (caught.value.status, "'image'" in caught.value.message) == (504, True), "it is no fault of the address"
    await asyncio.wait_for(site.left.wait(), 2)


async def test_an_endless_body_is_cut_at_the_limit(site: Site) -> None:
    sent = 0

    async def endless(writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n" + PNG)
        with suppress(ConnectionError):
            while True:
                writer.write(b"x" * 65536)
                await writer.drain()
                sent += 65536

    site.replies["/pictures/endless"] = endless
    assert f"larger than {MOST} bytes" in await refused(fetcher(site), f"{site.url}/pictures/endless")
    await asyncio.wait_for(site.left.wait(), 2)
    assert sent < 64 * 1024 * 1024


async def test_what_says_that_it_is_too_large_is_not_begun(site: Site) -> None:
    async def large(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % (MOST + 1))
        await asyncio.sleep(60)

    site.replies["/pictures/large"] = large
    assert "larger than" in await refused(fetcher(site), f"{site.url}/pictures/large")


@pytest.mark.parametrize("how", [{"content_encoding": "gzip"}, {"content_encoding": "br, identity"}])
async def test_what_is_compressed_is_not_opened(site: Site, how: dict[str, str]) -> None:
    site.say("/pictures/bomb", gzip.compress(b"\0" * 1_000_000), **how)
    assert "compressed" in await refused(fetcher(site), f"{site.url}/pictures/bomb")


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        (b"<html>", "200 OK", "not a picture"),
        (b"", "200 OK", "not a picture"),
        (b"<svg onload='x'/>", "200 OK", "not a picture"),
        (PNG, "404 Not Found", "status 404"),
        (PNG, "206 Partial Content", "status 206"),
        (PNG, "500 Oops", "status 500"),
    ],
)
async def test_what_is_no_picture_is_said_to_be_none(site: Site, body: bytes, status: str, says: str) -> None:
    site.say("/pictures/a.png", body, status, content_type="image/png")
    assert says in await refused(fetcher(site), f"{site.url}/pictures/a.png")


async def test_who_stops_waiting_hangs_up_at_once(site: Site) -> None:
    begun = asyncio.Event()

    async def silence(_: asyncio.StreamWriter) -> None:
        begun.set()
        await asyncio.sleep(60)

    site.replies["/pictures/silent"] = silence
    task = asyncio.ensure_future(fetched(fetcher(site), f"{site.url}/pictures/silent"))
    await asyncio.wait_for(begun.wait(), 2)
    task.cancel()
    await asyncio.wait_for(site.left.wait(), 1)
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_no_proxy_of_the_environment_is_asked(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
        monkeypatch.setenv(name.upper(), "http://127.0.0.1:9")
    site.say("/pictures/a.png")
    assert (await fetched(fetcher(site), f"{site.url}/pictures/a.png")).data == PNG

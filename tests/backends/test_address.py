"""Where a client that may go to public places only does not go, whatever it is told."""

import asyncio
import socket
from collections.abc import AsyncIterator
from typing import Any

import aiohappyeyeballs
import pytest
from yarl import URL

from backends.address import NotPublic, is_public
from backends.http1 import Client

PRIVATE = [
    "0.0.0.0",
    "10.0.0.5",
    "100.64.0.1",
    "100.100.100.200",
    "127.0.0.1",
    "127.255.255.254",
    "168.63.129.16",
    "169.254.169.254",
    "172.16.0.1",
    "192.0.0.192",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.1.1",
    "198.18.0.1",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::127.0.0.1",
    "::ffff:127.0.0.1",
    "::ffff:8.8.8.8",
    "64:ff9b::7f00:1",
    "64:ff9b:1::1",
    "100::1",
    "2001::1",
    "2001:db8::1",
    "2002:7f00:1::",
    "3fff::1",
    "5f00::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fe80::1%lo",
    "fec0::1",
    "ff02::1",
    "not an address",
    "2130706433",
]
SPELLINGS = ["127.0.0.1", "127.1", "2130706433", "0x7f000001", "0177.0.0.1", "0x7f.0.0.1", "localhost", "[::1]", "0"]


class Listener:
    def __init__(self) -> None:
        self.hits = 0
        self.port = 0


@pytest.fixture
async def listener() -> AsyncIterator[Listener]:
    """Counts the connections that come in, on every address of this machine's own."""
    found = Listener()

    async def met(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        found.hits += 1
        writer.close()

    server = await asyncio.start_server(met, "127.0.0.1", 0)
    found.port = server.sockets[0].getsockname()[1]
    yield found
    server.close()
    await server.wait_closed()


@pytest.mark.parametrize("address", PRIVATE)
def test_what_is_not_of_the_public_internet(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", ["1.1.1.1", "8.8.8.8", "172.15.255.255", "172.32.0.1", "2606:4700::1111"])
def test_what_is(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize("host", SPELLINGS)
@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_no_spelling_leads_to_this_machine(scheme: str, host: str, listener: Listener) -> None:
    client = Client(public_only=True)
    with pytest.raises((NotPublic, socket.gaierror)):
        await client.request("GET", URL(f"{scheme}://{host}:{listener.port}/", encoded=True), {})
    await client.aclose()
    assert listener.hits == 0


async def test_who_may_go_anywhere_does(listener: Listener) -> None:
    client = Client()
    with pytest.raises(OSError, match="closed"):
        await client.request("GET", URL(f"http://127.0.0.1:{listener.port}/"), {})
    await client.aclose()
    assert listener.hits == 1


async def test_a_name_that_changes_its_mind_is_held_to_what_was_checked(
    listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = iter(["1.1.1.1", "127.0.0.1"])
    asked = 0
    reached: list[str] = []

    async def resolve(host: str, port: int, **_: Any) -> list[Any]:
        nonlocal asked
        asked += 1
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (next(said), port))]

    async def connect(found: list[Any], **_: Any) -> socket.socket:
        reached.extend(address[4][0] for address in found)
        raise OSError("nobody there")

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", resolve)
    monkeypatch.setattr(aiohappyeyeballs, "start_connection", connect)
    client, url = Client(public_only=True), URL(f"https://rebinding.example:{listener.port}/")
    with pytest.raises(OSError, match="nobody there"):
        await client.request("GET", url, {})
    assert (asked, reached) == (1, ["1.1.1.1"]), "the name is asked once, and what it said is connected to"
    with pytest.raises(NotPublic):
        await client.request("GET", url, {})
    await client.aclose()
    assert reached == ["1.1.1.1"]
    assert listener.hits == 0


async def test_one_private_address_among_public_ones_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    async def resolve(host: str, port: int, **_: Any) -> list[Any]:
        return [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("1.1.1.1", port)),
            (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", port, 0, 0)),
        ]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", resolve)
    client = Client(public_only=True)
    with pytest.raises(NotPublic):
        await client.request("GET", URL("https://both.example/"), {})
    await client.aclose()

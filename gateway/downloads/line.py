"""A connection that waits only as long as it may, and not at all once it is told to stop.

The sockets do not block: every wait, for a name, a connection, TLS or bytes, is one that `Stop` ends at once, from
another thread.
"""

import io
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache, partial
from typing import Any, TypeVar

T = TypeVar("T")
CONNECT_S = 5.0
"""For one of a host's addresses, where there are others."""
WINDOW_BYTES = 6 << 20
"""What may be under way.  It is fetched again by whoever is killed: the system would take up to 32 MiB."""


class Stopped(Exception):
    """It was told to stop."""


class Silent(Exception):
    """Nothing came for as long as it may take."""


class Stop:
    """Ends what a thread waits for.  Whoever makes it closes it."""

    def __init__(self) -> None:
        self._told = False
        self._hear, self._tell = socket.socketpair()
        self._lock = threading.Lock()

    def __bool__(self) -> bool:
        return self._told

    def set(self) -> None:
        """From whatever thread."""
        with self._lock:
            if not self._told:
                self._told = True
                with suppress(OSError):
                    self._tell.send(b"!")

    def check(self) -> None:
        """Raises Stopped."""
        if self._told:
            raise Stopped

    def sleep(self, seconds: float) -> None:
        """Raises Stopped, as soon as it is."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self._poll(None, 0, left)
        self.check()

    def wait(self, sock: socket.socket, events: int, until: float) -> None:
        """Until the socket can be read or written.  Raises Stopped or Silent."""
        while True:
            left = until - time.monotonic()
            if left <= 0:
                raise Silent
            if self._poll(sock, events, left):
                return

    def close(self) -> None:
        with self._lock:
            self._told = True
            self._hear.close()
            self._tell.close()

    def _poll(self, sock: socket.socket | None, events: int, seconds: float) -> bool:
        self.check()
        poll = select.poll()  # select() cannot have more than 1,024 files
        poll.register(self._hear, select.POLLIN)
        if sock is not None:
            poll.register(sock, events)
        found = poll.poll(seconds * 1000)
        self.check()
        return bool(found)


class Line(io.RawIOBase):
    """A connected socket.  `until` is when, by time.monotonic, it has waited long enough."""

    def __init__(self, sock: socket.socket, stop: Stop, until: float) -> None:
        self._sock = sock
        self._stop = stop
        self.until = until

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._done(partial(self._sock.recv_into, buffer), select.POLLIN)

    def send(self, data: bytes) -> None:
        while data:
            data = data[self._done(partial(self._sock.send, data), select.POLLOUT) :]

    def secure(self, host: str) -> None:
        """Speak TLS from here on.  Raises ssl.SSLError."""
        paths = ssl.get_default_verify_paths()
        context = _context(paths.cafile, paths.capath)
        wrapped = context.wrap_socket(self._sock, server_hostname=host, do_handshake_on_connect=False)
        self._sock = wrapped
        self._done(wrapped.do_handshake, select.POLLIN)

    def makefile(self, *_: Any) -> io.BufferedReader:
        """As http.client wants it of a socket."""
        return io.BufferedReader(self, 64 << 10)

    def close(self) -> None:
        self._sock.close()
        super().close()

    def _done(self, act: Callable[[], T], events: int) -> T:
        while True:
            self._stop.check()
            try:
                return act()
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError) as e:
                wanted = events
                if isinstance(e, ssl.SSLError):
                    wanted = select.POLLIN if isinstance(e, ssl.SSLWantReadError) else select.POLLOUT
            self._stop.wait(self._sock, wanted, self.until)


def connect(host: str, port: int, stop: Stop, until: float) -> Line:
    """Raises OSError, Silent or Stopped."""
    addresses = _addresses(host, port, stop, until)
    failure: Exception = OSError("the host has no address")
    for n, (family, kind, protocol, _, address) in enumerate(addresses, 1):
        sock = socket.socket(family, kind, protocol)
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if hasattr(socket, "TCP_WINDOW_CLAMP"):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_WINDOW_CLAMP, WINDOW_BYTES)
            with suppress(BlockingIOError):
                sock.connect(address)
            stop.wait(sock, select.POLLOUT, until if n == len(addresses) else min(until, time.monotonic() + CONNECT_S))
            if error := sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                raise OSError(error, "no connection")
            return Line(sock, stop, until)
        except (OSError, Silent) as e:
            sock.close()
            failure = e
        except BaseException:
            sock.close()
            raise
    raise failure


def _addresses(host: str, port: int, stop: Stop, until: float) -> list[Any]:
    # The system's resolver cannot be interrupted: it is left to a thread that touches nothing else.
    found: list[Any] = []
    hear, tell = socket.socketpair()

    def look() -> None:
        try:
            found.extend(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except (OSError, UnicodeError) as e:
            found.append(e)
        finally:
            tell.close()

    try:
        threading.Thread(target=look, name="resolve", daemon=True).start()
        stop.wait(hear, select.POLLIN, until)
    finally:
        hear.close()
    if found and isinstance(found[0], Exception):
        raise OSError("the host's name is not known") from found[0]
    return found


@cache
def _context(file: str | None, folder: str | None) -> ssl.SSLContext:
    """Trusts what the system trusts, or what SSL_CERT_FILE and SSL_CERT_DIR name."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    if file is None and folder is None:
        import certifi

        file = certifi.where()
    # Not `load_default_certs`, which reads them without letting go of the interpreter.
    context.load_verify_locations(file, folder)
    return context

"""What the kernel is told about a listening socket: to hold little back for its connections, to let in nobody more.

To close one resets the connections that wait in its queue, and one may come in just before.  So first
the kernel is told to ignore newcomers (they ask again a second later and are refused then), which gives
the server the time to accept all who are there.
"""

import contextlib
import ctypes
import socket
import struct
import sys

_SO_ATTACH_FILTER = 26
_LOAD_BYTE, _JUMP_IF_SET, _RETURN = 0x30, 0x45, 0x06
_FLAGS, _SYN = 13, 0x02  # the byte of the TCP header, the bit in it
_WITHOUT_SYN = b"".join(
    struct.pack("HBBI", *step)
    for step in (
        (_LOAD_BYTE, 0, 0, _FLAGS),
        (_JUMP_IF_SET, 0, 1, _SYN),
        (_RETURN, 0, 0, 0),
        (_RETURN, 0, 0, 0xFFFF_FFFF),
    )
)


UNSENT_BYTES = 128 * 1024
"""What the kernel may hold of an answer that the client has no room for; by itself it takes megabytes."""


def keep_queues_short(listener: int) -> None:
    """Let the connections of a listening TCP socket, by its file descriptor, feel soon when a client stops reading."""
    lowat = getattr(socket, "TCP_NOTSENT_LOWAT", None)
    if lowat is None:
        return
    with socket.socket(fileno=socket.dup(listener)) as copy, contextlib.suppress(OSError):
        copy.setsockopt(socket.IPPROTO_TCP, lowat, UNSENT_BYTES)


def ignore_newcomers(listener: int) -> bool:
    """Let a listening TCP socket, by its file descriptor, take part in no new handshake; False if that can't be."""
    if sys.platform != "linux":
        return False
    steps = ctypes.create_string_buffer(_WITHOUT_SYN)
    program = struct.pack("HP", len(_WITHOUT_SYN) // 8, ctypes.addressof(steps))
    try:
        with socket.socket(fileno=socket.dup(listener)) as copy:
            copy.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)
    except OSError:
        return False
    return True

"""Reading a request's body: whole, within its limit, JSON (or a form, where that is taken) by its own word."""

import asyncio
from typing import cast

from litestar.types import HTTPScope, Receive

from compat import inflation
from compat.canonical.error import InvalidRequest, MethodNotAllowed, TooLarge, UnsupportedMedia
from compat.inflation import inflated
from gateway.settings import Server

IN_THREAD_BYTES = 64 * 1024
"""From here on a body is decompressed in a thread, not to hold up the loop."""
_CODINGS = frozenset({b"gzip", b"x-gzip", b"deflate"})


class Disconnected(Exception):
    """The client left before its body was complete."""


def require_method(scope: HTTPScope, method: str) -> None:
    """Raises MethodNotAllowed."""
    if scope["method"] != method:
        raise MethodNotAllowed(f"Method {scope['method']} is not allowed here; use {method}.", allow=method)


def form_type(scope: HTTPScope) -> str:
    """The Content-Type header of a request whose body is a form; empty for any other."""
    for name, value in scope["headers"]:
        if name == b"content-type" and _is_form(value):
            return value.decode("latin-1")
    return ""


async def read_json(scope: HTTPScope, receive: Receive, limit: int, *, or_form: bool = False) -> bytes:
    """The body of a request that says it is JSON.

    or_form: take multipart/form-data as well.
    limit: of its bytes, on the wire and decompressed.
    Raises UnsupportedMedia, TooLarge (as soon as it is known), InvalidRequest or Disconnected.
    """
    compressed = False
    for name, value in scope["headers"]:
        if name == b"content-type":
            media = value.split(b";")[0].strip().lower()
            if media != b"application/json" and not media.endswith(b"+json") and not (or_form and _is_form(value)):
                raise UnsupportedMedia(
                    "The body must be JSON or a form: send 'content-type: multipart/form-data; boundary=…'."
                    if or_form
                    else "The body must be JSON: send 'content-type: application/json'."
                )
        elif name == b"content-encoding" and (coding := value.strip().lower()) != b"identity":
            if coding not in _CODINGS or compressed:
                raise UnsupportedMedia(
                    "This content-encoding is not accepted: send the body plain, or compressed with gzip or deflate.",
                    code="unsupported_content_encoding",
                )
            compressed = True
        elif name == b"content-length":
            if not value.isdigit():
                raise InvalidRequest("The Content-Length header is not a number.")
            if int(value) > limit:
                raise _too_large(limit)
    body = await _read(receive, limit)
    if not compressed:
        return body
    if len(body) < IN_THREAD_BYTES:
        return _inflated(body, limit)
    return await asyncio.to_thread(_inflated, body, limit)


async def read_plain(scope: HTTPScope, receive: Receive, limit: int) -> bytes:
    """The body of a request that may be anything, as it is.

    Raises UnsupportedMedia where it is compressed, TooLarge (as soon as it is known), InvalidRequest or Disconnected.
    """
    for name, value in scope["headers"]:
        if name == b"content-encoding" and value.strip().lower() != b"identity":
            raise UnsupportedMedia(
                "This content-encoding is not accepted here: send the body plain.", code="unsupported_content_encoding"
            )
        if name == b"content-length" and not value.isdigit():
            raise InvalidRequest("The Content-Length header is not a number.")
        if name == b"content-length" and int(value) > limit:
            raise _too_large(limit)
    return await _read(receive, limit)


async def _read(receive: Receive, limit: int) -> bytes:
    message = await receive()
    if message["type"] == "http.disconnect":
        raise Disconnected
    body = cast(bytes, message.get("body", b""))
    if len(body) > limit:
        raise _too_large(limit)
    if not message.get("more_body", False):
        return body
    pieces, size = [body], len(body)
    while message.get("more_body", False):
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Disconnected
        piece = cast(bytes, message.get("body", b""))
        size += len(piece)
        if size > limit:
            raise _too_large(limit)
        pieces.append(piece)
    return b"".join(pieces)


def _inflated(body: bytes, limit: int) -> bytes:
    try:
        return inflated(body, limit)
    except inflation.TooLong as e:
        raise TooLarge(f"The request body exceeds {e.limit} bytes when it is decompressed.") from e
    except inflation.Broken as e:
        raise InvalidRequest("The compressed body is not one complete gzip or deflate stream.") from e


def _is_form(content_type: bytes) -> bool:
    return content_type.split(b";")[0].strip().lower() == b"multipart/form-data"


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"The request body exceeds {limit} bytes (server.body_limit_bytes).")


def base_url(scope: HTTPScope, server: Server) -> str:
    """How the client reaches the gateway, `https://HOST`, without a slash at its end."""
    if server.public_url is not None:
        return server.public_url.rstrip("/")
    host = next((value for name, value in scope["headers"] if name == b"host"), b"")
    return f"{scope.get('scheme', 'http')}://{host.decode('latin-1') or 'localhost'}{scope.get('root_path', '')}"

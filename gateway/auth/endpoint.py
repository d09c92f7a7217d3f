"""Addresses that users give: where the gateway may be sent by them.

https and the public internet only, which is held against the numbers when a connection is made; or what an
operator has allowed, by scheme, host, port and path, not by how an address is spelled.
"""

import re
from collections.abc import Iterable
from ipaddress import ip_address
from urllib.parse import SplitResult, urlsplit

from msgspec import Struct
from yarl import URL

from backends.address import is_public
from compat.canonical.error import InvalidRequest

LENGTH_MAX = 500
_spelled = re.compile(r"[A-Za-z0-9\-._~:/\[\]!$&'()*+,;=%@]+").fullmatch
_host = re.compile(r"[a-z0-9_](?:[a-z0-9._-]*[a-z0-9_])?\.?|\[?[0-9a-f:.]*:[0-9a-f:.]*\]?").fullmatch
_trick = re.compile(r"(?i)(?:^|/)(?:\.|%2e){1,2}(?:/|$)|%2f|%5c|%00|//").search
_numeric = re.compile(r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)\.?").fullmatch
_PORTS = {"https": 443, "http": 80}
_PORT_MIN = 1024
"""Below are the ports of services that are no provider's, 443 apart."""


class Endpoint(Struct, frozen=True):
    url: str
    public_only: bool
    """Nothing but the public internet may be behind it; False where the operator has allowed it."""


def endpoint(url: str, allowed: Iterable[str], param: str) -> Endpoint:
    """Raises InvalidRequest for an address that nobody may be sent to."""
    parts = _split(url)
    if parts is None:
        raise _refused("must be a URL like https://HOST/PATH, without user, query or fragment", param)
    if any(_begins(parts, prefix) for prefix in allowed):
        return Endpoint(url, public_only=False)
    host = parts.hostname or ""
    if parts.scheme != "https":
        raise _refused("must be an https URL; others are allowed by the backend's user_endpoints only", param)
    if parts.port not in (None, _PORTS["https"]) and (parts.port or 0) < _PORT_MIN:
        raise _refused(f"must have port 443, or one from {_PORT_MIN} on", param)
    if _is_address(host):
        if not is_public(host):
            raise _refused("must be a public address; others are allowed by the backend's user_endpoints only", param)
    elif _numeric(host):
        raise _refused("must have a host's name, or an address as four numbers", param)
    return Endpoint(url, public_only=True)


def is_prefix(url: str) -> bool:
    """Whether addresses can be allowed by this beginning."""
    return _split(url) is not None


def _split(url: str) -> SplitResult | None:
    if len(url) > LENGTH_MAX or not _spelled(url):
        return None
    try:
        parts = urlsplit(url)
        port = parts.port or _PORTS.get(parts.scheme)
        again = URL(url, encoded=True)
        # What connects reads it with another parser: the two must agree.
        agreed = (again.scheme, (again.raw_host or "").lower(), again.port, again.raw_path) == (
            parts.scheme,
            parts.hostname,
            port,
            parts.path or "/",
        )
    except ValueError:
        return None
    host = parts.hostname or ""
    plain = parts.scheme in _PORTS and "@" not in parts.netloc and "%" not in parts.netloc and _host(host)
    return parts if agreed and plain and parts.port != 0 and not _trick(parts.path) else None


def _begins(parts: SplitResult, prefix: str) -> bool:
    allowed = _split(prefix)
    if allowed is None:
        return False
    path = allowed.path.rstrip("/")
    return (
        parts.scheme == allowed.scheme
        and (parts.hostname or "").rstrip(".") == (allowed.hostname or "").rstrip(".")
        and _port(parts) == _port(allowed)
        and (parts.path == path or parts.path.startswith(f"{path}/"))
    )


def _port(parts: SplitResult) -> int | None:
    return parts.port or _PORTS.get(parts.scheme)


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _refused(why: str, param: str) -> InvalidRequest:
    return InvalidRequest(f"Invalid value for '{param}': it {why}.", param=param, code="invalid_value")

"""Which addresses are public: where a gateway may be sent by somebody who must not see its own network."""

import ipaddress

_UNFIT_V4 = tuple(
    map(
        ipaddress.IPv4Network,
        (
            "0.0.0.0/8",
            "100.64.0.0/10",
            "168.63.129.16/32",  # Azure's host, which answers inside every machine there
            "169.254.0.0/16",  # where clouds tell machines their credentials
            "192.0.0.0/24",
            "192.88.99.0/24",  # relays into IPv6
            "198.18.0.0/15",
        ),
    )
)
_GLOBAL_V6 = ipaddress.IPv6Network("2000::/3")
"""Everything that is routed; IPv4 in any disguise, NAT64 and what is local are outside."""
_UNFIT_V6 = tuple(map(ipaddress.IPv6Network, ("2001::/23", "2002::/16", "3fff::/20")))
"""Inside it: Teredo and others for protocols, 6to4, documentation."""


class NotPublic(OSError):
    """The address is one of a private network, or of the machine itself."""


def is_public(address: str) -> bool:
    """Whether an address, spelled in numbers, is one of the public internet."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if not ip.is_global or ip.is_multicast:
        return False
    if isinstance(ip, ipaddress.IPv4Address):
        return not any(ip in network for network in _UNFIT_V4)
    return ip in _GLOBAL_V6 and not any(ip in network for network in _UNFIT_V6)

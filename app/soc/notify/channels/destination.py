"""Where messages may go by HTTPS: listed hosts, at public or listed addresses.

The name is resolved once, its addresses are judged, and the connection goes to one that was
judged: a name that answers otherwise the next time gains nothing (OWASP, SSRF prevention).
"""

import ipaddress
import socket
from urllib.parse import SplitResult, urlsplit

from django.conf import settings

HTTPS = 443

# They stand for IPv4 addresses, which could be any (RFC 6052, 2.1; RFC 3056, 2).
_TRANSLATED = (ipaddress.ip_network("64:ff9b::/96"), ipaddress.ip_network("2002::/16"))


class NotAllowed(Exception):
    """The site does not let messages go there; the message says what to change."""


def checked(url: str) -> SplitResult:
    """Return the parts of an address to which messages may go.

    Raises:
        NotAllowed: it is not an https address, or its host is not on the site's list.
    """
    try:
        parts = urlsplit(url)
        port = parts.port or HTTPS
    except ValueError as error:
        raise NotAllowed(f"Invalid address: {error}.") from None
    plain = url.isascii() and url.isprintable() and " " not in url
    if parts.scheme != "https" or not parts.hostname or not plain or "@" in parts.netloc:
        raise NotAllowed("Invalid address: use https://host/path, without a login or blanks.")
    if not any(_covers(entry, parts.hostname, port) for entry in settings.WEBHOOK_HOSTS):
        raise NotAllowed(
            f"The host {parts.hostname}:{port} is not among SOC_WEBHOOK_HOSTS: add it to the "
            "site's env file and run `make up`, or use another."
        )
    return parts


def addresses(host: str, port: int) -> list[str]:
    """Return the addresses of a host to which a connection may go.

    Raises:
        NotAllowed: it has addresses, and none of them is public or among SOC_WEBHOOK_NETWORKS.
        OSError: it has none.
    """
    answers = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    found = list(dict.fromkeys(str(answer[4][0]) for answer in answers))
    allowed = [address for address in found if _may_connect(address)]
    if not allowed:
        raise NotAllowed(
            f"{host} is at {', '.join(found)}, which is not public: name its network in "
            "SOC_WEBHOOK_NETWORKS if messages may go there."
        )
    return allowed


def _covers(entry: str, host: str, port: int) -> bool:
    """Return whether an entry, such as ``.example.com`` or ``chat.lan:8443``, covers a host."""
    name, _, listed_port = entry.lower().partition(":")
    if port != int(listed_port or HTTPS):
        return False
    return host == name or (name.startswith(".") and host.endswith(name))


def _may_connect(text: str) -> bool:
    address = ipaddress.ip_address(text)
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    if any(address in ipaddress.ip_network(network) for network in settings.WEBHOOK_NETWORKS):
        return True
    hidden = address.is_multicast or any(address in network for network in _TRANSLATED)
    return address.is_global and not hidden

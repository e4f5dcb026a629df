"""Names of hosts on the network."""

import ipaddress

import idna

_LONGEST_LABEL = 63

_LONGEST_NAME = 253


def a_label(name: str) -> str:
    """Return a host name in lower-case ASCII, without a final dot.

    Letters outside ASCII become A-labels as in browsers (IDNA 2008, RFC 5891, with the mapping of
    UTS 46). ASCII is taken as it stands: hosts of private networks have underscores.
    Raises ValueError when `name` cannot be a host name.
    """
    bare = name.removesuffix(".")
    ascii_name = bare.lower() if bare.isascii() else idna.encode(bare, uts46=True).decode("ascii")
    labels = ascii_name.split(".")
    if not all(0 < len(label) <= _LONGEST_LABEL for label in labels):
        raise ValueError("a label is empty or longer than 63 characters")
    if len(ascii_name) > _LONGEST_NAME or not ascii_name.isprintable() or " " in ascii_name:
        raise ValueError("not a host name")
    return ascii_name


def host_name(text: str) -> str:
    """Return a host name or an address as it is stored.

    Raises:
        ValueError: it is neither.
    """
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        pass
    try:
        a_label(text)
    except ValueError as error:
        raise ValueError(f"Invalid host name {text[:80]!r}: {error}") from None
    return text.removesuffix(".").lower()

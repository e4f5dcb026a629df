"""Mail addresses as relays take them."""

import idna


def as_ascii(address: str) -> str:
    """Return an address with its domain as A-labels, which every relay takes (RFC 5891).

    Raises:
        ValueError: the domain is no IDNA 2008 name.
    """
    local, at, domain = address.rpartition("@")
    if domain.isascii():
        return address
    try:
        return local + at + idna.encode(domain, uts46=True).decode("ascii")
    except idna.IDNAError as error:
        raise ValueError(f"Invalid domain {domain!r}: {error}") from error

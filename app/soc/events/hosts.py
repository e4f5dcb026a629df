"""Names of Windows hosts: which host an event is of, and which names are those of one host.

A Winlogbeat names the host that it runs on, and Windows the host that logged the event. The two
differ where events are forwarded to a collector (Windows Event Forwarding), and in form: short or
fully qualified, in capitals or not, or as NetBIOS cuts it.
"""

import ipaddress
from collections.abc import Iterable

NETBIOS_LENGTH = 15
"""Letters of a NetBIOS name of a computer (Microsoft, "Naming conventions in Active Directory")."""


def short(name: str) -> str:
    """Return the first label of a host's name in small letters; of an address all of it."""
    name = name.strip().lower()
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return name.partition(".")[0] or name
    return name


def netbios(name: str) -> str:
    """Return what NetBIOS keeps of a name: the same for every form of it."""
    return short(name)[:NETBIOS_LENGTH]


def is_full(name: str) -> bool:
    """Whether a name has a domain."""
    return short(name) != name.strip().lower()


def origin(name: str, others: Iterable[str], computer: str) -> str:
    """Return the host that logged an event.

    That is ``name``, the host of the shipper as the event gives it, if it or one of the shipper's
    ``others`` is the host that Windows calls ``computer``; else the event was forwarded, or names
    no shipper, and is of ``computer``. A shipper may have been given a name that is no host's,
    hence the others.
    """
    if not computer or (name and any(_same(one, computer) for one in (name, *others))):
        return name
    return computer


def _same(one: str, other: str) -> bool:
    one, other = short(one), short(other)
    if one == other:
        return True
    # One may be as NetBIOS cuts it; two longer names that only begin alike are two hosts.
    return NETBIOS_LENGTH in (len(one), len(other)) and netbios(one) == netbios(other)

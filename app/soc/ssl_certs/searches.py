"""Searches of address ranges: what presents a certificate there is watched from then on."""

import ipaddress
from collections.abc import Iterator, Sequence
from contextlib import closing

from cryptography import x509
from django.utils import timezone

from soc.common.net import a_label
from soc.schedules.schedules import request_run
from soc.ssl_certs import probe
from soc.ssl_certs.models import Endpoint, Search
from soc.ssl_certs.probe import Presented
from soc.ssl_certs.targets import StartTls, Target
from soc.trust.description import describe

TASK = "soc.ssl_certs.tasks.search_ranges"

MOST_ADDRESSES = 1024
"""Addresses of one search: each that swallows packets costs 5 s, 256 at a time."""


def ask(search: Search) -> None:
    """Write a search down, and have beat start it."""
    search.save()
    request_run(f"search {search}", TASK, search.requested_by, {"key": search.pk})


def search(key: int) -> None:
    """Probe the targets of a search and register what answers; what is watched already stays.

    A search that is over, or gone, is left alone.
    """
    open_ones = Search.objects.filter(pk=key, finished_at=None)
    found = open_ones.first()
    if found is None:
        return
    starttls = StartTls(found.starttls)
    pairs = [(str(host), int(port)) for host, port in found.targets[:MOST_ADDRESSES]]
    targets = {pair: Target(*pair, starttls=starttls) for pair in pairs}
    with closing(probe.collect_many(targets)) as results:
        answers = {pair: answer for pair, answer in results if isinstance(answer, Presented)}
    added = _register(found, [(pair, answers[pair]) for pair in targets if pair in answers])
    open_ones.update(answered=len(answers), added=added, finished_at=timezone.now())


def _register(search: Search, answers: Sequence[tuple[tuple[str, int], Presented]]) -> int:
    hosts = [host for (host, _), _ in answers]
    known = set(Endpoint.objects.filter(host__in=hosts).values_list("host", "port"))
    new = [
        Endpoint(
            host=host,
            port=port,
            server_name=_name(host, answer.chain[0]),
            starttls=search.starttls,
            authority=search.authority,
            group=search.group,
            notes=f"Found by a search of {search} by {search.requested_by}.",
        )
        for (host, port), answer in answers
        if (host, port) not in known
    ]
    return len(Endpoint.objects.bulk_create(new, ignore_conflicts=True))


def _name(host: str, leaf: x509.Certificate) -> str:
    """Return the name to ask an address for: one of its certificate's, unless it is for it.

    A name with a wildcard is no host's.
    """
    san = describe(leaf).san
    if host in san:
        return ""
    return next((name for name in san if _is_host(name)), "")


def _is_host(name: str) -> bool:
    if "*" in name:
        return False
    try:
        ipaddress.ip_address(name)
    except ValueError:
        pass
    else:
        return False
    try:
        a_label(name)
    except ValueError:
        return False
    return True


def addresses(text: str) -> Iterator[str] | None:
    """Return the addresses of a range, or None if the text is none.

    A range is a network as in RFC 4632 (192.0.2.0/24: without its own and the broadcast address)
    or two addresses with a hyphen between. It may be longer than a search takes.

    Raises:
        ValueError: it looks like a range and is none.
    """
    if "/" in text:
        return (str(address) for address in ipaddress.ip_network(text, strict=False).hosts())
    first, hyphen, last = text.partition("-")
    try:
        start = ipaddress.ip_address(first.strip())
    except ValueError:
        return None
    if not hyphen:
        return None
    end = ipaddress.ip_address(last.strip())
    if start.version != end.version or int(end) < int(start):
        raise ValueError("its end does not follow its start")
    return (str(start + n) for n in range(int(end) - int(start) + 1))

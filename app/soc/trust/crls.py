"""Revocation lists (CRLs): which are wanted, fetched ahead of the scans, and looked up in them.

A scan asks no list's server itself, so that none can hold it up: it uses what is stored, and what
is not stored yet is fetched within minutes.
"""

import functools
import logging
import time
import urllib.request
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from http.client import HTTPException

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from django.utils import timezone

from soc.common import due
from soc.trust import revocation
from soc.trust.models import RevocationList

MOST_BYTES = 4 * 1024 * 1024
TIMEOUT = 10
"""Seconds for a list's server to answer, and for the whole list."""

MOST_AT_ONCE = 50
"""Lists that one run fetches; eight at a time in 10 s each are a minute at most."""

_FETCHERS = 8
_PART = 64 * 1024
EARLIEST, LATEST, AFTER_AN_ERROR = timedelta(hours=1), timedelta(hours=12), timedelta(hours=1)
_NOTED_EVERY = timedelta(days=1)
_LONGEST_ADDRESS = 255

logger = logging.getLogger(__name__)


class Lists(Mapping[str, x509.CertificateRevocationList]):
    """The stored lists by their addresses; bodies are read when they are looked into."""

    def __init__(self, now: datetime) -> None:
        stored = RevocationList.objects.exclude(fetched_at=None)
        self._stored = dict(stored.values_list("url", "fetched_at"))

    def __getitem__(self, url: str) -> x509.CertificateRevocationList:
        """Return the list of an address; KeyError if there is none."""
        return _parsed(url, self._stored[url])

    def __iter__(self) -> Iterator[str]:
        return iter(self._stored)

    def __len__(self) -> int:
        return len(self._stored)


# A large list has megabytes, and many endpoints share it.
@functools.lru_cache(maxsize=8)
def _parsed(url: str, fetched_at: datetime) -> x509.CertificateRevocationList:
    body = RevocationList.objects.values_list("body", flat=True).get(url=url)
    return x509.load_der_x509_crl(bytes(body or b""))


def want(paths: Iterable[Sequence[x509.Certificate]]) -> None:
    """Note which lists the certificates of trusted paths name."""
    urls = sorted({url for path in paths for url in _named(path)})
    if not urls:
        return
    now = timezone.now()
    known = dict(RevocationList.objects.filter(url__in=urls).values_list("url", "wanted_at"))
    RevocationList.objects.bulk_create(
        (RevocationList(url=url) for url in urls if url not in known), ignore_conflicts=True
    )
    old = [url for url, wanted_at in known.items() if now - wanted_at > _NOTED_EVERY]
    if old:
        RevocationList.objects.filter(url__in=old).update(wanted_at=now)


def _named(path: Sequence[x509.Certificate]) -> Iterator[str]:
    # The anchor is trusted as it is.
    for cert in path[:-1]:
        yield from (url for url in revocation.addresses(cert) if len(url) <= _LONGEST_ADDRESS)


def fetch_due() -> int:
    """Fetch the lists that are due, and return how many."""
    now = timezone.now()
    due.recall(RevocationList.objects.all(), "next_fetch_at", LATEST, now)
    ready = RevocationList.objects.filter(next_fetch_at__lte=now).order_by("next_fetch_at")
    rows = list(ready.defer("body")[:MOST_AT_ONCE])
    with ThreadPoolExecutor(_FETCHERS) as fetchers:
        for row, answer in zip(rows, fetchers.map(_fetched, rows), strict=True):
            RevocationList.objects.filter(pk=row.pk).update(**answer)
    return len(rows)


def _fetched(row: RevocationList) -> dict[str, object]:
    """Return the columns that a fetch changes."""
    now = timezone.now()
    try:
        crl = _decoded(_body(row.url))
        return {
            "body": crl.public_bytes(Encoding.DER),
            "fetched_at": now,
            "error": "",
            "next_fetch_at": now + _until_next(crl, now),
        }
    # The network, or what answers is no list.
    except (OSError, HTTPException, ValueError, x509.InvalidVersion) as error:
        reason = str(error)
    # The library has an exception for every kind of damage, and a row that raises would be the
    # first of every later run.
    except Exception as error:
        logger.exception("The CRL at %s cannot be read", row.url)
        reason = f"{type(error).__name__}: {error}"
    return {"error": reason[:500], "next_fetch_at": now + AFTER_AN_ERROR}


def _body(url: str) -> bytes:
    """Return what an address answers; revocation.addresses has seen to it that it is HTTP.

    Raises:
        OSError, HTTPException: it does not answer, or too slowly.
        ValueError: it answers too much.
    """
    end = time.monotonic() + TIMEOUT
    body = b""
    with urllib.request.urlopen(url, timeout=TIMEOUT) as answer:  # noqa: S310
        while part := answer.read1(_PART):
            body += part
            if len(body) > MOST_BYTES:
                raise ValueError(f"it has more than {MOST_BYTES} bytes")
            if time.monotonic() > end:
                raise TimeoutError(f"it did not arrive within {TIMEOUT} s")
    return body


def _decoded(body: bytes) -> x509.CertificateRevocationList:
    # Some authorities serve PEM, against RFC 5280.
    return x509.load_pem_x509_crl(body) if body[:5] == b"-----" else x509.load_der_x509_crl(body)


def _until_next(crl: x509.CertificateRevocationList, now: datetime) -> timedelta:
    """Half of the time for which the list is good, within bounds."""
    until = crl.next_update_utc
    return min(LATEST, max(EARLIEST, (until - now) / 2)) if until else LATEST

"""What another certificate is, compared with the one before it."""

from collections.abc import Iterator, Sequence

from soc.ssl_certs.models import Certificate, Change

MOST_NAMES = 10

Kind = Change.Kind


def compare(before: Certificate | None, after: Certificate) -> tuple[Kind, str]:
    """Return the kind of a change and what differs, in words.

    A certificate of the same issuer that ends later is a renewal; a load balancer with two
    certificates goes back and forth.
    """
    if before is None:
        return Kind.FIRST, _until(after)
    return _kind(before, after), " ".join(_differences(before, after))


def _kind(before: Certificate, after: Certificate) -> Kind:
    if before.issuer != after.issuer:
        return Kind.ISSUER
    if before.not_after is None or after.not_after is None or before.not_after == after.not_after:
        return Kind.REPLACED
    return Kind.RENEWED if after.not_after > before.not_after else Kind.WENT_BACK


def _differences(before: Certificate, after: Certificate) -> Iterator[str]:
    yield _until(after)
    if before.issuer != after.issuer:
        yield f"Issuer: {after.issuer} instead of {before.issuer}."
    if before.subject != after.subject:
        yield f"Subject: {after.subject} instead of {before.subject}."
    if before.key != after.key:
        yield f"Key: {after.key} instead of {before.key}."
    if gone := [name for name in before.san if name not in set(after.san)]:
        yield f"No longer for {_listed(gone)}."
    if new := [name for name in after.san if name not in set(before.san)]:
        yield f"Now also for {_listed(new)}."


def _until(certificate: Certificate) -> str:
    if certificate.not_after is None:
        return "The end of its validity cannot be read."
    return f"Valid until {certificate.not_after:%Y-%m-%d %H:%M} UTC."


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:MOST_NAMES])
    more = len(names) - MOST_NAMES
    return f"{shown} and {more} more" if more > 0 else shown

"""The ends of the certificates in authorities' bundles, reported before something depends on them.

A path may lead to any certificate of a bundle, and a server may change to another one at any time.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime

from cryptography import x509

from soc.alerts import engine
from soc.alerts.conditions import Condition
from soc.core.severity import Severity
from soc.ssl_certs.conditions import APPLICATION, AUTHORITY, SEVERITIES, subject_of_authority
from soc.ssl_certs.models import Endpoint, default_limits
from soc.trust import chain
from soc.trust.description import end_of, name_text
from soc.trust.models import Authority

MOST_NAMED = 20


def report_ends(now: datetime) -> int:
    """Report every bundle, and return how many mails that makes."""
    conditions = [_condition(authority, now) for authority in Authority.objects.order_by("name")]
    return sum(result.mails for result in engine.report(conditions))


def latest(anchors: Iterable[x509.Certificate]) -> list[x509.Certificate]:
    """Return of certificates with one name the one that ends last, the first to end in front.

    A bundle often keeps what a renewed certificate has taken the place of.
    """
    newest: dict[x509.Name, x509.Certificate] = {}
    for anchor in anchors:
        known = newest.get(anchor.subject)
        if known is None or end_of(anchor) > end_of(known):
            newest[anchor.subject] = anchor
    return sorted(newest.values(), key=end_of)


def _condition(authority: Authority, now: datetime) -> Condition:
    try:
        anchors = latest(chain.parse_trust(authority.pem.encode()).anchors)
        severity, facts = _ends(anchors, now)
        summary = _in_words(anchors[0], now) if facts else "None of its certificates ends soon."
    except chain.TrustError as error:
        severity, summary, facts = Severity.CRITICAL, f"The bundle cannot be read: {error}.", {}
    return Condition(
        application=APPLICATION,
        rule=AUTHORITY,
        subject=subject_of_authority(authority),
        severity=severity,
        observed_at=now,
        summary=summary,
        facts=facts,
        link=f"/admin/ssl_certs/authority/{authority.pk}/change/",
    )


def _ends(anchors: Sequence[x509.Certificate], now: datetime) -> tuple[Severity, dict[str, str]]:
    """Return how bad the nearest end is, and the ends that are near by the certificates' names."""
    limits, worst = default_limits(), Severity.OK
    near: dict[str, str] = {}
    for anchor in anchors:
        # The days alone: no machine renews an authority at a share of its lifetime.
        status = Endpoint.Status(limits.nearness(None, end_of(anchor), now).value)
        if (severity := SEVERITIES[status]) > Severity.OK:
            worst = max(worst, severity)
            near[name_text(anchor.subject)[:100]] = f"{end_of(anchor):%Y-%m-%d %H:%M} UTC"
    return worst, dict(list(near.items())[:MOST_NAMED])


def _in_words(first: x509.Certificate, now: datetime) -> str:
    name, end = name_text(first.subject), end_of(first)
    days = (end - now).days
    when = f"ends in {days} days" if end > now else "has ended"
    return (
        f"{name} {when}, on {end:%Y-%m-%d}: put the certificate that takes its place into the "
        "bundle, or take it out if nothing depends on it."
    )

"""What the certificate tracker reports to the alerts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db.models import Q
from django.urls import reverse

from soc.alerts import actions, engine
from soc.alerts.conditions import LONGEST_SUBJECT, Condition, one_line
from soc.alerts.models import Subject
from soc.common.times import local
from soc.core.severity import Severity
from soc.ssl_certs.models import Certificate, Endpoint
from soc.ssl_certs.targets import ProbeError
from soc.trust.models import Authority

APPLICATION = "ssl_certs"
REACHABLE = "reachable"
CERTIFICATE = "certificate"
STRENGTH = "strength"
AUTHORITY = "authority"

SEVERITIES = {
    Endpoint.Status.OK: Severity.OK,
    Endpoint.Status.WARNING: Severity.WARNING,
    # A week before the end what renews it has failed, and somebody has to act: that takes a mail,
    # which only a worse severity sends.
    Endpoint.Status.ERROR: Severity.CRITICAL,
    Endpoint.Status.CRITICAL: Severity.CRITICAL,
    Endpoint.Status.INVALID: Severity.CRITICAL,
}

_IN_TROUBLE = Q(alert__isnull=False) | Q(severity__gt=Severity.OK) | Q(recent__contains="1")


@dataclass(frozen=True)
class Seen:
    """An endpoint after a scan: an error, or the certificate with what the row says of it."""

    endpoint: Endpoint
    at: datetime
    error: ProbeError | None
    certificate: Certificate | None
    weaknesses: Sequence[str] = ()


def report(seen: Sequence[Seen]) -> int:
    """Report endpoints, and return how many mails that makes.

    Good conditions are only reported of subjects that have been failing: nothing else could
    change, and reading and writing two subjects for each healthy endpoint would cost more than
    its scan.
    """
    conditions = [condition for one in seen for condition in _conditions(one)]
    good = [c.fingerprint for c in conditions if c.severity == Severity.OK]
    troubled = set(
        Subject.objects.filter(_IN_TROUBLE, fingerprint__in=good).values_list(
            "fingerprint", flat=True
        )
    )
    telling = [c for c in conditions if c.severity > Severity.OK or c.fingerprint in troubled]
    return sum(result.mails for result in engine.report(telling))


def before_save(instance: Endpoint, **_: Any) -> None:
    """Close the alerts of an endpoint that is about to be disabled, or to become another one."""
    stored = Endpoint.objects.filter(pk=instance.pk).first()
    if stored and (str(stored) != str(instance) or not instance.enabled):
        actions.retire(APPLICATION, subject(stored))


def after_delete(instance: Endpoint, **_: Any) -> None:
    """Close the alerts of an endpoint that is gone."""
    actions.retire(APPLICATION, subject(instance))


def before_save_of_authority(instance: Authority, **_: Any) -> None:
    """Close the alert of an authority that is about to get another name."""
    stored = Authority.objects.filter(pk=instance.pk).only("name").first()
    if stored and stored.name != instance.name:
        after_delete_of_authority(stored)


def after_delete_of_authority(instance: Authority, **_: Any) -> None:
    """Close the alert of an authority that is gone."""
    actions.retire(APPLICATION, subject_of_authority(instance), {AUTHORITY})


def subject_of_authority(authority: Authority) -> str:
    """Return the name of an authority as alerts have it."""
    return one_line(f"authority {authority.name}", LONGEST_SUBJECT)


def subject(endpoint: Endpoint) -> str:
    """Return the name of an endpoint as alerts have it."""
    return one_line(str(endpoint), LONGEST_SUBJECT)


def _conditions(seen: Seen) -> Iterator[Condition]:
    endpoint = seen.endpoint
    if seen.error:
        facts = {"Outcome": seen.error.outcome.value}
        yield _condition(seen, REACHABLE, Severity.CRITICAL, seen.error.detail, facts)
        return
    yield _condition(seen, REACHABLE, Severity.OK, "It was reached.", {})
    status = Endpoint.Status(endpoint.status)
    severity = SEVERITIES[status]
    certificate = seen.certificate
    facts = _facts(status, certificate) if certificate and severity > Severity.OK else {}
    yield _condition(seen, CERTIFICATE, severity, endpoint.reason, facts)
    strength = Severity.WARNING if seen.weaknesses else Severity.OK
    summary = " ".join(seen.weaknesses) or "Nothing is weak."
    yield _condition(seen, STRENGTH, strength, summary, {})


def _facts(status: Endpoint.Status, certificate: Certificate) -> dict[str, str]:
    return {
        "Status": str(status.label),
        "Subject of the certificate": certificate.subject,
        "Issuer": certificate.issuer,
        "Names": ", ".join(certificate.san[:20]),
        "Fingerprint": certificate.fingerprint,
        "Expires": local(certificate.not_after) if certificate.not_after else "",
    }


def _condition(
    seen: Seen, rule: str, severity: Severity, summary: str, facts: Mapping[str, str]
) -> Condition:
    return Condition(
        application=APPLICATION,
        rule=rule,
        subject=subject(seen.endpoint),
        severity=severity,
        observed_at=seen.at,
        summary=summary,
        facts=facts,
        link=reverse("endpoint", args=[seen.endpoint.pk]),
    )

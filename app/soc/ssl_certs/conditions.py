"""What the certificate tracker reports to the alerts."""

from datetime import datetime
from typing import Any

from django.urls import reverse

from soc.alerts import actions, engine
from soc.alerts.conditions import Condition
from soc.core.severity import Severity
from soc.core.times import local
from soc.ssl_certs.models import Certificate, Endpoint

APPLICATION = "ssl_certs"
REACHABLE = "reachable"
CERTIFICATE = "certificate"

_SEVERITY = {
    Endpoint.Status.OK: Severity.OK,
    Endpoint.Status.WARNING: Severity.WARNING,
    Endpoint.Status.CRITICAL: Severity.CRITICAL,
    Endpoint.Status.INVALID: Severity.CRITICAL,
}


def report_certificate(
    endpoint: Endpoint,
    status: Endpoint.Status,
    reason: str,
    certificate: Certificate,
    at: datetime,
) -> int:
    """Report the certificate that an endpoint presented; return how many mails that makes."""
    facts = {
        "Status": status.label,
        "Subject of the certificate": certificate.subject,
        "Issuer": certificate.issuer,
        "Names": ", ".join(certificate.san[:20]),
        "Fingerprint": certificate.fingerprint,
        "Expires": local(certificate.not_after) if certificate.not_after else "",
    }
    return _report(
        _condition(endpoint, REACHABLE, Severity.OK, "It was reached.", at),
        _condition(endpoint, CERTIFICATE, _SEVERITY[status], reason, at, facts),
    )


def report_unreachable(endpoint: Endpoint, outcome: str, detail: str, at: datetime) -> int:
    """Report that an endpoint showed no certificate; return how many mails that makes."""
    facts = {"Outcome": outcome}
    return _report(_condition(endpoint, REACHABLE, Severity.CRITICAL, detail, at, facts))


def before_save(instance: Endpoint, **_: Any) -> None:
    """Close the alerts of an endpoint that is about to be disabled, or to become another one."""
    stored = Endpoint.objects.filter(pk=instance.pk).first()
    if stored and (str(stored) != str(instance) or not instance.enabled):
        actions.retire(APPLICATION, str(stored))


def after_delete(instance: Endpoint, **_: Any) -> None:
    """Close the alerts of an endpoint that is gone."""
    actions.retire(APPLICATION, str(instance))


def _report(*conditions: Condition) -> int:
    return sum(result.mails for result in engine.report(conditions))


def _condition(
    endpoint: Endpoint,
    rule: str,
    severity: Severity,
    summary: str,
    at: datetime,
    facts: dict[str, str] | None = None,
) -> Condition:
    return Condition(
        application=APPLICATION,
        rule=rule,
        subject=str(endpoint),
        severity=severity,
        observed_at=at,
        summary=summary,
        facts=facts or {},
        link=reverse("admin:ssl_certs_endpoint_change", args=[endpoint.pk]),
    )

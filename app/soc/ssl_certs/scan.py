"""Scans of endpoints: which are due, what a scan found, and what that makes of the endpoint."""

from collections.abc import Iterator
from dataclasses import asdict
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from django.db import transaction
from django.utils import timezone

from soc.ssl_certs import chain, conditions, probe
from soc.ssl_certs.models import Certificate, Endpoint, Observation

MOST_AT_ONCE = 500
"""Scans that one tick starts at most: 10,000 endpoints an hour need 84 a tick of 30 s."""

CLAIM = timedelta(minutes=10)
"""How long a claimed endpoint waits for its scan; one whose scan was lost falls due again."""

RETRY = timedelta(minutes=1)
"""When an endpoint that was not reached is tried again, the first time."""

FAILURES_BEFORE_UNREACHABLE = 2


def claim_due() -> Iterator[int]:
    """Yield the keys of the endpoints that are due, each claimed for one scan.

    The conditional update lets only one of two simultaneous ticks have an endpoint, and keeps one
    whose scan is still waiting in the queue from being queued again.
    """
    now = timezone.now()
    due = Endpoint.objects.filter(enabled=True, next_scan_at__lte=now).order_by("next_scan_at")
    for pk in due.values_list("pk", flat=True)[:MOST_AT_ONCE]:
        if Endpoint.objects.filter(pk=pk, next_scan_at__lte=now).update(next_scan_at=now + CLAIM):
            yield pk


def scan(endpoint: Endpoint) -> int:
    """Scan an endpoint, record and report what was found; return how many mails that makes."""
    try:
        presented = probe.collect(endpoint.target)
    except probe.ProbeError as error:
        return record_failure(endpoint, error.outcome, error.detail)
    now = timezone.now()
    verdict = _verify(endpoint, presented, now)
    with transaction.atomic():
        certificate = _keep(presented.chain[0])
        Observation.objects.create(
            endpoint=endpoint,
            at=now,
            outcome=verdict.result,
            detail=" ".join(filter(None, (verdict.reason, _doubt(presented)))),
            certificate=certificate,
            chain_length=len(presented.chain),
            address=presented.address,
            tls_version=presented.tls_version,
            cipher=presented.cipher,
            elapsed_ms=presented.elapsed_ms,
        )
        status, reason = _judge(endpoint, certificate, verdict, now)
        _settle(endpoint, status, reason, failures=0, certificate=certificate)
        return conditions.report_certificate(endpoint, status, reason, certificate, now)


def record_failure(endpoint: Endpoint, outcome: str, detail: str) -> int:
    """Record and report a scan that saw no certificate; one alone changes no status.

    Returns how many mails that makes.
    """
    now = timezone.now()
    failures = endpoint.failures + 1
    with transaction.atomic():
        Observation.objects.create(endpoint=endpoint, at=now, outcome=outcome, detail=detail)
        if failures < FAILURES_BEFORE_UNREACHABLE:
            retry_at = now + min(RETRY, endpoint.interval)
            Endpoint.objects.filter(pk=endpoint.pk).update(
                failures=failures, scanned_at=now, next_scan_at=retry_at
            )
        else:
            _settle(endpoint, Endpoint.Status.UNREACHABLE, detail, failures=failures)
        return conditions.report_unreachable(endpoint, outcome, detail, now)


def _doubt(presented: probe.Presented) -> str:
    if not presented.refusal:
        return ""
    return f"It broke the handshake off ({presented.refusal}), so the key is not proven."


def _verify(endpoint: Endpoint, presented: probe.Presented, now: datetime) -> chain.Verdict:
    if endpoint.authority:
        trust = chain.parse_trust(endpoint.authority.pem.encode())
    else:
        trust = chain.load_trust([chain.system_bundle()])
    return chain.verify(presented.chain, name=endpoint.target.name, trust=trust, at=now)


def _keep(certificate: x509.Certificate) -> Certificate:
    description = asdict(chain.describe(certificate))
    fingerprint = description.pop("fingerprint_sha256")
    for derived in ("is_ca", "self_signed"):
        del description[derived]
    kept, _ = Certificate.objects.get_or_create(
        fingerprint=fingerprint,
        defaults={**description, "pem": certificate.public_bytes(Encoding.PEM).decode()},
    )
    return kept


def _judge(
    endpoint: Endpoint, certificate: Certificate, verdict: chain.Verdict, now: datetime
) -> tuple[Endpoint.Status, str]:
    if verdict.result != chain.Validity.VALID:
        return Endpoint.Status.INVALID, verdict.reason
    if certificate.not_after is None:
        return Endpoint.Status.INVALID, "The end of its validity cannot be read."
    left = certificate.not_after - now
    reason = f"It expires in {left.days} days, on {certificate.not_after:%Y-%m-%d %H:%M} UTC."
    if left <= timedelta(days=endpoint.critical_days):
        return Endpoint.Status.CRITICAL, reason
    if left <= timedelta(days=endpoint.warning_days):
        return Endpoint.Status.WARNING, reason
    return Endpoint.Status.OK, reason


def _settle(endpoint: Endpoint, status: Endpoint.Status, reason: str, **values: object) -> None:
    """Write the endpoint's new state; ``status_since`` moves only when the status changes."""
    now = timezone.now()
    if status != endpoint.status:
        values["status_since"] = now
    Endpoint.objects.filter(pk=endpoint.pk).update(
        status=status,
        reason=reason,
        scanned_at=now,
        next_scan_at=now + endpoint.interval,
        **values,
    )

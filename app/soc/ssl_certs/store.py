"""What scans found, judged and written down: many endpoints in a few statements."""

import logging
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any

from celery.exceptions import SoftTimeLimitExceeded
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from django.db import InterfaceError, OperationalError, connection, transaction
from django.db.models import Q
from django.utils import timezone

from soc.common.deadlocks import again_after_deadlock
from soc.ssl_certs import changes, conditions, strength
from soc.ssl_certs.expiry import Nearness
from soc.ssl_certs.models import Certificate, Change, Endpoint, Observation, fingerprints
from soc.ssl_certs.probe import Presented
from soc.ssl_certs.targets import Outcome, ProbeError
from soc.trust import chain, crls
from soc.trust.description import describe, end_of, named
from soc.trust.revocation import Evidence

RETRY = timedelta(minutes=1)
"""When an endpoint that was not reached is tried again, the first time."""

FAILURES_BEFORE_UNREACHABLE = 2

AT_LEAST_EVERY = timedelta(days=1)
"""How long nothing is written down while nothing changes. 10,000 endpoints every hour would make
21 million rows in the 90 days that rows are kept."""

MOST_OF_A_CHAIN = 10
"""Certificates of a presented chain that are kept; honest ones have up to five."""

SPREAD = 0.1
"""The share of its interval by which a scan may come early: what began together comes apart."""

Status = Endpoint.Status

logger = logging.getLogger(__name__)

_NOT_ITS_DOING = (SoftTimeLimitExceeded, OperationalError, InterfaceError)
"""Errors that have nothing to do with the endpoint at which they are raised."""

_SCANNED = (
    *("status", "status_since", "reason", "failures", "certificate", "scans", "outcome", "remarks"),
    *("chain", "fault_depth", "tls_version", "cipher", "address", "elapsed_ms"),
    *("scanned_at", "next_scan_at", "observed_at"),
)
"""The columns of an endpoint that scans write; the others belong to people."""


@dataclass(frozen=True)
class Failed:
    """A scan that saw no certificate, or none that we could judge."""

    endpoint: Endpoint
    at: datetime
    error: ProbeError

    @property
    def outcome(self) -> str:
        """The result in a word, as observations have it."""
        return self.error.outcome.value


@dataclass(frozen=True)
class Judged:
    """A scan that saw a certificate chain, and the verdict on it."""

    endpoint: Endpoint
    at: datetime
    presented: Presented
    verdict: chain.Verdict

    @property
    def outcome(self) -> str:
        """The result in a word, as observations have it."""
        return self.verdict.result.value

    @cached_property
    def fingerprints(self) -> list[str]:
        """The fingerprints of the presented chain, the leaf first."""
        return [_fingerprint(cert) for cert in self.presented.chain[:MOST_OF_A_CHAIN]]

    @cached_property
    def weaknesses(self) -> tuple[str, ...]:
        """What is weak about the path, or about the server's certificate if there is no path."""
        path = self.verdict.path or self.presented.chain[:1]
        public = bool(self.verdict.path) and self.endpoint.authority_id is None
        version, limits = self.presented.tls_version, self.endpoint.strength_limits
        return tuple(strength.weaknesses(path, version, limits, public=public))

    @property
    def remarks(self) -> str:
        """What an operator should know beside the verdict."""
        refusal = self.presented.refusal
        doubt = f"It broke the handshake off ({refusal}), so the key is not proven."
        told = ((doubt,) if refusal else ()) + self.presented.problems + self.verdict.remarks
        told += self.weaknesses
        return " ".join(told)


Finding = Judged | Failed
"""What one scan found of one endpoint."""


def _fingerprint(cert: x509.Certificate) -> str:
    return cert.fingerprint(hashes.SHA256()).hex().upper()


class Judge:
    """Judges what endpoints of one batch present, with trust stores and CRLs read once."""

    def __init__(self, now: datetime) -> None:
        self._lists = crls.Lists(now)

    def judge(self, endpoint: Endpoint, result: Presented | ProbeError) -> Finding:
        """Return the finding of one scan that has just ended."""
        now = timezone.now()
        if isinstance(result, ProbeError):
            return Failed(endpoint, now, result)
        try:
            verdict = self.verify(endpoint, result, now)
        except chain.TrustError as error:
            reason = f"It was not verified, its trust store cannot be used ({error})."
            return Failed(endpoint, now, ProbeError(Outcome.DEFECT, reason))
        except _NOT_ITS_DOING:
            raise
        # One certificate that finds a defect of ours must not cost all the others their scan.
        except Exception as error:
            return _defect(endpoint, now, "judged", error)
        pinned, issuer = fingerprints(endpoint.pinned), endpoint.expected_issuer
        if (pinned or issuer) and (
            other := chain.unexpected(result.chain[0], fingerprints=pinned, issuer=issuer)
        ):
            verdict = chain.with_unexpected(verdict, other)
        return Judged(endpoint, now, result, verdict)

    def verify(self, endpoint: Endpoint, presented: Presented, now: datetime) -> chain.Verdict:
        """Return the verdict on a presented chain by the endpoint's trust store."""
        if endpoint.authority:
            trust = chain.parse_trust(endpoint.authority.pem.encode())
        else:
            trust = self._system
        known = self._lists if endpoint.check_lists else {}
        return chain.verify(
            presented.chain,
            name=endpoint.target.name,
            trust=trust,
            at=now,
            evidence=Evidence(presented.staple, known),
        )

    @cached_property
    def _system(self) -> chain.TrustStore:
        return chain.load_trust([chain.system_bundle()])


def store(found: Sequence[Finding]) -> int:
    """Write findings down and report them; return how many mails that makes.

    A worker that dies before the report has not acknowledged its task: another one scans again.
    """
    if not found:
        return 0
    # Only what a trusted authority has signed makes us connect to an address that it names.
    crls.want(
        finding.verdict.path
        for finding in found
        if isinstance(finding, Judged) and finding.endpoint.check_lists and finding.verdict.path
    )
    return conditions.report(_written(found))


def _written(found: Sequence[Finding]) -> list[conditions.Seen]:
    """Write findings down together, or one by one if one of them cannot be written."""
    try:
        return _write(found)
    except _NOT_ITS_DOING:
        raise
    except Exception as error:
        if len(found) > 1:
            return [seen for finding in found for seen in _written([finding])]
        finding = found[0]
        if isinstance(finding, Failed) and finding.error.outcome is Outcome.DEFECT:
            logger.exception("Nothing can be written down about %s", finding.endpoint)
            return []
        return _written([_defect(finding.endpoint, finding.at, "written down", error)])


def _defect(endpoint: Endpoint, at: datetime, what: str, error: Exception) -> Failed:
    logger.error("What %s presented could not be %s", endpoint, what, exc_info=error)
    reason = f"What it presented could not be {what} ({error!r}): see the worker's log."
    return Failed(endpoint, at, ProbeError(Outcome.DEFECT, reason))


@again_after_deadlock
def _write(found: Sequence[Finding]) -> list[conditions.Seen]:
    with transaction.atomic():
        # In one order in every worker, so that two never wait for each other.
        keys = [finding.endpoint.pk for finding in found]
        rows = Endpoint.objects.filter(pk__in=keys).order_by("pk").select_for_update()
        locked = {row.pk: row for row in rows}
        # Of what was deleted or became another endpoint meanwhile nothing is known.
        found = [
            finding
            for finding in found
            if str(locked.get(finding.endpoint.pk)) == str(finding.endpoint)
        ]
        certificates = _certificates(found, locked)
        seen, observations, changed = [], [], []
        for finding in found:
            row = locked[finding.endpoint.pk]
            before = certificates.of(row)
            observation = _settle(row, finding, certificates)
            if observation:
                observations.append(observation)
            after = certificates.of(row)
            if after and after is not before:
                changed.append(_change(row, finding, before, after))
            # Its alerts were closed when it was disabled, and nothing would close new ones.
            if row.enabled:
                seen.append(_seen(row, finding, after))
        Observation.objects.bulk_create(observations)
        Change.objects.bulk_create(changed)
        _update([locked[finding.endpoint.pk] for finding in found])
    return seen


def _seen(row: Endpoint, finding: Finding, certificate: Certificate | None) -> conditions.Seen:
    if isinstance(finding, Failed):
        return conditions.Seen(row, finding.at, finding.error, certificate)
    return conditions.Seen(row, finding.at, None, certificate, finding.weaknesses)


def _change(
    row: Endpoint, finding: Finding, before: Certificate | None, after: Certificate
) -> Change:
    kind, text = changes.compare(before, after)
    return Change(endpoint=row, at=finding.at, kind=kind, text=text, before=before, after=after)


def _update(rows: Sequence[Endpoint]) -> None:
    """Write what scans know of endpoints in one statement; the rows are locked, so they exist."""
    names_its_target = connection.features.supports_update_conflicts_with_target
    Endpoint.objects.bulk_create(
        rows,
        update_conflicts=True,
        update_fields=list(_SCANNED),
        unique_fields=["id"] if names_its_target else None,
    )


def can_skip_locked() -> bool:
    """Whether the database can; SQLite has one writer at a time and nothing to skip."""
    return connection.features.has_select_for_update_skip_locked


# --- Certificates -------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Certificates:
    """The certificates that findings and their endpoints are about."""

    by_fingerprint: Mapping[str, Certificate]
    by_key: Mapping[int, Certificate]

    def of(self, row: Endpoint) -> Certificate | None:
        """Return the certificate that an endpoint presented last, if it ever did."""
        return None if row.certificate_id is None else self.by_key.get(row.certificate_id)


def _certificates(found: Iterable[Finding], locked: Mapping[int, Endpoint]) -> _Certificates:
    presented = {
        fingerprint: cert
        for finding in found
        if isinstance(finding, Judged)
        for fingerprint, cert in zip(finding.fingerprints, finding.presented.chain, strict=False)
    }
    before = {row.certificate_id for row in locked.values() if row.certificate_id}
    known = _known(Q(fingerprint__in=list(presented)) | Q(pk__in=before))
    if new := [fingerprint for fingerprint in presented if fingerprint not in known]:
        Certificate.objects.bulk_create(
            [_described(presented[fingerprint]) for fingerprint in new], ignore_conflicts=True
        )
        known |= _known(Q(fingerprint__in=new))
    return _Certificates(known, {one.pk: one for one in known.values()})


def _known(which: Q) -> dict[str, Certificate]:
    found = Certificate.objects.filter(which).defer("pem").order_by()
    return {certificate.fingerprint: certificate for certificate in found}


def _described(cert: x509.Certificate) -> Certificate:
    description = asdict(describe(cert))
    fingerprint = description.pop("fingerprint_sha256")
    for derived in ("is_ca", "self_signed"):
        del description[derived]
    for name in ("serial", "key", "signature"):
        # Nothing bounds a serial number or an object identifier but the certificate's own size.
        field: Any = Certificate._meta.get_field(name)
        description[name] = description[name][: field.max_length]
    pem = cert.public_bytes(Encoding.PEM).decode()
    return Certificate(fingerprint=fingerprint, pem=pem, **description)


# --- Endpoints ----------------------------------------------------------------------------------


def _settle(row: Endpoint, finding: Finding, certificates: _Certificates) -> Observation | None:
    """Bring an endpoint's row up to date; return an observation if there is news, or once a day."""
    known = row.outcome, row.status, row.certificate_id, tuple(row.chain), row.tls_version
    row.scans += 1
    row.scanned_at = finding.at
    row.outcome = finding.outcome
    wait = row.interval * random.uniform(1 - SPREAD, 1)  # noqa: S311
    if isinstance(finding, Failed):
        row.failures += 1
        if row.failures < FAILURES_BEFORE_UNREACHABLE:
            wait = min(RETRY, row.interval)
        else:
            _become(row, Status.UNREACHABLE, finding.error.detail, finding.at)
    else:
        _take(row, finding, certificates)
    row.next_scan_at = finding.at + wait
    news = known != (row.outcome, row.status, row.certificate_id, tuple(row.chain), row.tls_version)
    if not news and row.observed_at and abs(finding.at - row.observed_at) < AT_LEAST_EVERY:
        return None
    row.observed_at = finding.at
    return _observation(row, finding)


def _take(row: Endpoint, finding: Judged, certificates: _Certificates) -> None:
    """Take over what an endpoint presented."""
    presented = finding.presented
    row.failures = 0
    row.chain = [certificates.by_fingerprint[one].pk for one in finding.fingerprints]
    certificate = certificates.by_fingerprint[finding.fingerprints[0]]
    row.certificate_id = certificate.pk
    row.fault_depth = _position_of_fault(finding)
    row.remarks = finding.remarks
    row.tls_version = presented.tls_version
    row.cipher = presented.cipher
    row.address = presented.address
    row.elapsed_ms = presented.elapsed_ms
    status, reason = judge_status(finding.endpoint, certificate, finding.verdict, finding.at)
    _become(row, status, reason, finding.at)


def _position_of_fault(finding: Judged) -> int | None:
    """Return where the certificate at fault stands in what was presented, in whatever order.

    A fault above all that was presented is the last certificate's: what it needs is not there.
    """
    verdict, presented = finding.verdict, finding.presented.chain
    if verdict.depth is None:
        return None
    if verdict.fault in presented:
        return presented.index(verdict.fault)
    return min(verdict.depth, len(presented) - 1)


def judge_status(
    endpoint: Endpoint, certificate: Certificate, verdict: chain.Verdict, now: datetime
) -> tuple[Status, str]:
    """Return what a verdict and the time that is left make of an endpoint, and why."""
    if verdict.result != chain.Validity.VALID:
        return Status.INVALID, verdict.reason
    if certificate.not_after is None:
        return Status.INVALID, "The end of its validity cannot be read."
    left = certificate.not_after - now
    reason = f"It expires in {left.days} days, on {certificate.not_after:%Y-%m-%d %H:%M} UTC."
    near = endpoint.limits.nearness(certificate.not_before, certificate.not_after, now)
    above = _first_end_above(endpoint, verdict, now)
    if above and list(Nearness).index(above[0]) > list(Nearness).index(near):
        return Status(above[0].value), f"{above[1]} {reason}"
    return Status(near.value), reason


def _first_end_above(
    endpoint: Endpoint, verdict: chain.Verdict, now: datetime
) -> tuple[Nearness, str] | None:
    """Return how near the first end of an issuer or authority of the path is, and a sentence.

    From then on the server's certificate is worth nothing, however long it lasts. The days alone
    count: no machine renews an authority at a share of its lifetime.
    """
    if len(verdict.path) < 2:
        return None
    ends = [(end_of(cert), depth) for depth, cert in enumerate(verdict.path) if depth]
    end, depth = min(ends)
    cert = verdict.path[depth]
    near = endpoint.limits.nearness(None, end, now)
    days = (end - now).days
    text = f"{named(cert, depth)} expires in {days} days, on {end:%Y-%m-%d %H:%M} UTC."
    return near, text


def _become(row: Endpoint, status: Status, reason: str, now: datetime) -> None:
    """Give an endpoint a status; ``status_since`` moves only when it changes."""
    if status != row.status:
        row.status_since = now
    row.status, row.reason = status, reason


def _observation(row: Endpoint, finding: Finding) -> Observation:
    if isinstance(finding, Failed):
        return Observation(
            endpoint=row,
            at=finding.at,
            outcome=finding.outcome,
            status=row.status,
            detail=finding.error.detail,
        )
    return Observation(
        endpoint=row,
        at=finding.at,
        outcome=finding.outcome,
        status=row.status,
        detail=" ".join(filter(None, (finding.verdict.reason, row.remarks))),
        certificate_id=row.certificate_id,
        chain_length=len(finding.presented.chain),
        address=row.address,
        tls_version=row.tls_version,
        cipher=row.cipher,
        elapsed_ms=row.elapsed_ms,
    )

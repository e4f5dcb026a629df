"""Has a certificate been renewed? Asked by a person, answered for every address of the name."""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import closing
from datetime import datetime

from django.utils import timezone

from soc.schedules.schedules import request_run
from soc.ssl_certs import probe, scan, store
from soc.ssl_certs.expiry import Nearness
from soc.ssl_certs.models import Certificate, Endpoint, Verification
from soc.ssl_certs.targets import ProbeError, Target
from soc.trust import chain
from soc.trust.description import Description, describe

TASK = "soc.ssl_certs.tasks.verify_renewal"

MOST_ADDRESSES = 32

Outcome = Verification.Outcome


def ask(endpoint: Endpoint, by: str) -> Verification:
    """Write the question down, and have beat start the task that answers it."""
    asked = Verification.objects.create(
        endpoint=endpoint, requested_by=by, before=endpoint.certificate
    )
    request_run(f"verify {endpoint}", TASK, by, {"key": asked.pk})
    return asked


def verify(key: int) -> int:
    """Answer a question and scan the endpoint; return how many mails that makes.

    A question that is answered already, or gone, is left alone.
    """
    open_ones = Verification.objects.filter(pk=key, finished_at=None)
    asked = open_ones.select_related("endpoint__authority", "endpoint__group", "before").first()
    if asked is None:
        return 0
    now = timezone.now()
    found = _found(asked.endpoint, asked.before, now)
    outcome = _outcome(found)
    open_ones.update(found=found, outcome=outcome, finished_at=timezone.now())
    return scan.scan([asked.endpoint_id])


def _found(
    endpoint: Endpoint, before: Certificate | None, now: datetime
) -> list[dict[str, object]]:
    """Return what each address presents."""
    try:
        addresses = asyncio.run(probe.resolve(endpoint.target))
    except ProbeError as error:
        return [{"address": endpoint.host, "error": error.detail}]
    # Where the name leads now, each address once, in the order of the resolver.
    hosts = list(dict.fromkeys(address[0] for _, address in addresses))[:MOST_ADDRESSES]
    target = endpoint.target
    targets = {host: Target(host, target.port, target.name, target.starttls) for host in hosts}
    judge = store.Judge(now)
    with closing(probe.collect_many(targets)) as results:
        found = {
            host: _told(endpoint, before, judge.judge(endpoint, result)) for host, result in results
        }
    return [{"address": host, **found[host]} for host in hosts]


def _told(
    endpoint: Endpoint, before: Certificate | None, finding: store.Finding
) -> dict[str, object]:
    if isinstance(finding, store.Failed):
        return {"error": finding.error.detail}
    description = describe(finding.presented.chain[0])
    valid = finding.verdict.result == chain.Validity.VALID
    return {
        "fingerprint": description.fingerprint_sha256,
        "issuer": description.issuer,
        "until": description.not_after.isoformat() if description.not_after else "",
        "valid": valid,
        "reason": "" if valid else finding.verdict.reason,
        "renewed": _is_renewed(endpoint, before, description, finding),
    }


def _is_renewed(
    endpoint: Endpoint,
    before: Certificate | None,
    description: Description,
    finding: store.Finding,
) -> bool:
    """Whether a certificate ends later than the one before, or is far from its end.

    A scan may have seen the new certificate before anybody asked.
    """
    until = description.not_after
    if until is None:
        return False
    if before and before.not_after and until > before.not_after:
        return True
    near = endpoint.limits.nearness(description.not_before, until, finding.at)
    return near is Nearness.FAR


def _outcome(found: Sequence[Mapping[str, object]]) -> Outcome:
    reached = [one for one in found if "error" not in one]
    if not reached:
        return Outcome.UNREACHABLE
    renewed = [one for one in reached if one["renewed"]]
    if not renewed:
        return Outcome.NOT_YET
    if len(renewed) < len(found):
        return Outcome.PARTLY
    return Outcome.RENEWED if all(one["valid"] for one in found) else Outcome.INVALID

"""The tasks of the ssl_certs queue."""

from celery.exceptions import SoftTimeLimitExceeded

from soc.celery import app
from soc.notify.tasks import wake
from soc.ssl_certs import scan
from soc.ssl_certs.models import Endpoint, Observation


@app.task
def scan_due() -> int:
    """Queue one scan per endpoint that is due, and return how many."""
    keys = list(scan.claim_due())
    for key in keys:
        scan_endpoint.apply_async((key,), expires=scan.CLAIM.total_seconds())
    return len(keys)


@app.task(soft_time_limit=30)
def scan_endpoint(key: int) -> None:
    """Scan one endpoint; running twice records two observations and harms nothing."""
    endpoint = Endpoint.objects.filter(pk=key).select_related("authority").first()
    if endpoint is None:
        return
    try:
        mails = scan.scan(endpoint)
    except SoftTimeLimitExceeded:
        # Only the resolver has no deadline of its own (resolv.conf(5) sets its patience).
        mails = scan.record_failure(endpoint, Observation.TIMEOUT, "The scan did not end in 30 s.")
    if mails:
        wake()

"""The tasks of the ssl_certs queue."""

from celery.exceptions import SoftTimeLimitExceeded
from django.utils import timezone

from soc.common.batches import batched
from soc.notify.tasks import wake
from soc.runtime.celery import app
from soc.ssl_certs import authorities, scan, searches, verification
from soc.trust import crls


@app.task
def scan_due() -> int:
    """Queue the scans of the endpoints that are due, and return how many endpoints that are."""
    keys = scan.claim_due()
    for batch in batched(keys, scan.BATCH):
        scan_batch.apply_async((batch,), expires=scan.CLAIM.total_seconds())
    return len(keys)


@app.task
def scan_batch(keys: list[int]) -> None:
    """Scan endpoints; running twice finds nothing new and harms nothing."""
    since = timezone.now()
    try:
        mails = scan.scan(keys)
    except SoftTimeLimitExceeded:
        mails = scan.record_timeouts(keys, since)
    if mails:
        wake()


@app.task
def scan_endpoint(key: int) -> None:
    """Scan one endpoint."""
    scan_batch.run([key])


@app.task
def verify_renewal(key: int) -> None:
    """Answer a person's question whether a certificate has been renewed."""
    if verification.verify(key):
        wake()


@app.task
def search_ranges(key: int) -> None:
    """Look for endpoints in address ranges and watch those that present a certificate."""
    searches.search(key)


@app.task
def report_authorities() -> None:
    """Report certificates of authorities' bundles that end soon."""
    if authorities.report_ends(timezone.now()):
        wake()


@app.task
def fetch_lists() -> int:
    """Fetch the revocation lists that are due, and return how many."""
    return crls.fetch_due()

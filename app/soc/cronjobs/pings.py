"""Addresses that jobs ask for when they have run; their secrets are kept as API tokens' are."""

from django.utils import timezone

from soc.alerts import engine
from soc.core import tokens
from soc.core.links import absolute
from soc.cronjobs import conditions
from soc.cronjobs.models import LONGEST_TEXT, CronJob


def renew(job: CronJob) -> str:
    """Give a job another address, without saving it; return the address, which nobody has later."""
    secret = tokens.new_secret()
    job.digest = tokens.digest(secret)
    return absolute("ping", secret)


def of_secret(secret: str) -> CronJob | None:
    """Return the job of an address, or None; it is found by a digest, as a token is."""
    return CronJob.objects.filter(digest=tokens.digest(secret), enabled=True).first()


def take(job: CronJob, *, failed: bool, address: str | None, text: str) -> None:
    """Note that a job has run, and report how it is at once."""
    job.last_ping_at = timezone.now()
    job.last_ping_from = address
    job.failed = failed
    job.last_text = text[:LONGEST_TEXT]
    job.save(update_fields=["last_ping_at", "last_ping_from", "failed", "last_text"])
    engine.report([conditions.of(job, job.last_ping_at)])

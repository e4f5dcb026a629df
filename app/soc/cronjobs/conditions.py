"""Whether jobs have run: what is reported of each, when it is heard of and when it is not."""

from datetime import datetime, timedelta

from django.urls import reverse

from soc.alerts import actions, engine
from soc.alerts.conditions import Condition
from soc.alerts.models import OPEN, Alert
from soc.alerts.spans import in_words
from soc.common.times import local
from soc.core.severity import Severity
from soc.cronjobs.models import CronJob

APPLICATION = "cronjobs"
RULE = "ran"


def of(job: CronJob, now: datetime) -> Condition:
    """Return the condition of a job."""
    period, grace = (timedelta(minutes=minutes) for minutes in (job.period, job.grace))
    facts = {"Period": in_words(period), "Grace": in_words(grace)}
    if job.last_ping_at:
        facts["Last heard of"] = local(job.last_ping_at)
        facts["From"] = job.last_ping_from or ""
    if job.last_text:
        facts["It said"] = job.last_text
    summary = _summary(job, now)
    return Condition(
        application=APPLICATION,
        rule=RULE,
        subject=job.name,
        severity=Severity(job.severity) if summary else Severity.OK,
        observed_at=now,
        summary=summary,
        facts=facts,
        link=reverse("cronjobs"),
        site=job.site,
    )


def watch(now: datetime) -> int:
    """Report every job, end the alerts of those that are gone; return the number of new mails."""
    jobs = list(CronJob.objects.filter(enabled=True).order_by("pk"))
    ours = Alert.objects.filter(OPEN, rule__application=APPLICATION, rule__name=RULE)
    gone = ours.exclude(subject__name__in=[job.name for job in jobs])
    actions.resolve(gone, "", "It is no longer watched.")
    return sum(result.mails for result in engine.report(of(job, now) for job in jobs))


def _summary(job: CronJob, now: datetime) -> str:
    """Return what is wrong, or nothing."""
    if job.expected_by <= now:
        if job.last_ping_at is None:
            return f"It has not run since it was entered {in_words(now - job.created_at)} ago."
        return f"It has not run for {in_words(now - job.last_ping_at)}."
    return "Its last run failed." if job.failed else ""

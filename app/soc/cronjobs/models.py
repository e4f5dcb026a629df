"""Jobs that run elsewhere, and when each was last heard of."""

from datetime import datetime, timedelta

from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.utils import timezone

from soc.core.severity import Severity

LONGEST_PERIOD = 366 * 24 * 60
LONGEST_TEXT = 2_000

_BAD = [(severity.value, severity.label) for severity in Severity if severity]


class CronJob(models.Model):
    """A job that asks for its address each time it has run: silence is what raises the alert."""

    name = models.CharField(
        max_length=100, unique=True, help_text="What the alert is about, such as backup of db1."
    )
    enabled = models.BooleanField(
        default=True, help_text="Off: its address works no more, and its alert ends."
    )
    period = models.PositiveIntegerField(
        "period (min)",
        default=24 * 60,
        validators=[MinValueValidator(1), MaxValueValidator(LONGEST_PERIOD)],
        help_text="The time from one run to the next.",
    )
    grace = models.PositiveIntegerField(
        "grace (min)",
        default=60,
        validators=[MaxValueValidator(LONGEST_PERIOD)],
        help_text="How much later than that it may be. Once a day by the clock on the wall: at "
        "least 60, for the days on which clocks change.",
    )
    severity = models.PositiveSmallIntegerField(choices=_BAD, default=Severity.CRITICAL)
    site = models.CharField("location", max_length=64, blank=True)
    digest = models.CharField(
        max_length=64, unique=True, editable=False, help_text="The SHA-256 of its secret."
    )
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    last_ping_at = models.DateTimeField(null=True, editable=False)
    last_ping_from = models.GenericIPAddressField(null=True, editable=False)
    failed = models.BooleanField(default=False, editable=False)
    last_text = models.TextField(blank=True, editable=False)

    address = ""
    """Its address while it is new; nothing keeps it."""

    class Meta:
        ordering = ("name",)
        verbose_name = "cron job"

    def __str__(self) -> str:
        return self.name

    @property
    def expected_by(self) -> datetime:
        """The moment from which on the job is missing; a new one counts from when it was made."""
        last = self.last_ping_at or self.created_at
        return last + timedelta(minutes=self.period + self.grace)

"""Logons of robots, and from which values on they are a problem."""

from datetime import timedelta
from typing import Self

from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models

from soc.events.models import Derived
from soc.logons import messages
from soc.provision.environment import split

SECOND = timedelta(seconds=1)


def validate_event_ids(value: str) -> None:
    """Check a list of event ids, comma separated.

    Raises:
        ValidationError: there is none, or one is no number.
    """
    if not split(value):
        raise ValidationError("At least one event id is needed.")
    if wrong := [part for part in split(value) if not (part.isascii() and part.isdecimal())]:
        raise ValidationError(f"Not an event id: {', '.join(wrong)}")


class LogonEvent(Derived):
    """One attempt of a robot to log on at a published desktop; times in milliseconds."""

    class State(models.TextChoices):
        """How it ended."""

        SUCCEEDED = messages.Outcome.SUCCEEDED.value
        FAILED = messages.Outcome.FAILED.value
        UNKNOWN = messages.Outcome.UNKNOWN.value

    state = models.CharField(max_length=10, choices=State)
    event_id = models.PositiveIntegerField()
    resource = models.CharField(max_length=messages.LONGEST_NAME, blank=True)
    broker = models.CharField(max_length=messages.LONGEST_NAME, blank=True)
    reason = models.CharField(max_length=messages.LONGEST_REASON, blank=True)
    store_ms = models.PositiveIntegerField("store connection (ms)", null=True)
    client_ms = models.PositiveIntegerField("client start (ms)", null=True)
    connection_ms = models.PositiveIntegerField("connection (ms)", null=True)
    logon_ms = models.PositiveIntegerField("logon (ms)", null=True)
    logoff_ms = models.PositiveIntegerField("logoff (ms)", null=True)
    response_ms = models.PositiveIntegerField(
        "response (ms)", null=True, help_text="All but the logoff: what a person waits for."
    )

    class Meta:
        ordering = ("-at",)
        indexes = (models.Index(fields=["at"], name="logons_event_time"),)

    def __str__(self) -> str:
        return f"{self.state} at {self.at:%Y-%m-%d %H:%M:%S}"


class LogonSettings(models.Model):
    """From which values on logons are a problem; there is one row."""

    silent_after = models.DurationField(
        default=timedelta(minutes=10),
        validators=[MinValueValidator(SECOND)],
        help_text="The timeout after which a robot that sends nothing is silent (h:mm:ss).",
    )
    failures = models.PositiveSmallIntegerField(
        default=2,
        validators=[MinValueValidator(1)],
        help_text="The number of failed logons of a robot that are a problem…",
    )
    failures_within = models.DurationField(
        default=timedelta(minutes=10),
        validators=[MinValueValidator(SECOND), MaxValueValidator(timedelta(hours=24))],
        help_text="…within this time (h:mm:ss).",
    )
    slow_above = models.DurationField(
        default=timedelta(seconds=10),
        validators=[MinValueValidator(SECOND)],
        help_text="A response that takes longer is slow (h:mm:ss), on average…",
    )
    slow_within = models.DurationField(
        default=timedelta(minutes=10),
        validators=[MinValueValidator(SECOND), MaxValueValidator(timedelta(hours=24))],
        help_text="…over this time (h:mm:ss).",
    )
    cluster = models.PositiveSmallIntegerField(
        default=5,
        validators=[MinValueValidator(2)],
        help_text="The number of failures of any robots that are a cluster…",
    )
    cluster_within = models.DurationField(
        default=timedelta(minutes=5),
        validators=[MinValueValidator(SECOND), MaxValueValidator(timedelta(hours=24))],
        help_text="…within this time (h:mm:ss)…",
    )
    cluster_event_ids = models.CharField(
        max_length=200,
        default="1006, 1007, 1016, 1017",
        validators=[validate_event_ids],
        help_text="…with these event ids, comma separated.",
    )
    clusters_an_hour = models.PositiveSmallIntegerField(
        default=3,
        validators=[MinValueValidator(1)],
        help_text="More alerts of clusters than this are not raised within an hour.",
    )

    class Meta:
        verbose_name = verbose_name_plural = "logon settings"

    def __str__(self) -> str:
        return "Settings of the logons"

    @classmethod
    def current(cls) -> Self:
        """Return the settings, or the defaults where the row is missing."""
        return cls.objects.first() or cls(pk=1)

    @property
    def event_ids_of_clusters(self) -> frozenset[int]:
        """The event ids that count for a cluster."""
        return frozenset(int(part) for part in split(self.cluster_event_ids))

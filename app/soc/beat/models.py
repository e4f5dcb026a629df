"""What beat keeps beside django-celery-beat's tables, which stay as they are."""

from django.db import models
from django.utils import timezone
from django_celery_beat.models import PeriodicTask


class TaskOptions(models.Model):
    """What a schedule's owner chooses beyond django-celery-beat; no row means the defaults."""

    class Missed(models.TextChoices):
        """What happens to runs that nobody could start in time."""

        SKIP = "skip", "skip them"
        ONCE = "once", "run once, late"

    class Delivery(models.TextChoices):
        """What happens to a run if beat or the broker dies while it is being published."""

        AT_MOST_ONCE = "at_most_once", "at most once: rather lost than doubled"
        AT_LEAST_ONCE = "at_least_once", "at least once: rather doubled than lost"

    task = models.OneToOneField(
        PeriodicTask, on_delete=models.CASCADE, primary_key=True, related_name="beat_options"
    )
    missed = models.CharField(
        "missed runs",
        max_length=8,
        choices=Missed,
        default=Missed.SKIP,
        help_text=(
            "What to do about runs that were due while no beat was running, once they are more "
            "than half a minute late. However many were missed, one run makes up for them. A "
            "one-off task always runs late rather than never."
        ),
    )
    delivery = models.CharField(
        max_length=16,
        choices=Delivery,
        default=Delivery.AT_MOST_ONCE,
        help_text=(
            "At most once: a run is recorded before it is published; a crash in between loses it. "
            "At least once: it is recorded when the broker has confirmed it; a crash in between "
            "publishes it again, with the same task id. Choose this only for tasks that may run "
            "twice."
        ),
    )
    problem = models.TextField(
        blank=True,
        editable=False,
        help_text="Why beat disabled the schedule or could not publish it; empty if all is well.",
    )
    problem_at = models.DateTimeField(null=True, editable=False)

    class Meta:
        verbose_name = "beat options"
        verbose_name_plural = "beat options"

    def __str__(self) -> str:
        return f"{self.missed}, {self.delivery}"


class Lease(models.Model):
    """The one row that says which beat is active; the database's clock decides when it ends."""

    owner = models.CharField(max_length=128, blank=True)
    epoch = models.BigIntegerField(default=0, help_text="grows with every change of owner")
    expires_at = models.DateTimeField()
    recorded_until = models.DateTimeField(
        null=True, help_text="runs that were due until then have been recorded or dropped"
    )

    def __str__(self) -> str:
        return f"{self.owner} #{self.epoch}"


class Instance(models.Model):
    """A running beat, as it last described itself."""

    name = models.CharField(max_length=128, primary_key=True, help_text="host and a random part")
    leader = models.BooleanField(help_text="whether it is the active one")
    started_at = models.DateTimeField()
    ticked_at = models.DateTimeField(db_index=True)
    lag = models.FloatField(help_text="age of the oldest due run in seconds, 0 without one")
    schedules = models.PositiveIntegerField(help_text="enabled schedules loaded")
    published = models.PositiveBigIntegerField(help_text="runs published since the start")
    blocked_since = models.DateTimeField(
        null=True, help_text="since when the broker has taken no messages, if it takes none"
    )
    lost = models.PositiveBigIntegerField(
        help_text="runs since the start that the broker did not confirm and that are not repeated"
    )

    def __str__(self) -> str:
        return self.name


class LagSample(models.Model):
    """How late the active beat was in one period: the greatest lag, in seconds."""

    at = models.DateTimeField(default=timezone.now, db_index=True)
    lag = models.FloatField()
    published = models.PositiveIntegerField(help_text="runs published in the period")

    def __str__(self) -> str:
        return f"{self.lag:.3f} s"

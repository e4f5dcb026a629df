"""What the stack knows about itself, and the tokens that programs use it with."""

from dataclasses import dataclass
from datetime import timedelta

from django.db import models
from django.utils import timezone

ALIVE_FOR = timedelta(seconds=45)
"""A process that has not been heard of for longer counts as gone, wherever it is shown."""


@dataclass(frozen=True)
class Retention:
    """How long housekeeping keeps a model's rows, by the age of one of its time fields."""

    field: str
    days: int


RETENTION_OF_PACKAGES: dict[type[models.Model], Retention] = {}
"""Of models that are not ours and so have no ``retention``."""


class Heartbeat(models.Model):
    """The last sign of life of one process: a worker, or beat with its last tick."""

    service = models.CharField(max_length=64)
    instance = models.CharField(max_length=128)
    seen_at = models.DateTimeField(db_index=True)

    retention = Retention("seen_at", days=1)

    class Meta:
        constraints = (
            models.UniqueConstraint(fields=["service", "instance"], name="heartbeat_identity"),
        )

    def __str__(self) -> str:
        return f"{self.service} {self.instance}"

    @property
    def is_alive(self) -> bool:
        """Whether the process has been heard of recently."""
        return timezone.now() - self.seen_at < ALIVE_FOR


class QueueSample(models.Model):
    """The state of one queue at one moment, as the broker told it."""

    queue = models.CharField(max_length=64)
    at = models.DateTimeField(default=timezone.now)
    depth = models.PositiveIntegerField(help_text="messages ready for a worker")
    consumers = models.PositiveIntegerField(help_text="workers that consume the queue")
    dead = models.PositiveIntegerField(help_text="messages in the dead-letter queue")

    retention = Retention("at", days=2)

    class Meta:
        indexes = (
            models.Index(fields=["queue", "-at"], name="queue_sample_latest"),
            models.Index(fields=["at"], name="queue_sample_age"),
        )

    def __str__(self) -> str:
        return f"{self.queue}: {self.depth}"


class TaskFailure(models.Model):
    """A task that ended in an error or ran into its time limit."""

    class Kind(models.TextChoices):
        """Why the task failed."""

        ERROR = "error"
        TIMEOUT = "timeout"

    task = models.CharField(max_length=200, db_index=True)
    task_id = models.CharField(max_length=64)
    kind = models.CharField(max_length=10, choices=Kind)
    error = models.TextField()
    traceback = models.TextField()
    arguments = models.TextField()
    at = models.DateTimeField(default=timezone.now, db_index=True)

    retention = Retention("at", days=30)

    class Meta:
        ordering = ("-at",)

    def __str__(self) -> str:
        return f"{self.task} {self.kind}"


class DeadTask(models.Model):
    """A task's message that the broker gave up; it waits for a person."""

    class State(models.TextChoices):
        """What became of it."""

        WAITING = "waiting"
        REPLAYED = "replayed"
        DISCARDED = "discarded"

    queue = models.CharField(max_length=64)
    digest = models.CharField(max_length=32, editable=False)
    task = models.CharField(max_length=200, blank=True)
    task_id = models.CharField(max_length=64, blank=True)
    body = models.TextField(help_text="The message's text as it came.")
    reason = models.CharField(max_length=200)
    times = models.PositiveIntegerField(default=1, help_text="How often the same message came.")
    state = models.CharField(max_length=10, choices=State, default=State.WAITING)
    first_seen_at = models.DateTimeField()
    last_seen_at = models.DateTimeField(db_index=True)
    settled_at = models.DateTimeField(null=True, help_text="When it was replayed or discarded.")
    settled_by = models.CharField(max_length=150, blank=True)
    note = models.CharField(max_length=200, blank=True, help_text="Why it was discarded.")

    retention = Retention("last_seen_at", days=30)

    class Meta:
        ordering = ("-last_seen_at", "-pk")
        verbose_name = "dead letter"
        constraints = (
            models.UniqueConstraint(fields=["queue", "digest"], name="dead_task_identity"),
        )
        indexes = (models.Index(fields=["state", "queue"], name="dead_task_waiting"),)

    def __str__(self) -> str:
        return f"{self.task or 'unreadable message'} of {self.queue}"


class ApiToken(models.Model):
    """What a program shows instead of a password; it may do what its user may do."""

    name = models.CharField(
        max_length=100, unique=True, help_text="Where it is used, such as the host or the script."
    )
    user = models.ForeignKey("auth.User", on_delete=models.CASCADE)
    digest = models.CharField(
        max_length=64, unique=True, editable=False, help_text="The SHA-256 of the secret."
    )
    enabled = models.BooleanField(default=True)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    expires_at = models.DateTimeField(null=True, blank=True, help_text="Empty: never.")
    last_used_at = models.DateTimeField(null=True, editable=False)

    secret: str
    """Of a new token until it was shown; it is not stored."""

    class Meta:
        ordering = ("name",)
        verbose_name = "API token"

    def __str__(self) -> str:
        return self.name

    @property
    def state(self) -> str:
        """Either ``works``, ``disabled``, as all tokens of a disabled user are, or ``expired``."""
        if not (self.enabled and self.user.is_active):
            return "disabled"
        over = self.expires_at is not None and self.expires_at <= timezone.now()
        return "expired" if over else "works"

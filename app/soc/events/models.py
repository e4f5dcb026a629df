"""Robots and their sites, the events they ship, and what became of what could not be read."""

from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.utils import timezone

from soc.core.models import Retention
from soc.events.fields import DigestField, validate_zone

LONGEST_HOST = 255
LONGEST_SOURCE = 255
"""Of a provider's or a channel's name: what Windows allows."""

LONGEST_PROBLEM = 300
LONGEST_KIND = 30
LONGEST_PATH = 200


class Site(models.Model):
    """A place where robots run."""

    name = models.CharField(max_length=64, unique=True)
    time_zone = models.CharField(
        max_length=64, blank=True, validators=[validate_zone], help_text="Empty: this server's own."
    )
    notes = models.TextField(blank=True)

    class Meta:
        ordering = ("name",)

    def __str__(self) -> str:
        return self.name

    @property
    def zone(self) -> ZoneInfo:
        """The time zone of the site."""
        return ZoneInfo(self.time_zone or settings.TIME_ZONE)


class Bot(models.Model):
    """A robot, which is the Windows host that it runs on; unknown ones are added as they speak."""

    host = models.CharField(
        max_length=LONGEST_HOST, unique=True, help_text="As Winlogbeat names it, in small letters."
    )
    site = models.ForeignKey(
        Site, null=True, blank=True, on_delete=models.SET_NULL, related_name="bots"
    )
    enabled = models.BooleanField(
        default=True, help_text="The events of a disabled one are stored; nobody is alerted."
    )
    expected_minutes = models.PositiveIntegerField(
        "expected every (min)",
        null=True,
        blank=True,
        validators=[MinValueValidator(1), MaxValueValidator(24 * 60)],
        help_text=(
            "How often it checks something: it is silent after twice that, also before its first "
            "event. Empty: the settings' limits hold from its first event on."
        ),
    )
    addresses = models.JSONField(default=list, editable=False)
    notes = models.TextField(blank=True)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        ordering = ("host",)

    def __str__(self) -> str:
        return self.host

    def save(self, **options: Any) -> None:
        """Save with the name in small letters, as hosts are compared."""
        self.host = self.host.strip().lower()
        super().save(**options)

    def clean(self) -> None:
        """Refuse a name that is another robot's.

        Raises:
            ValidationError: the name is another robot's alias.
        """
        self.host = self.host.strip().lower()
        if alias := BotAlias.objects.filter(name=self.host).exclude(bot=self.pk).first():
            raise ValidationError(
                {"host": f"This is an alias of the robot {alias.bot}: merge the two instead."}
            )

    @property
    def interval(self) -> timedelta | None:
        """How often it is expected to be heard of, if that is known."""
        return timedelta(minutes=self.expected_minutes) if self.expected_minutes else None


class BotAlias(models.Model):
    """Another name of a robot's host: its short or full name, or what it was called before."""

    name = models.CharField(max_length=LONGEST_HOST, unique=True)
    bot = models.ForeignKey(Bot, on_delete=models.CASCADE, related_name="aliases")

    class Meta:
        ordering = ("name",)
        verbose_name = "alias"
        verbose_name_plural = "aliases"

    def __str__(self) -> str:
        return self.name

    def clean(self) -> None:
        """Refuse the name of a robot.

        Raises:
            ValidationError: a robot goes by that name.
        """
        self.name = self.name.strip().lower()
        if Bot.objects.filter(host=self.name).exists():
            raise ValidationError({"name": "This is a robot's name: merge the two robots instead."})


class BotSeen(models.Model):
    """When a robot was last known to live, by the kind of its events.

    ``at`` is the time of its newest fresh event, by its own clock; None if all came too late.
    ``arrived_at`` is when any event last came, by ours: a clock that is slow silences nobody.
    """

    bot = models.ForeignKey(Bot, on_delete=models.CASCADE, related_name="seen")
    kind = models.CharField(max_length=LONGEST_KIND)
    at = models.DateTimeField("of", null=True)
    arrived_at = models.DateTimeField("arrived", null=True)

    class Meta:
        constraints = (models.UniqueConstraint(fields=["bot", "kind"], name="events_bot_seen"),)

    def __str__(self) -> str:
        return f"{self.bot_id} {self.kind} {self.at}"

    def absorb(self, other: "BotSeen") -> None:
        """Keep the later times of two robots that become one."""
        self.at = later(self.at, other.at)
        self.arrived_at = later(self.arrived_at, other.arrived_at)
        self.save(update_fields=["at", "arrived_at"])

    @property
    def heard_at(self) -> datetime | None:
        """When it was last heard of, by either clock."""
        return later(self.at, self.arrived_at)


def later(one: datetime | None, other: datetime | None) -> datetime | None:
    """Return the later of two times that may be unknown."""
    return max((at for at in (one, other) if at), default=None)


class BotDelay(models.Model):
    """By how much a robot's events come after their time, at least, within five minutes."""

    bot = models.ForeignKey(Bot, on_delete=models.CASCADE, related_name="+")
    slot = models.DateTimeField(help_text="When the five minutes began.")
    seconds = models.FloatField(help_text="Below zero: the robot's clock is ahead.")

    retention = Retention("slot", days=1)

    class Meta:
        constraints = (models.UniqueConstraint(fields=["bot", "slot"], name="events_bot_delay"),)

    def __str__(self) -> str:
        return f"{self.bot_id} {self.slot:%H:%M} {self.seconds:.1f} s"


class EventSource(models.Model):
    """Where events may come from: only those of allowed sources are stored."""

    provider = models.CharField(max_length=LONGEST_SOURCE)
    channel = models.CharField(max_length=LONGEST_SOURCE)
    allowed = models.BooleanField(
        default=False, help_text="Events of other sources are counted and dropped."
    )
    description = models.CharField(max_length=200, blank=True)
    dropped = models.PositiveBigIntegerField(default=0, editable=False)
    dropped_at = models.DateTimeField("last dropped", null=True, editable=False)

    class Meta:
        ordering = ("provider", "channel")
        constraints = (
            models.UniqueConstraint(fields=["provider", "channel"], name="events_source_identity"),
        )
        verbose_name = "source"

    def __str__(self) -> str:
        return f"{self.provider} in {self.channel}"


class Event(models.Model):
    """A Windows event as it came.

    Nothing but the two keys is indexed and no other table is locked: this table is written to
    thousands of times a second. Rows are deleted from the front, in the order of their arrival.
    """

    digest = DigestField()
    bot = models.ForeignKey(
        Bot, on_delete=models.DO_NOTHING, db_constraint=False, db_index=False, related_name="+"
    )
    source = models.ForeignKey(
        EventSource, on_delete=models.DO_NOTHING, db_constraint=False, db_index=False
    )
    record_id = models.PositiveBigIntegerField()
    event_id = models.PositiveIntegerField()
    level = models.CharField(max_length=20, blank=True)
    at = models.DateTimeField(help_text="When the robot's clock says that it happened.")
    received_at = models.DateTimeField()
    stale = models.BooleanField(help_text="It came too late to say anything about the present.")
    problem = models.CharField(
        max_length=LONGEST_PROBLEM, blank=True, help_text="Why an application could not use it."
    )
    raw = models.TextField()

    class Meta:
        constraints = (
            # The time first: new rows go to the end of the index, not all over it.
            models.UniqueConstraint(fields=["at", "digest"], name="events_event_identity"),
        )

    def __str__(self) -> str:
        return f"{self.event_id} at {self.at:%Y-%m-%d %H:%M:%S}"


class Derived(models.Model):
    """What an application makes of an event: at most one row per event and model.

    ``digest`` is the event's own; the row outlives the raw event. ``at`` is the event's time, but
    never ahead of ours.
    """

    digest = DigestField(unique=True)
    bot = models.ForeignKey(Bot, on_delete=models.CASCADE, related_name="+")
    at = models.DateTimeField()
    received_at = models.DateTimeField()
    stale = models.BooleanField(default=False)

    class Meta:
        abstract = True


class DeadLetter(models.Model):
    """A message that is no event we know, or that killed its workers; it waits for a person."""

    class State(models.TextChoices):
        """What became of it."""

        WAITING = "waiting"
        REPLAYED = "replayed"
        DISCARDED = "discarded"

    digest = DigestField(unique=True)
    body = models.BinaryField(help_text="The message's bytes as they came.")
    edited = models.TextField(
        "mended text",
        blank=True,
        help_text="Replayed in place of the message; empty: the message itself.",
    )
    reason = models.TextField()
    host = models.CharField(max_length=LONGEST_HOST, blank=True)
    times = models.PositiveIntegerField(default=1, help_text="How often the same bytes came.")
    state = models.CharField(max_length=10, choices=State, default=State.WAITING, db_index=True)
    first_seen_at = models.DateTimeField(default=timezone.now, db_index=True)
    last_seen_at = models.DateTimeField(default=timezone.now)
    settled_at = models.DateTimeField(null=True, help_text="When it was replayed or discarded.")
    settled_by = models.CharField(max_length=150, blank=True)

    retention = Retention("last_seen_at", days=30)

    class Meta:
        ordering = ("-first_seen_at", "-pk")

    def __str__(self) -> str:
        return f"{self.reason[:60]}"

    @property
    def text(self) -> str:
        """The message as a text; what is no UTF-8 is shown by its numbers."""
        return bytes(self.body).decode("utf-8", "backslashreplace")


class Shipper(models.Model):
    """Who publishes to the stream, known by the exchange that is its own.

    Those of `make shipper` are here before their first message; others when they are heard of.
    """

    name = models.CharField(max_length=64, unique=True)
    kind = models.CharField(max_length=20, blank=True)
    created_at = models.DateTimeField(default=timezone.now)
    revoked_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ("name",)

    def __str__(self) -> str:
        return self.name


class ShipperCount(models.Model):
    """What came from a shipper in one minute; ``delay`` is the least of an event after its time."""

    shipper = models.ForeignKey(Shipper, on_delete=models.CASCADE, related_name="+")
    minute = models.DateTimeField()
    messages = models.PositiveIntegerField(default=0)
    refused = models.PositiveIntegerField(default=0)
    delay = models.FloatField(null=True, help_text="Seconds; below zero: its clock is ahead.")

    retention = Retention("minute", days=1)

    class Meta:
        constraints = (
            models.UniqueConstraint(fields=["shipper", "minute"], name="events_shipper_minute"),
        )

    def __str__(self) -> str:
        return f"{self.shipper_id} {self.minute:%H:%M}"


class ShipperMessage(models.Model):
    """One of a shipper's last messages as it came, and what became of it."""

    shipper = models.ForeignKey(Shipper, on_delete=models.CASCADE, related_name="messages")
    at = models.DateTimeField()
    body = models.BinaryField(help_text="Its first bytes as they came.")
    size = models.PositiveIntegerField()
    accepted = models.BooleanField()
    outcome = models.TextField()

    retention = Retention("at", days=7)

    class Meta:
        ordering = ("-pk",)

    def __str__(self) -> str:
        return self.outcome[:60]

    @property
    def text(self) -> str:
        """The message as a text; what is no UTF-8 is shown by its numbers."""
        return bytes(self.body).decode("utf-8", "backslashreplace")


class FieldMapping(models.Model):
    """Where a shipper that is not known puts the parts of an event: names, with dots for depth."""

    name = models.CharField(max_length=64, unique=True)
    enabled = models.BooleanField(
        default=False, help_text="Look at the preview first: it shows what would be read."
    )
    mark = models.CharField(
        max_length=LONGEST_PATH, help_text="What only these messages have, as <code>a.b</code>."
    )
    computer = models.CharField("host", max_length=LONGEST_PATH)
    provider = models.CharField(max_length=LONGEST_PATH)
    channel = models.CharField("log", max_length=LONGEST_PATH)
    record_id = models.CharField("record number", max_length=LONGEST_PATH)
    event_id = models.CharField(max_length=LONGEST_PATH)
    at = models.CharField("time", max_length=LONGEST_PATH, help_text="ISO 8601 with its zone.")
    level = models.CharField(max_length=LONGEST_PATH, blank=True)
    message = models.CharField("text", max_length=LONGEST_PATH, blank=True)
    values = models.CharField(
        max_length=LONGEST_PATH, blank=True, help_text="Of an object, or of a list."
    )

    class Meta:
        ordering = ("name",)

    def __str__(self) -> str:
        return self.name


class IngestCount(models.Model):
    """What one worker has done with messages in one minute."""

    minute = models.DateTimeField()
    instance = models.CharField(max_length=64)
    stored = models.PositiveIntegerField(default=0)
    duplicates = models.PositiveIntegerField(default=0)
    stale = models.PositiveIntegerField(default=0, help_text="Among those stored.")
    problems = models.PositiveIntegerField(default=0, help_text="Among those stored.")
    dropped = models.PositiveIntegerField(default=0, help_text="Of sources that are not allowed.")
    expired = models.PositiveIntegerField(default=0, help_text="As an operator had asked for.")
    refused = models.PositiveIntegerField(default=0, help_text="Sent to the dead letters.")

    retention = Retention("minute", days=7)

    class Meta:
        constraints = (
            models.UniqueConstraint(fields=["minute", "instance"], name="events_ingest_minute"),
        )

    def __str__(self) -> str:
        return f"{self.minute:%Y-%m-%d %H:%M} {self.instance}"


class StreamSettings(models.Model):
    """What an administrator may set about the stream; there is one row."""

    stale_minutes = models.PositiveIntegerField(
        "stale after (min)",
        default=30,
        validators=[MinValueValidator(1), MaxValueValidator(7 * 24 * 60)],
        help_text="Events older than this are stored and counted; they mark nothing as alive and "
        "alert nobody.",
    )
    silent_minutes = models.PositiveIntegerField(
        "silent after (min)",
        default=5,
        validators=[MinValueValidator(1), MaxValueValidator(24 * 60)],
        help_text="The time without a fresh event from any robot after which there is one alert "
        "about the stream, and no single robot is called silent.",
    )
    skew_seconds = models.PositiveIntegerField(
        "clock wrong from (s)",
        default=120,
        validators=[MinValueValidator(5), MaxValueValidator(24 * 60 * 60)],
        help_text="A robot whose events come so much later or earlier than their own time says, "
        "and than those of others do, has a wrong clock.",
    )
    raw_hours = models.PositiveIntegerField(
        "keep raw events (h)",
        default=36,
        validators=[MinValueValidator(1), MaxValueValidator(10 * 366 * 24)],
    )
    derived_days = models.PositiveIntegerField(
        "keep what was made of them (days)",
        default=30,
        validators=[MinValueValidator(1), MaxValueValidator(10 * 366)],
    )
    quiet_before = models.DateTimeField(
        null=True,
        blank=True,
        help_text="Events from before this time count as stale: set by `backlog drain`.",
    )
    expired_before = models.DateTimeField(
        null=True,
        blank=True,
        help_text="Events from before this time are not even stored: set by `backlog expire`.",
    )

    class Meta:
        verbose_name = verbose_name_plural = "stream settings"

    def __str__(self) -> str:
        return "Settings of the event stream"

    @classmethod
    def current(cls) -> "StreamSettings":
        """Return the settings, or the defaults where the row is missing."""
        return cls.objects.first() or cls(pk=1)

    def stale_before(self, now: datetime) -> datetime:
        """Return the time before which an event says nothing about the present."""
        limit = now - timedelta(minutes=self.stale_minutes)
        return max(limit, self.quiet_before) if self.quiet_before else limit


class BacklogAction(models.Model):
    """What somebody has done to a queue's backlog: the audit."""

    class Kind(models.TextChoices):
        """What was done."""

        DRAIN = "drain", "take it in quietly"
        EXPIRE = "expire", "drop what is old"
        PURGE = "purge", "drop everything"
        CAP = "cap", "drop dead letters beyond the cap"

    at = models.DateTimeField(default=timezone.now)
    queue = models.CharField(max_length=64)
    kind = models.CharField(max_length=10, choices=Kind)
    by = models.CharField(max_length=150)
    reason = models.CharField(max_length=200, blank=True)
    details = models.CharField(max_length=300, blank=True)
    messages = models.PositiveBigIntegerField(null=True, help_text="How many it concerned.")

    retention = Retention("at", days=366)

    class Meta:
        ordering = ("-at",)

    def __str__(self) -> str:
        return f"{self.kind} {self.queue} by {self.by}"

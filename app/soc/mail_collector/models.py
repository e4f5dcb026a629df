"""What robots report of their mail: checks, mailboxes, mails on their way, pairs of domains."""

from datetime import datetime, timedelta
from typing import Any, Self

from django.core.exceptions import ValidationError
from django.core.validators import MinValueValidator
from django.db import models
from django.utils import timezone

from soc.common.times import validate_times  # noqa: F401 # for a landed migration only
from soc.core.models import Retention
from soc.events.fields import DigestField
from soc.events.models import Bot, Derived
from soc.mail_collector import mailboxes, messages

LONGEST_DOMAIN = 253
SECOND = timedelta(seconds=1)


class MailEvent(Derived):
    """One check of a mail robot."""

    class Kind(models.TextChoices):
        """What was checked."""

        CONFIGURATION = messages.Kind.CONFIGURATION.value
        CONNECTION = messages.Kind.CONNECTION.value
        CREATE = messages.Kind.CREATE.value
        SEND = messages.Kind.SEND.value
        RECEIVE = messages.Kind.RECEIVE.value

    kind = models.CharField(max_length=13, choices=Kind)
    passed = models.BooleanField()
    mailbox = models.CharField(max_length=messages.LONGEST_ADDRESS, blank=True)
    wm_id = models.CharField("witness number", max_length=messages.LONGEST_WM_ID, blank=True)
    message_id = models.CharField(max_length=messages.LONGEST_MESSAGE_ID, blank=True)
    sender = models.CharField(max_length=messages.LONGEST_ADDRESS, blank=True)
    recipients = models.JSONField(default=list)
    text = models.CharField(max_length=messages.LONGEST_TEXT, blank=True)
    taken = models.BooleanField(
        default=False, help_text="Whether mailboxes, mails and pairs of domains know of it."
    )

    class Meta:
        ordering = ("-at",)
        indexes = (
            models.Index(fields=["taken", "id"], name="mail_event_new"),
            models.Index(fields=["passed", "at"], name="mail_event_failed"),
        )

    def __str__(self) -> str:
        return f"{self.check_name} {'passed' if self.passed else 'failed'}"

    @property
    def check_name(self) -> str:
        """What was checked and where, the subject of its alerts."""
        return f"{self.mailbox or self.bot.host}: {self.kind}"


class Watch(models.Model):
    """Since when a mail robot has been heard of without a break."""

    bot = models.OneToOneField(Bot, primary_key=True, on_delete=models.CASCADE, related_name="+")
    since = models.DateTimeField()
    heard_at = models.DateTimeField()

    def __str__(self) -> str:
        return f"{self.bot} since {self.since}"


class Mailbox(models.Model):
    """A mailbox as one robot sees it, and when each check last passed there."""

    bot = models.ForeignKey(Bot, on_delete=models.CASCADE, related_name="mailboxes")
    address = models.CharField(max_length=messages.LONGEST_ADDRESS)
    server = models.CharField(max_length=messages.LONGEST_ADDRESS, blank=True)
    database = models.CharField(max_length=messages.LONGEST_ADDRESS, blank=True)
    since = models.DateTimeField("known since")
    connected_at = models.DateTimeField("last connection", null=True)
    sent_at = models.DateTimeField("last send", null=True)
    received_at = models.DateTimeField("last receive", null=True)

    class Meta:
        ordering = ("address", "bot")
        constraints = (
            models.UniqueConstraint(fields=["bot", "address"], name="mail_mailbox_identity"),
        )
        verbose_name_plural = "mailboxes"

    def __str__(self) -> str:
        return self.address

    @property
    def domain(self) -> str:
        """The part after the @."""
        return messages.domain(self.address)

    def locate(self, pattern: str) -> None:
        """Tell server and database from the address."""
        place = mailboxes.place(self.address, pattern)
        self.server, self.database = place.server, place.database


class Delivery(models.Model):
    """One mail on its way to one mailbox; it is verified once both of its ends were seen.

    Which end is heard of first makes no difference, nor how often.
    """

    key = DigestField(unique=True)
    wm_id = models.CharField("witness number", max_length=messages.LONGEST_WM_ID, blank=True)
    sender = models.CharField(max_length=messages.LONGEST_ADDRESS)
    recipient = models.CharField(max_length=messages.LONGEST_ADDRESS)
    sent_at = models.DateTimeField(null=True)
    received_at = models.DateTimeField(null=True)
    fresh_at = models.DateTimeField(
        null=True, help_text="When it was received, if that was heard of in time."
    )
    first_seen_at = models.DateTimeField(default=timezone.now, db_index=True)

    retention = Retention("first_seen_at", days=30)

    class Meta:
        ordering = ("-first_seen_at",)
        verbose_name_plural = "deliveries"

    def __str__(self) -> str:
        return f"{self.wm_id} from {self.sender} to {self.recipient}"

    @property
    def verified_at(self) -> datetime | None:
        """When it arrived, if it is known at both ends."""
        return self.received_at if self.sent_at else None


class Route(models.Model):
    """A pair of domains between which robots send mail."""

    sender = models.CharField("from", max_length=LONGEST_DOMAIN)
    recipient = models.CharField("to", max_length=LONGEST_DOMAIN)
    first_sent_at = models.DateTimeField(null=True)
    sent_at = models.DateTimeField("last sent", null=True)
    verified_at = models.DateTimeField("last verified", null=True)
    failed_at = models.DateTimeField("last failed", null=True)
    failed_check = models.CharField(max_length=300, blank=True, help_text="The check that failed.")
    problem = models.CharField(max_length=messages.LONGEST_TEXT, blank=True)

    class Meta:
        ordering = ("sender", "recipient")
        constraints = (
            models.UniqueConstraint(fields=["sender", "recipient"], name="mail_route_identity"),
        )
        verbose_name = "pair of domains"
        verbose_name_plural = "pairs of domains"

    def __str__(self) -> str:
        return f"{self.sender} to {self.recipient}"

    @property
    def is_failing(self) -> bool:
        """Whether a check failed that has not passed since; a mail that arrives ends it as well."""
        if not self.failed_check or self.failed_at is None:
            return False
        return self.verified_at is None or self.failed_at > self.verified_at


def _limit(hours: int, words: str) -> models.DurationField:
    return models.DurationField(
        default=timedelta(hours=hours),
        validators=[MinValueValidator(SECOND)],
        help_text=f"{words} (h:mm:ss).",
    )


class MailSettings(models.Model):
    """From which values on mail has a problem; there is one row."""

    bot_warning = _limit(2, "The silence of a robot that is a warning")
    bot_critical = _limit(6, "…and critical after this")
    server_warning = _limit(
        2, "A server or database without a connection, a send or a receive is a warning"
    )
    server_critical = _limit(6, "…and critical after this")
    route_unverified = _limit(6, "A pair of domains without a verified mail is a warning")
    mailbox_pattern = models.CharField(
        max_length=200,
        default=mailboxes.DEFAULT,
        validators=[mailboxes.validate],
        help_text="How a mailbox's name has its server and its database: plain text with "
        "{server}, {database}, {name} and {domain}.",
    )

    class Meta:
        verbose_name = verbose_name_plural = "mail settings"

    def __str__(self) -> str:
        return "Settings of the mail flow"

    def save(self, **options: Any) -> None:
        """Save, and read the names of the known mailboxes by the pattern."""
        super().save(**options)
        known = list(Mailbox.objects.all())
        for mailbox in known:
            mailbox.locate(self.mailbox_pattern)
        Mailbox.objects.bulk_update(known, ["server", "database"], batch_size=100)

    def clean(self) -> None:
        """Refuse limits in the wrong order.

        Raises:
            ValidationError: something would be critical before it is a warning.
        """
        for name in ("bot", "server"):
            warning = getattr(self, f"{name}_warning")
            critical = getattr(self, f"{name}_critical")
            if warning and critical and critical < warning:
                raise ValidationError({f"{name}_critical": "It is critical before a warning."})

    @classmethod
    def current(cls) -> Self:
        """Return the settings, or the defaults where the row is missing."""
        return cls.objects.first() or cls(pk=1)

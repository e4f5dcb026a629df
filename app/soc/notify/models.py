"""Subscriptions, and the outbox of the mail to their recipients."""

import uuid
from datetime import timedelta
from email.utils import make_msgid

from django.core.exceptions import ValidationError
from django.core.validators import validate_email
from django.db import models
from django.utils import timezone

from soc.core.models import Retention
from soc.environment import split
from soc.notify import templates


def validate_recipients(value: str) -> None:
    """Check a list of mail addresses, one a line, and name the bad ones.

    Raises:
        ValidationError: an address is malformed, or there is none.
    """
    wrong = []
    for address in _lines(value):
        try:
            validate_email(address)
        except ValidationError:
            wrong.append(address)
    if wrong:
        raise ValidationError(f"Not a mail address: {', '.join(wrong)}")
    if not _lines(value):
        raise ValidationError("At least one recipient is needed.")


def validate_tags(value: str) -> None:
    """Check that tags are words, comma separated.

    Raises:
        ValidationError: a tag holds something else than letters, digits, hyphens and underscores.
    """
    wrong = [tag for tag in split(value) if not tag.replace("-", "").replace("_", "").isalnum()]
    if wrong:
        raise ValidationError(f"Not a tag: {', '.join(wrong)}")


def _lines(value: str) -> list[str]:
    return [line.strip() for line in value.splitlines() if line.strip()]


class Subscription(models.Model):
    """Who gets mail; a disabled subscription gets none."""

    name = models.CharField(max_length=100, unique=True)
    enabled = models.BooleanField(default=True)
    recipients = models.TextField(
        validators=[validate_recipients], help_text="Mail addresses, one a line."
    )
    tags = models.CharField(
        max_length=200,
        blank=True,
        validators=[validate_tags],
        help_text="Comma separated; they head the subject as [TAG].",
    )
    subject_template = models.CharField(
        max_length=200,
        default=templates.SUBJECT,
        validators=[templates.validate],
        help_text="Django template; knows {{ title }}, {{ severity }}, {{ site }}.",
    )
    text_template = models.TextField(
        default=templates.TEXT,
        validators=[templates.validate],
        help_text="Django template; also knows {{ summary }}, {{ facts }} and {{ link }}.",
    )

    class Meta:
        ordering = ("name",)

    def __str__(self) -> str:
        return self.name

    @property
    def addresses(self) -> list[str]:
        """The recipients' mail addresses."""
        return _lines(self.recipients)

    @property
    def subject_prefix(self) -> str:
        """The tags as they head a subject, such as ``[SOC] [CERT] ``."""
        return "".join(f"[{tag}] " for tag in split(self.tags))


def _message_id() -> str:
    return make_msgid(domain="soc.invalid")


class OutboundMail(models.Model):
    """One mail to one set of recipients: the row is the truth, a broker message a wake-up."""

    class State(models.TextChoices):
        """Where the mail stands."""

        QUEUED = "queued"
        SENDING = "sending"
        SENT = "sent"
        FAILED = "failed"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    subscription = models.ForeignKey(Subscription, null=True, on_delete=models.SET_NULL)
    dedupe_key = models.CharField(max_length=190, unique=True)
    message_id = models.CharField(max_length=120, unique=True, default=_message_id)
    recipients = models.JSONField()
    subject = models.CharField(max_length=255)
    text = models.TextField()
    html = models.TextField()
    state = models.CharField(max_length=10, choices=State, default=State.QUEUED)
    attempts = models.PositiveIntegerField(default=0)
    created_at = models.DateTimeField(default=timezone.now)
    next_try_at = models.DateTimeField(
        default=timezone.now, null=True, help_text="Empty when nothing is left to do."
    )
    sent_at = models.DateTimeField(null=True)
    smtp_code = models.PositiveSmallIntegerField(null=True)
    last_error = models.TextField(blank=True)

    retention = Retention("created_at", days=90)

    class Meta:
        ordering = ("-created_at",)
        verbose_name = "mail"
        indexes = (
            models.Index(fields=["next_try_at"], name="mail_due"),
            models.Index(fields=["created_at"], name="mail_age"),
        )

    def __str__(self) -> str:
        return self.subject


CLAIM = timedelta(minutes=5)
"""How long a worker may take over a claimed mail before another may try it."""

"""Routes that mail is sent on, who logs in at their ends, and the round trips."""

import secrets
from datetime import datetime, timedelta

from django.core.exceptions import ValidationError
from django.core.validators import (
    EmailValidator,
    MaxValueValidator,
    MinValueValidator,
    RegexValidator,
)
from django.db import models
from django.urls import reverse
from django.utils import timezone

from soc.common.due import slot_after
from soc.core.models import Retention
from soc.core.sealed import SealedField
from soc.mail_routes.ends import Fault, LinkSecurity
from soc.trust.models import Authority

DAY_MINUTES = 24 * 60
LONGEST_ADDRESS = 254

_PORT = [MinValueValidator(1), MaxValueValidator(65535)]
_SECURITIES = [
    (LinkSecurity.TLS.value, "TLS"),
    (LinkSecurity.STARTTLS.value, "STARTTLS"),
    (LinkSecurity.NONE.value, "none: passwords travel in clear text"),
]


def new_token() -> str:
    """Return a word that nobody guesses: 96 bits."""
    return secrets.token_hex(12)


class MailAccount(models.Model):
    """Who logs in at a submission server or a mailbox, and by what."""

    class Method(models.TextChoices):
        """What is shown to the server."""

        PASSWORD = "password", "a password"
        TOKEN = "token", "an access token (XOAUTH2)"

    name = models.CharField(max_length=100, unique=True)
    user = models.CharField(max_length=LONGEST_ADDRESS, help_text="Often the mail address.")
    method = models.CharField(max_length=8, choices=Method, default=Method.PASSWORD)
    secret = SealedField(
        "password or client secret",
        help_text="Of an access token: the secret of the client that asks for it.",
    )
    token_url = models.CharField(
        "token endpoint",
        max_length=500,
        blank=True,
        validators=[RegexValidator("^https://", "Use an address that begins with https://.")],
        help_text="It gives tokens to clients (OAuth 2.0 client credentials).",
    )
    client_id = models.CharField("client ID", max_length=200, blank=True)
    scope = models.CharField(
        max_length=500, blank=True, help_text="Such as https://outlook.office365.com/.default."
    )
    authority = models.ForeignKey(
        Authority,
        null=True,
        blank=True,
        on_delete=models.PROTECT,
        help_text="The CA of the token endpoint, next to those of the system.",
    )

    refusals = models.PositiveIntegerField(
        default=0, editable=False, help_text="Logins in a row that were refused."
    )
    refused_at = models.DateTimeField(null=True, editable=False)
    refused_by = models.CharField(max_length=300, blank=True, editable=False)
    refusal = models.TextField(blank=True, editable=False)

    class Meta:
        ordering = ("name",)

    def __str__(self) -> str:
        return self.name

    def clean(self) -> None:
        """Refuse a token that nobody could give.

        Raises:
            ValidationError: the endpoint or the client is missing.
        """
        if self.method == self.Method.TOKEN:
            lacking = [name for name in ("token_url", "client_id") if not getattr(self, name)]
            if lacking:
                raise ValidationError(dict.fromkeys(lacking, "An access token needs it."))


def _host() -> models.CharField:
    return models.CharField("host", max_length=253, help_text="Its certificate is for this name.")


def _security(default: LinkSecurity) -> models.CharField:
    return models.CharField("protection", max_length=8, choices=_SECURITIES, default=default.value)


def _authority() -> models.ForeignKey:
    return models.ForeignKey(
        Authority,
        verbose_name="authority",
        null=True,
        blank=True,
        on_delete=models.PROTECT,
        related_name="+",
        help_text="The CA that must have issued its certificate; empty: the system's store.",
    )


class MailRoute(models.Model):
    """From a submission server to a mailbox."""

    name = models.CharField(max_length=100, unique=True, help_text="What alerts are about.")
    enabled = models.BooleanField(default=True)
    site = models.CharField("location", max_length=64, blank=True)

    smtp_host = _host()
    smtp_port = models.PositiveIntegerField("port", default=587, validators=_PORT)
    smtp_security = _security(LinkSecurity.STARTTLS)
    smtp_authority = _authority()
    smtp_account = models.ForeignKey(
        MailAccount,
        verbose_name="account",
        null=True,
        blank=True,
        on_delete=models.PROTECT,
        related_name="submitting",
        help_text="Empty: mail is submitted without a login.",
    )
    sender = models.CharField("from", max_length=LONGEST_ADDRESS, validators=[EmailValidator()])
    recipient = models.CharField("to", max_length=LONGEST_ADDRESS, validators=[EmailValidator()])

    imap_host = _host()
    imap_port = models.PositiveIntegerField("port", default=993, validators=_PORT)
    imap_security = _security(LinkSecurity.TLS)
    imap_authority = _authority()
    imap_account = models.ForeignKey(
        MailAccount,
        verbose_name="account",
        on_delete=models.PROTECT,
        related_name="reading",
    )
    inbox = models.CharField("folder", max_length=200, default="INBOX")
    spam_folder = models.CharField(
        max_length=200, blank=True, help_text="Empty: the one that the server says is for spam."
    )

    interval_minutes = models.PositiveIntegerField(
        "interval (min)",
        default=15,
        validators=[MinValueValidator(1), MaxValueValidator(DAY_MINUTES)],
    )
    late_after = models.PositiveIntegerField(
        "late after (s)",
        default=120,
        validators=[MinValueValidator(1), MaxValueValidator(DAY_MINUTES * 60)],
        help_text="A mail that takes longer is a warning.",
    )
    lost_after = models.PositiveIntegerField(
        "lost after (min)",
        default=60,
        validators=[MinValueValidator(1), MaxValueValidator(DAY_MINUTES)],
        help_text="It is critical, and is not looked for any more.",
    )
    notes = models.TextField(blank=True)

    token = models.CharField(max_length=24, default=new_token, unique=True, editable=False)
    next_run_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        ordering = ("name",)
        permissions = (("check_mailroute", "Can have mail routes checked now"),)
        indexes = (models.Index(fields=["enabled", "next_run_at"], name="mail_route_due"),)

    def __str__(self) -> str:
        return self.name

    def get_absolute_url(self) -> str:
        """Return the address of the route's page."""
        return reverse("mail-route", args=[self.pk])

    def clean(self) -> None:
        """Refuse limits in the wrong order.

        Raises:
            ValidationError: a mail would be lost before it is late.
        """
        if self.late_after and self.lost_after and self.lost_after * 60 < self.late_after:
            raise ValidationError({"lost_after": "It is lost before it is late."})

    def slot_after(self, moment: datetime) -> datetime:
        """Return the route's next turn after a moment."""
        return slot_after(self.name, self.interval_minutes, moment)


class RoundTrip(models.Model):
    """One mail of a route, from its submission to its mailbox."""

    class State(models.TextChoices):
        """What comes next."""

        SUBMITTING = "submitting"
        WAITING = "waiting", "on its way"
        DONE = "done"

    class Outcome(models.TextChoices):
        """How it ended."""

        ON_TIME = "on-time", "on time"
        LATE = "late"
        SPAM = "spam", "taken for spam"
        LOST = "lost"
        FULL = Fault.FULL.value, "mailbox full"
        REFUSED = Fault.REFUSED.value, "refused"
        LOGIN = Fault.LOGIN.value, "login refused"
        CERTIFICATE = Fault.CERTIFICATE.value, "certificate problem"
        UNREACHABLE = Fault.UNREACHABLE.value, "unreachable"
        UNREAD = "unread", "mailbox not readable"
        ABANDONED = "abandoned"

    route = models.ForeignKey(MailRoute, on_delete=models.CASCADE, related_name="trips")
    mark = models.CharField(max_length=24, default=new_token, unique=True, editable=False)
    state = models.CharField(max_length=10, choices=State, default=State.SUBMITTING)
    outcome = models.CharField(max_length=12, choices=Outcome, blank=True)
    started_at = models.DateTimeField(default=timezone.now)
    next_step_at = models.DateTimeField(default=timezone.now)
    sent_at = models.DateTimeField("taken by the server", null=True)
    arrived_at = models.DateTimeField(null=True)
    found_at = models.DateTimeField(null=True)
    connect_ms = models.FloatField(null=True)
    tls_ms = models.FloatField("TLS ms", null=True)
    login_ms = models.FloatField(null=True)
    submit_ms = models.FloatField(null=True)
    hops = models.JSONField(
        default=list, help_text="Servers that it came by, and the seconds to each."
    )
    folder = models.CharField(max_length=200, blank=True)
    detail = models.TextField(blank=True)

    retention = Retention("started_at", days=30)

    class Meta:
        ordering = ("-started_at",)
        indexes = (
            models.Index(fields=["route", "-started_at"], name="round_trip_history"),
            models.Index(fields=["state", "next_step_at"], name="round_trip_due"),
            models.Index(fields=["started_at"], name="round_trip_age"),
        )

    def __str__(self) -> str:
        return f"{self.route} at {self.started_at:%Y-%m-%d %H:%M}"

    @property
    def delivery(self) -> timedelta | None:
        """The time from the submission to the mailbox, of a mail that has arrived."""
        if self.arrived_at is None or self.sent_at is None:
            return None
        return self.arrived_at - self.sent_at

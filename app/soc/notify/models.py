"""Subscriptions, the outbox of what goes to them, and the relay or destination that takes it."""

import uuid
from datetime import datetime, timedelta
from datetime import time as clock_time
from email.utils import make_msgid
from urllib.parse import urlsplit

from django.apps import apps
from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator, validate_email
from django.db import models
from django.utils import timezone

from soc.common.times import times_of_day, validate_times
from soc.core.links import absolute
from soc.core.models import Retention
from soc.core.sealed import SealedField
from soc.core.severity import Severity
from soc.notify import channels, templates
from soc.notify.addresses import as_ascii
from soc.oncall.models import Rota
from soc.provision.environment import split
from soc.runtime.queues import BY_APPLICATION


def validate_addresses(value: str) -> None:
    """Check a list of mail addresses, one a line, and name the bad ones.

    Raises:
        ValidationError: an address is malformed.
    """
    wrong = []
    for address in _lines(value):
        try:
            validate_email(address)
            as_ascii(address)
        except (ValidationError, ValueError):
            wrong.append(address)
    if wrong:
        raise ValidationError(f"Not a mail address: {', '.join(wrong)}")


def validate_recipients(value: str) -> None:
    """Check as ``validate_addresses`` does, and that there is one.

    Raises:
        ValidationError: an address is malformed, or there is none.
    """
    validate_addresses(value)
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


def validate_applications(value: str) -> None:
    """Check that applications, comma separated, are among those of this site.

    Raises:
        ValidationError: an application is unknown.
    """
    installed = {app.label for app in apps.get_app_configs() if app.name.startswith("soc.")}
    # Those that report through the API have rules only.
    of_rules = apps.get_model("alerts", "Rule").objects.values_list("application", flat=True)
    known = installed | set(BY_APPLICATION) | set(of_rules)
    wrong = [name for name in split(value) if name not in known]
    if wrong:
        raise ValidationError(
            f"Not an application: {', '.join(wrong)}. There are {', '.join(sorted(known))}."
        )


def _lines(value: str) -> list[str]:
    """Return the lines that hold something, each once."""
    return list(dict.fromkeys(line.strip() for line in value.splitlines() if line.strip()))


_NOTIFIED = [(severity.value, severity.label) for severity in Severity if severity]


class Subscription(models.Model):
    """Who is notified, and by which channel; a disabled subscription gets nothing."""

    class Report(models.TextChoices):
        """How often a subscription gets a summary."""

        NONE = "none", "no report"
        DAILY = "daily"
        WEEKLY = "weekly", "weekly, on Monday"
        HANDOVER = "handover", "when a shift of its rota begins"

    name = models.CharField(max_length=100, unique=True)
    enabled = models.BooleanField(
        default=True, help_text="Off: nothing goes out, waiting mail included."
    )
    channel = models.CharField(
        max_length=20,
        choices=channels.choices,
        default=channels.EMAIL,
        help_text="It stays: for another channel, make another subscription.",
    )
    recipients = models.TextField(
        blank=True,
        validators=[validate_recipients],
        help_text="Mail addresses, one a line; of the channel e-mail only.",
    )
    rota = models.ForeignKey(
        Rota,
        null=True,
        blank=True,
        on_delete=models.PROTECT,
        help_text="Also mailed to the person who is on call at the moment.",
    )
    url = SealedField(
        "address",
        help_text="Where the other channels post to: https, and a host of SOC_WEBHOOK_HOSTS.",
    )
    url_host = models.CharField("host", max_length=255, blank=True, editable=False)
    secret = SealedField(
        help_text="Signs the messages of a webhook; PagerDuty's integration key; ntfy's token.",
    )
    fallback_recipients = models.TextField(
        blank=True,
        validators=[validate_addresses],
        help_text="Mail addresses, one a line; they get what is refused for all recipients.",
    )
    tags = models.CharField(
        max_length=200,
        blank=True,
        validators=[validate_tags],
        help_text="Comma separated; they head the subject as [TAG].",
    )
    minimum_severity = models.PositiveSmallIntegerField(
        choices=_NOTIFIED,
        default=Severity.INFO,
        help_text="Notices of a lower severity are not mailed.",
    )
    applications = models.CharField(
        max_length=200,
        blank=True,
        validators=[validate_applications],
        help_text="Comma separated, such as ssl_certs; empty: all.",
    )
    quiet_from = models.TimeField(
        null=True, blank=True, help_text="In the site's time zone; may lie after the end."
    )
    quiet_until = models.TimeField(
        null=True, blank=True, help_text="What has waited goes out then, as one digest."
    )
    quiet_breakthrough = models.PositiveSmallIntegerField(
        choices=_NOTIFIED,
        default=Severity.CRITICAL,
        null=True,
        blank=True,
        help_text="Notices of this severity and above do not wait; empty: all wait.",
    )
    digest_minutes = models.PositiveSmallIntegerField(
        default=0,
        validators=[MaxValueValidator(24 * 60)],
        help_text="Gather notices for this many minutes and send them as one digest; 0: at once.",
    )
    storm_limit = models.PositiveIntegerField(
        default=10,
        validators=[MinValueValidator(1)],
        help_text="More notices than this that wait at once become one digest.",
    )
    acknowledge_links = models.BooleanField(
        default=True,
        help_text="Each message about an alert has a link by which everybody who has it can "
        "acknowledge it for up to 8 h, without signing in; the link works for 24 h.",
    )
    csv = models.BooleanField(
        "attach CSV", default=False, help_text="Attach tables to notices, digests and reports."
    )
    report = models.CharField(max_length=10, choices=Report, default=Report.NONE)
    report_at = models.TimeField(default=clock_time(7), help_text="In the site's time zone.")
    report_also_at = models.CharField(
        max_length=200,
        blank=True,
        validators=[validate_times],
        help_text="Further times of the same day, comma separated, such as those of shifts: "
        "15:45, 23:45. Each report covers the time since the last one.",
    )
    report_when_empty = models.BooleanField(
        default=False, help_text="Send the report even if there is nothing to say."
    )
    next_report_at = models.DateTimeField(null=True, editable=False)
    reported_until = models.DateTimeField(
        null=True, editable=False, help_text="Where the period of the next report begins."
    )
    subject_template = models.CharField(
        max_length=200,
        default=templates.SUBJECT,
        validators=[templates.validate],
        help_text="Django template; knows {{ title }}, {{ status }}, {{ severity }}, {{ site }}.",
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

    def clean(self) -> None:
        """Check what takes more than one field.

        Raises:
            ValidationError: quiet hours lack an end, or are none; the channel lacks what it needs.
        """
        self._clean_channel()
        if (self.quiet_from is None) != (self.quiet_until is None):
            raise ValidationError({"quiet_until": "Quiet hours need a start and an end."})
        if self.quiet_from is not None and self.quiet_from == self.quiet_until:
            raise ValidationError({"quiet_until": "Quiet hours that end as they start are none."})

    def _clean_channel(self) -> None:
        try:
            channel = channels.of(self.channel)
        except LookupError:
            # The field itself says so.
            return
        url = self.url.reveal()
        wrong = channel.validate(url, self.secret.reveal())
        if self.channel == channels.EMAIL and not self.addresses and self.rota is None:
            wrong["recipients"] = "At least one recipient is needed, or a rota."
        if self.channel != channels.EMAIL and self.rota is not None:
            wrong["rota"] = "This channel posts to its address: leave the rota empty."
        if self.channel != channels.EMAIL and self.recipients:
            wrong["recipients"] = "This channel posts to its address: leave the recipients empty."
        if not channel.digests and self.digest_minutes:
            wrong["digest_minutes"] = "This channel opens and closes each alert: use 0."
        if self.report == self.Report.HANDOVER and self.rota is None:
            wrong["report"] = "Only a rota has shifts: choose one."
        if not channel.digests and self.report != self.Report.NONE:
            wrong["report"] = "This channel opens and closes each alert: it takes no reports."
        if wrong:
            raise ValidationError(wrong)
        self.url_host = urlsplit(url).netloc

    @property
    def addresses(self) -> list[str]:
        """The recipients' mail addresses."""
        return _lines(self.recipients)

    @property
    def fallback_addresses(self) -> list[str]:
        """The fallback recipients' mail addresses."""
        return _lines(self.fallback_recipients)

    @property
    def subject_prefix(self) -> str:
        """The tags as they head a subject, such as ``[SOC] [CERT] ``."""
        return "".join(f"[{tag}] " for tag in split(self.tags))

    def wants(self, severity: int, application: str) -> bool:
        """Return whether a notice is for this subscription; one of no application is for all."""
        return not self.refusal(severity, application)

    def is_about(self, application: str) -> bool:
        """Return whether an application is one of those that it is for."""
        return application in (split(self.applications) or [application])

    @property
    def report_times(self) -> list[clock_time]:
        """The times of day of its report, the earliest first."""
        return sorted({self.report_at, *times_of_day(self.report_also_at)})

    def refusal(self, severity: int, application: str) -> str:
        """Return why a notice is not for this subscription, or nothing if it is."""
        if not self.enabled:
            return "it is disabled"
        wanted = split(self.applications)
        if wanted and application and application not in wanted:
            return f"it is for {', '.join(wanted)} only"
        if severity < self.minimum_severity:
            return f"its minimum severity is {Severity(self.minimum_severity).label}"
        return ""

    def quiet_end(self, now: datetime) -> datetime | None:
        """Return when the quiet hours around ``now`` end, or None outside of them."""
        start, end = self.quiet_from, self.quiet_until
        if start is None or end is None:
            return None
        local = timezone.localtime(now)
        after_midnight = local.time() < end
        if start < end:
            quiet = start <= local.time() and after_midnight
        else:
            quiet = start <= local.time() or after_midnight
        if not quiet:
            return None
        day = local.date() if after_midnight else local.date() + timedelta(days=1)
        moment = datetime.combine(day, end, tzinfo=local.tzinfo)
        # The hour that a clock put back repeats: the first of the two may be over.
        return moment if moment.timestamp() > now.timestamp() else moment.replace(fold=1)

    def held_until(self, severity: int, now: datetime) -> datetime | None:
        """Return until when quiet hours hold a notice of a severity, or None."""
        breakthrough = self.quiet_breakthrough
        if breakthrough is not None and severity >= breakthrough:
            return None
        return self.quiet_end(now)


CLAIM = timedelta(minutes=2)
"""How long a worker may take over a claimed mail before another may try it: longer than a task."""

LIFE = timedelta(hours=4)
"""How long the relay has for a mail, from the moment it is due."""

LIFE_OF_A_REPORT = timedelta(hours=12)


def _message_id() -> str:
    return make_msgid(domain="soc.invalid")


def _end_of_life() -> datetime:
    return timezone.now() + LIFE


class OutboundMail(models.Model):
    """One mail to one set of recipients: the row is the truth, a broker message a wake-up."""

    class State(models.TextChoices):
        """Where the mail stands."""

        QUEUED = "queued"
        SENDING = "sending"
        SENT = "sent"
        FAILED = "failed"
        EXPIRED = "expired"
        WITHDRAWN = "withdrawn"
        DIGESTED = "digested"

    class Kind(models.TextChoices):
        """What the mail is."""

        NOTICE = "notice"
        DIGEST = "digest"
        REPORT = "report"
        TEST = "test"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    subscription = models.ForeignKey(Subscription, null=True, on_delete=models.SET_NULL)
    channel = models.CharField(max_length=20, choices=channels.choices, default=channels.EMAIL)
    dedupe_key = models.CharField(max_length=190, unique=True)
    message_id = models.CharField(max_length=120, unique=True, default=_message_id)
    kind = models.CharField(max_length=10, choices=Kind, default=Kind.NOTICE)
    topic = models.CharField(
        max_length=190, blank=True, help_text="What the mail is about, such as one alert."
    )
    severity = models.PositiveSmallIntegerField(choices=Severity, default=Severity.INFO)
    application = models.CharField(max_length=50, blank=True)
    title = models.CharField(max_length=255, blank=True)
    status = models.CharField(max_length=50, blank=True)
    link = models.CharField(max_length=500, blank=True)

    ticket = models.CharField(
        max_length=64, blank=True, editable=False, help_text="The secret of its link."
    )

    recipients = models.JSONField(help_text="Everybody the mail names.")
    delivered = models.JSONField(default=list, help_text="Those the relay has taken it for.")
    refused = models.JSONField(default=dict, help_text="Those the relay refuses, with its words.")
    subject = models.CharField(max_length=255)
    text = models.TextField()
    html = models.TextField()
    csv = models.TextField(blank=True)
    csv_name = models.CharField(max_length=100, blank=True)

    state = models.CharField(max_length=10, choices=State, default=State.QUEUED)
    gathered = models.BooleanField(default=False, help_text="Waits to be part of a digest.")
    digest = models.ForeignKey("self", null=True, on_delete=models.SET_NULL, related_name="members")
    fallback_of = models.ForeignKey(
        "self", null=True, on_delete=models.SET_NULL, related_name="fallbacks"
    )
    attempts = models.PositiveIntegerField(default=0)
    alone = models.BooleanField(
        default=False, help_text="Somebody may have got it already: no digest takes it up."
    )
    created_at = models.DateTimeField(default=timezone.now)
    next_try_at = models.DateTimeField(
        default=timezone.now, null=True, help_text="Empty when nothing is left to do."
    )
    expires_at = models.DateTimeField(default=_end_of_life)
    sent_at = models.DateTimeField(null=True)
    withdrawn_at = models.DateTimeField(null=True)
    concluded_at = models.DateTimeField(null=True, help_text="When its topic was over.")
    smtp_code = models.PositiveSmallIntegerField(null=True)
    last_error = models.TextField(blank=True)

    retention = Retention("created_at", days=90)

    class Meta:
        ordering = ("-created_at",)
        verbose_name = "mail"
        indexes = (
            models.Index(fields=["next_try_at"], name="mail_due"),
            models.Index(fields=["created_at"], name="mail_age"),
            models.Index(fields=["topic"], name="mail_topic"),
            # Nearly all mails of a subscription are done with: those that wait are a range of it.
            models.Index(fields=["subscription", "next_try_at"], name="mail_waiting"),
        )

    def __str__(self) -> str:
        return self.subject

    @property
    def acknowledge(self) -> str:
        """The address of the page that acknowledges what it is about, or nothing."""
        return absolute("acknowledge", self.pk, self.ticket) if self.ticket else ""

    @property
    def outstanding(self) -> list[str]:
        """The recipients that the relay has neither taken nor refused."""
        return [
            address
            for address in self.recipients
            if address not in self.delivered and address not in self.refused
        ]


class Bounce(models.Model):
    """A recipient whose mail came back, until nothing more has come back for a month."""

    address = models.CharField(max_length=254, unique=True)
    at = models.DateTimeField("last", db_index=True)
    words = models.CharField("why", max_length=300)
    mail = models.ForeignKey(OutboundMail, null=True, on_delete=models.SET_NULL)

    retention = Retention("at", days=30)

    class Meta:
        ordering = ("-at",)

    def __str__(self) -> str:
        return self.address


class Relay(models.Model):
    """What all workers know of the site's one relay: whether it is down, and the pace.

    Its one row is locked by anyone who claims mail, always before the mails.
    """

    down_since = models.DateTimeField(null=True)
    up_since = models.DateTimeField(null=True, help_text="When the last outage ended.")
    next_probe_at = models.DateTimeField(null=True)
    failures = models.PositiveIntegerField(default=0)
    last_error = models.TextField(blank=True)
    probed_by_mail = models.BooleanField(
        default=False, help_text="It refuses the site after DATA: a mail tries whether it is back."
    )
    tokens = models.FloatField(default=0)
    tokens_at = models.DateTimeField(null=True, help_text="Empty: the bucket is full.")

    class Meta:
        verbose_name = "relay"

    def __str__(self) -> str:
        return f"down since {self.down_since}" if self.down_since else "up"


class Destination(models.Model):
    """Whether a subscription's destination is down; that of all mail is the relay."""

    subscription = models.OneToOneField(Subscription, on_delete=models.CASCADE, primary_key=True)
    down_since = models.DateTimeField(null=True)
    up_since = models.DateTimeField(null=True, help_text="When the last outage ended.")
    next_try_at = models.DateTimeField(null=True)
    failures = models.PositiveIntegerField(default=0)
    last_error = models.TextField(blank=True)

    def __str__(self) -> str:
        return f"down since {self.down_since}" if self.down_since else "up"

"""Alerts, the rules they are raised by, and what keeps them quiet."""

from datetime import datetime, timedelta
from fnmatch import fnmatchcase
from typing import Any

from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import Q
from django.urls import reverse
from django.utils import timezone

from soc.alerts import recurrence
from soc.core.models import Retention
from soc.core.severity import Severity
from soc.notify.models import Subscription

LONGEST_WINDOW = 20


class Rule(models.Model):
    """How the conditions of one kind become alerts; applications bring theirs with defaults."""

    application = models.SlugField(max_length=40)
    name = models.SlugField(max_length=60)
    description = models.CharField(max_length=200, blank=True)
    enabled = models.BooleanField(
        default=True, help_text="Conditions of a disabled rule open nothing; its alerts close."
    )
    runbook = models.URLField(blank=True, help_text="What to do about it; linked from its alerts.")

    needed = models.PositiveSmallIntegerField(
        "bad reports (n)",
        default=1,
        validators=[MinValueValidator(1), MaxValueValidator(LONGEST_WINDOW)],
        help_text="The number of bad reports that fire an alert…",
    )
    window = models.PositiveSmallIntegerField(
        "of the last (m)",
        default=1,
        validators=[MinValueValidator(1), MaxValueValidator(LONGEST_WINDOW)],
        help_text="…among the last this many.",
    )
    good_needed = models.PositiveSmallIntegerField(
        "good reports (k)",
        default=1,
        validators=[MinValueValidator(1), MaxValueValidator(LONGEST_WINDOW)],
        help_text="The number of good reports in a row that resolve it.",
    )
    stale_after = models.PositiveIntegerField(
        "stale after (s)",
        default=900,
        help_text="A bad condition observed longer ago than this opens nothing.",
    )
    flap_changes = models.PositiveSmallIntegerField(
        default=5, help_text="The number of changes that make an alert flapping; 0: never…"
    )
    flap_minutes = models.PositiveSmallIntegerField(default=30, help_text="…within these minutes.")

    remind_info = models.PositiveIntegerField(
        "remind of info (min)", default=0, help_text="Minutes between reminders; 0: none."
    )
    remind_warning = models.PositiveIntegerField("remind of warnings (min)", default=1440)
    remind_critical = models.PositiveIntegerField("remind of criticals (min)", default=240)

    class Meta:
        ordering = ("application", "name")
        constraints = (
            models.UniqueConstraint(fields=["application", "name"], name="rule_identity"),
        )

    def __str__(self) -> str:
        return f"{self.application}/{self.name}"

    def clean(self) -> None:
        """Refuse a rule that could never fire.

        Raises:
            ValidationError: more bad reports are needed than are looked at.
        """
        if self.needed and self.window and self.needed > self.window:
            raise ValidationError({"needed": "More than are looked at: the rule could never fire."})

    @property
    def flap_span(self) -> timedelta:
        """The time within which changes are counted."""
        return timedelta(minutes=self.flap_minutes)

    def reminder_interval(self, severity: int) -> timedelta | None:
        """Return the time between two reminders of a severity, or None for no reminder."""
        minutes = {
            Severity.INFO: self.remind_info,
            Severity.WARNING: self.remind_warning,
            Severity.CRITICAL: self.remind_critical,
        }[Severity(severity)]
        return timedelta(minutes=minutes) if minutes else None


class EscalationStep(models.Model):
    """Who else is notified of a rule's alerts as long as nobody acknowledges."""

    rule = models.ForeignKey(Rule, on_delete=models.CASCADE, related_name="steps")
    after = models.PositiveIntegerField(
        "after (min)",
        default=30,
        validators=[MinValueValidator(1), MaxValueValidator(7 * 24 * 60)],
        help_text="Minutes since the alert fired.",
    )
    subscription = models.ForeignKey(
        Subscription,
        on_delete=models.CASCADE,
        help_text="Gets it whatever it wants else, such as that of the next rota.",
    )

    class Meta:
        ordering = ("after", "pk")
        constraints = (
            models.UniqueConstraint(
                fields=["rule", "after", "subscription"], name="escalation_step_identity"
            ),
        )

    def __str__(self) -> str:
        return f"{self.rule}: {self.subscription} after {self.after} min"


class Subject(models.Model):
    """The current condition of one thing under one rule, whether there is an alert or not."""

    rule = models.ForeignKey(Rule, on_delete=models.CASCADE)
    name = models.CharField(max_length=200)
    fingerprint = models.CharField(max_length=64, unique=True)
    site = models.CharField(max_length=64, blank=True)
    parent = models.CharField(
        max_length=64, blank=True, help_text="The fingerprint of what this depends on."
    )

    severity = models.PositiveSmallIntegerField(choices=Severity, default=Severity.OK)
    observed_at = models.DateTimeField(null=True)
    recent = models.CharField(
        max_length=LONGEST_WINDOW, blank=True, help_text="Bad (1) or good (0), the last one last."
    )
    good = models.PositiveSmallIntegerField(default=0, help_text="Good reports in a row.")
    changes = models.JSONField(default=list, help_text="When it fired and resolved recently.")
    alert = models.OneToOneField(
        "Alert", null=True, on_delete=models.SET_NULL, related_name="current_subject"
    )
    revision = models.PositiveBigIntegerField(
        default=0, help_text="Rises with every change, so that only one of two writers succeeds."
    )

    def __str__(self) -> str:
        return self.name


class Alert(models.Model):
    """One episode of a problem of one subject, from its first bad report to its end."""

    class State(models.TextChoices):
        """Where an alert stands in its life."""

        PENDING = "pending"
        FIRING = "firing"
        ACKNOWLEDGED = "acknowledged"
        SUPPRESSED = "suppressed"
        FLAPPING = "flapping"
        RESOLVED = "resolved"

    rule = models.ForeignKey(Rule, on_delete=models.CASCADE)
    subject = models.ForeignKey(Subject, on_delete=models.CASCADE, related_name="alerts")
    open_key = models.CharField(  # noqa: DJ001 (only NULLs may repeat in a unique column)
        max_length=64,
        null=True,
        unique=True,
        help_text="The subject's fingerprint while the alert is open: one open alert a subject.",
    )
    site = models.CharField(max_length=64, blank=True)
    severity = models.PositiveSmallIntegerField(choices=Severity)
    peak = models.PositiveSmallIntegerField(
        choices=Severity,
        default=Severity.OK,
        help_text="The worst severity since its readers last heard how severe it is.",
    )
    state = models.CharField(max_length=12, choices=State)
    summary = models.TextField(blank=True)
    facts = models.JSONField(default=dict, help_text="What it was raised on, or got worse with.")
    link = models.CharField(max_length=500, blank=True)
    opened_at = models.DateTimeField()
    last_seen_at = models.DateTimeField()
    count = models.PositiveIntegerField(default=1, help_text="Bad reports so far.")
    acknowledged_at = models.DateTimeField(null=True)
    acknowledged_by = models.CharField(max_length=150, blank=True)
    acknowledged_until = models.DateTimeField(
        null=True,
        help_text="When the acknowledgement expires; empty: when it is over.",
    )
    note = models.TextField(blank=True)
    suppressed_by = models.CharField(max_length=200, blank=True)
    remind_at = models.DateTimeField(null=True)
    escalate_at = models.DateTimeField(null=True)
    escalated = models.PositiveSmallIntegerField(
        default=0, help_text="Steps of its rule that are done since it fired."
    )
    resolved_at = models.DateTimeField(null=True)

    retention = Retention("resolved_at", days=365)

    class Meta:
        permissions = (
            ("operate_alert", "Can acknowledge and resolve alerts"),
            ("report_condition", "Can report conditions from outside"),
        )
        indexes = (
            # Open alerts have no end: this is the board's list, and what is done for one open
            # alert at a time never reads the closed ones.
            models.Index(fields=["resolved_at", "-severity", "opened_at"], name="alert_board"),
            models.Index(fields=["subject", "-opened_at"], name="alert_last_time"),
        )

    def __str__(self) -> str:
        return f"{self.rule}: {self.subject}"

    def get_absolute_url(self) -> str:
        """Return the address of the alert's timeline."""
        return reverse("alert", args=[self.pk])

    @property
    def topic(self) -> str:
        """What the outbox knows the alert's mails by."""
        return f"alert:{self.pk}"


OPEN = Q(resolved_at=None)
"""The alerts that are not resolved; use it to select them."""


class AlertEvent(models.Model):
    """One change of an alert; the timeline is only ever added to."""

    class Kind(models.TextChoices):
        """What happened."""

        PENDING = "pending"
        FIRED = "fired"
        WORSE = "worse"
        BETTER = "better"
        RETURNED = "returned", "as severe as before"
        ACKNOWLEDGED = "acknowledged"
        LAPSED = "lapsed", "acknowledgement expired"
        NOTED = "noted"
        REMINDED = "reminded"
        ESCALATED = "escalated"
        SUPPRESSED = "suppressed"
        FLAPPING = "flapping"
        STEADY = "steady"
        RESOLVED = "resolved"

    alert = models.ForeignKey(Alert, on_delete=models.CASCADE, related_name="events")
    at = models.DateTimeField(default=timezone.now, db_index=True)
    observed_at = models.DateTimeField(
        null=True, help_text="When the condition behind it was observed."
    )
    kind = models.CharField(max_length=12, choices=Kind)
    before = models.CharField(max_length=12, choices=Alert.State, blank=True)
    after = models.CharField(max_length=12, choices=Alert.State)
    severity = models.PositiveSmallIntegerField(choices=Severity)
    by = models.CharField(max_length=150, blank=True, help_text="The person, if it was one.")
    text = models.TextField(blank=True)
    unnotified = models.JSONField(
        default=dict, help_text="Subscriptions that it does not notify, by the reason."
    )

    class Meta:
        ordering = ("at", "pk")

    def __str__(self) -> str:
        return f"{self.alert} {self.kind}"

    def save(self, **options: Any) -> None:
        """Write a new event.

        Raises:
            TypeError: it is written already; a timeline is never rewritten.
        """
        if self.pk is not None:
            raise TypeError("A timeline is never rewritten: add another event.")
        super().save(**options)


class Silence(models.Model):
    """A time in which matching alerts make no noise, once or again and again."""

    class Kind(models.TextChoices):
        """Why it is quiet."""

        SILENCE = "silence"
        MAINTENANCE = "maintenance", "maintenance window"

    kind = models.CharField(max_length=12, choices=Kind, default=Kind.SILENCE)
    comment = models.CharField(max_length=200, help_text="Why; shown with the alerts it hides.")
    created_by = models.CharField(max_length=150, blank=True, editable=False)
    application = models.CharField(max_length=40, blank=True, help_text="Empty: every application.")
    rule = models.ForeignKey(
        Rule, null=True, blank=True, on_delete=models.CASCADE, help_text="Empty: every rule."
    )
    site = models.CharField(max_length=64, blank=True, help_text="Empty: every site.")
    subject = models.CharField(
        max_length=200, default="*", help_text="With * and ? for any characters: bot-1*"
    )
    starts_at = models.DateTimeField(default=timezone.now)
    ends_at = models.DateTimeField()
    recurrence = models.CharField(
        max_length=200,
        blank=True,
        validators=[recurrence.validate],
        help_text=(
            "How it repeats, as an RRULE (RFC 5545), in the site's time: FREQ=WEEKLY;BYDAY=SU, or "
            "FREQ=MONTHLY;BYDAY=2TU for the second Tuesday. Empty: once."
        ),
    )

    class Meta:
        ordering = ("-starts_at",)

    def __str__(self) -> str:
        return f"{self.get_kind_display()}: {self.comment}"

    def clean(self) -> None:
        """Refuse a silence that is never quiet.

        Raises:
            ValidationError: it ends before it starts, never comes, or repeats before it ends.
        """
        if self.starts_at and self.ends_at:
            if self.ends_at <= self.starts_at:
                raise ValidationError({"ends_at": "It ends before it starts."})
            if self.recurrence:
                recurrence.check_window(self.recurrence, self.starts_at, self.ends_at)

    def is_active(self, now: datetime) -> bool:
        """Return whether it is quiet at a moment."""
        return recurrence.is_within(self.starts_at, self.ends_at, self.recurrence, now)

    def matches(self, rule: Rule, subject: str, site: str) -> bool:
        """Return whether it is about a rule and a subject at a site."""
        return (
            self.application in ("", rule.application)
            and self.rule_id in (None, rule.pk)
            and self.site in ("", site)
            and fnmatchcase(subject, self.subject)
        )

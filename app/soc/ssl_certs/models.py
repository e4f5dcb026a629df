"""What the certificate tracker watches and what it saw."""

from datetime import timedelta

from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import F
from django.utils import timezone

from soc.core.models import Retention
from soc.ssl_certs import chain, probe


def validate_bundle(pem: str) -> None:
    """Check that a text holds at least one PEM certificate.

    Raises:
        ValidationError: it does not.
    """
    try:
        chain.parse_trust(pem.encode())
    except chain.TrustError as error:
        raise ValidationError(str(error)) from error


class Authority(models.Model):
    """A named bundle of CA certificates that endpoints may be verified against."""

    name = models.CharField(max_length=100, unique=True)
    pem = models.TextField("PEM bundle", validators=[validate_bundle])

    class Meta:
        ordering = ("name",)
        verbose_name_plural = "authorities"

    def __str__(self) -> str:
        return self.name


class Certificate(models.Model):
    """A certificate that some endpoint presented, kept once."""

    fingerprint = models.CharField("SHA-256 fingerprint", max_length=64, unique=True)
    subject = models.TextField(blank=True)
    issuer = models.TextField(blank=True)
    serial = models.CharField(max_length=64, blank=True)
    san = models.JSONField("subject alternative names", default=list)
    not_before = models.DateTimeField(null=True)
    not_after = models.DateTimeField(null=True, db_index=True)
    key = models.CharField(max_length=60, blank=True)
    signature = models.CharField(max_length=60, blank=True)
    problems = models.JSONField(default=list)
    pem = models.TextField("PEM")
    first_seen_at = models.DateTimeField(default=timezone.now)

    def __str__(self) -> str:
        return self.subject or self.fingerprint


class Endpoint(models.Model):
    """A TLS endpoint to watch."""

    class StartTls(models.TextChoices):
        """What is spoken before TLS."""

        NONE = probe.StartTls.NONE.value, "TLS from the first byte"
        SMTP = probe.StartTls.SMTP.value, "SMTP STARTTLS"
        MYSQL = probe.StartTls.MYSQL.value, "MySQL / MariaDB"

    class Status(models.TextChoices):
        """What the last scans amount to."""

        UNKNOWN = "unknown"
        OK = "ok"
        WARNING = "warning", "expires soon"
        CRITICAL = "critical", "expires very soon"
        INVALID = "invalid", "not valid"
        UNREACHABLE = "unreachable"

    host = models.CharField(max_length=253)
    port = models.PositiveIntegerField(
        default=443, validators=[MinValueValidator(1), MaxValueValidator(65535)]
    )
    server_name = models.CharField(
        max_length=253, blank=True, help_text="Sent as SNI and verified; empty: the host."
    )
    starttls = models.CharField(
        "protocol", max_length=10, choices=StartTls, default=StartTls.NONE, blank=True
    )
    authority = models.ForeignKey(
        Authority,
        null=True,
        blank=True,
        on_delete=models.PROTECT,
        help_text="The CA that must have issued it; empty: the system's store.",
    )
    enabled = models.BooleanField(default=True)
    interval_minutes = models.PositiveIntegerField(
        default=60, validators=[MinValueValidator(1)], help_text="Minutes between two scans."
    )
    warning_days = models.PositiveIntegerField(default=30)
    critical_days = models.PositiveIntegerField(default=7)
    notes = models.TextField(blank=True)

    next_scan_at = models.DateTimeField(default=timezone.now, editable=False)
    scanned_at = models.DateTimeField(null=True, editable=False)
    status = models.CharField(max_length=12, choices=Status, default=Status.UNKNOWN, editable=False)
    status_since = models.DateTimeField(default=timezone.now, editable=False)
    reason = models.TextField(blank=True, editable=False)
    failures = models.PositiveIntegerField(
        default=0, editable=False, help_text="Scans in a row that reached no certificate."
    )
    certificate = models.ForeignKey(
        Certificate, null=True, editable=False, on_delete=models.PROTECT, related_name="endpoints"
    )

    class Meta:
        ordering = (F("certificate__not_after").asc(nulls_first=True), "host", "port")
        constraints = (
            models.UniqueConstraint(
                fields=["host", "port", "server_name"], name="endpoint_identity"
            ),
        )
        indexes = (models.Index(fields=["enabled", "next_scan_at"], name="endpoint_due"),)

    def __str__(self) -> str:
        return f"{self.host}:{self.port}" + (f" ({self.server_name})" if self.server_name else "")

    @property
    def target(self) -> probe.Target:
        """The endpoint as the probe takes it."""
        return probe.Target(self.host, self.port, self.server_name, probe.StartTls(self.starttls))

    @property
    def interval(self) -> timedelta:
        """The time between two scans."""
        return timedelta(minutes=self.interval_minutes)


class Observation(models.Model):
    """What one scan of one endpoint found."""

    TIMEOUT = "timeout"

    endpoint = models.ForeignKey(Endpoint, on_delete=models.CASCADE, related_name="observations")
    at = models.DateTimeField(default=timezone.now)
    outcome = models.CharField(
        max_length=24, help_text="valid, or why the certificate is not valid or was not seen"
    )
    detail = models.TextField(blank=True)
    certificate = models.ForeignKey(Certificate, null=True, on_delete=models.PROTECT)
    chain_length = models.PositiveSmallIntegerField(default=0)
    address = models.CharField(max_length=64, blank=True)
    tls_version = models.CharField("TLS version", max_length=16, blank=True)
    cipher = models.CharField(max_length=64, blank=True)
    elapsed_ms = models.PositiveIntegerField("time (ms)", null=True)

    retention = Retention("at", days=90)

    class Meta:
        ordering = ("-at",)
        indexes = (
            models.Index(fields=["endpoint", "-at"], name="observation_history"),
            models.Index(fields=["at"], name="observation_age"),
        )

    def __str__(self) -> str:
        return f"{self.endpoint} {self.outcome}"

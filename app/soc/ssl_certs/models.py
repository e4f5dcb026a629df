"""What the certificate tracker watches and what it saw."""

import re
import time
from datetime import timedelta
from functools import lru_cache
from typing import Any

from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import F
from django.utils import timezone

from soc.core.models import Retention
from soc.ssl_certs import expiry
from soc.ssl_certs.expiry import ExpiryLimit, ExpiryLimits
from soc.ssl_certs.policies import TLS_VERSIONS, StrengthLimits
from soc.ssl_certs.targets import StartTls as Protocol
from soc.ssl_certs.targets import Target

# Landed migrations import the validator from here; loading both models registers them.
from soc.trust.models import Authority, RevocationList, validate_bundle  # noqa: F401

_FINGERPRINT = re.compile(r"[0-9A-F]{64}")


def fingerprints(text: str) -> list[str]:
    """Return the SHA-256 fingerprints in a text, with or without colons, as upper-case hexadecimal.

    Raises:
        ValidationError: a word of the text is none.
    """
    words = [word.replace(":", "").upper() for word in re.split(r"[\s,;]+", text) if word]
    for word in words:
        if not _FINGERPRINT.fullmatch(word):
            raise ValidationError(
                f"{word[:80]} is no SHA-256 fingerprint: it has 64 digits 0 to F."
            )
    return words


def validate_fingerprints(text: str) -> None:
    """Check that a text holds fingerprints.

    Raises:
        ValidationError: it does not.
    """
    fingerprints(text)


_DAYS: Any = {"validators": [MaxValueValidator(3650)]}
_SHARE: Any = {"validators": [MinValueValidator(1), MaxValueValidator(100)]}
_DEFAULT = expiry.DEFAULT
_STRENGTH = StrengthLimits()
_OF_LIFETIME = "Percent of its lifetime; the lesser of both counts. 100: the days alone."


class Group(models.Model):
    """An expiry policy: endpoints that are warned of alike.

    Public certificates will live for 47 days from March 2029 on: a fixed number of days is too
    early for those that are renewed by machines, a share of the lifetime fits both.
    """

    name = models.CharField(max_length=100, unique=True)
    critical_days = models.PositiveIntegerField(
        "critical (days left)", default=_DEFAULT.critical.days, **_DAYS
    )
    critical_share = models.PositiveSmallIntegerField(
        "critical (%)", default=_DEFAULT.critical.share, help_text=_OF_LIFETIME, **_SHARE
    )
    error_days = models.PositiveIntegerField(
        "error (days left)", default=_DEFAULT.error.days, **_DAYS
    )
    error_share = models.PositiveSmallIntegerField(
        "error (%)", default=_DEFAULT.error.share, help_text=_OF_LIFETIME, **_SHARE
    )
    warning_days = models.PositiveIntegerField(
        "warning (days left)", default=_DEFAULT.warning.days, **_DAYS
    )
    warning_share = models.PositiveSmallIntegerField(
        "warning (%)", default=_DEFAULT.warning.share, help_text=_OF_LIFETIME, **_SHARE
    )

    rsa_bits = models.PositiveIntegerField(
        "RSA and DSA bits", default=_STRENGTH.rsa_bits, help_text="Fewer are a weak key."
    )
    curve_bits = models.PositiveIntegerField(
        "curve bits", default=_STRENGTH.curve_bits, help_text="Fewer are a weak key."
    )
    takes_sha1 = models.BooleanField(
        "SHA-1 signatures", default=_STRENGTH.takes_sha1, help_text="Ticked: they are no weakness."
    )
    tls_version = models.CharField(
        "TLS version",
        max_length=8,
        default=_STRENGTH.tls_version,
        choices=[(version, version) for version in TLS_VERSIONS[1:]],
        help_text="A server whose newest version is older is reported.",
    )
    lifetime_days = models.PositiveIntegerField(
        "lifetime (days)",
        null=True,
        blank=True,
        help_text="Certificates that are valid for longer are reported. Empty: where public "
        "authorities' rules do not allow it.",
    )

    is_default = models.BooleanField(
        "default",
        default=False,
        help_text="Holds for all endpoints that have no policy of their own; one policy does.",
    )

    class Meta:
        ordering = ("name",)
        verbose_name = "expiry policy"
        verbose_name_plural = "expiry policies"

    def __str__(self) -> str:
        return self.name

    def save(self, **options: Any) -> None:
        """Save; a new default policy takes the place of the old one."""
        super().save(**options)
        if self.is_default:
            Group.objects.filter(is_default=True).exclude(pk=self.pk).update(is_default=False)
        _default_policy.cache_clear()

    @property
    def limits(self) -> ExpiryLimits:
        """When a certificate's end is near, for the endpoints of this policy."""
        return ExpiryLimits(
            critical=ExpiryLimit(self.critical_days, self.critical_share),
            error=ExpiryLimit(self.error_days, self.error_share),
            warning=ExpiryLimit(self.warning_days, self.warning_share),
        )

    @property
    def strength_limits(self) -> StrengthLimits:
        """What is strong enough, for the endpoints of this policy."""
        return StrengthLimits(
            self.rsa_bits, self.curve_bits, self.takes_sha1, self.tls_version, self.lifetime_days
        )


def default_limits() -> ExpiryLimits:
    """Return when an end is near for what has no policy of its own."""
    policy = _default_policy(_moment())
    return policy.limits if policy else expiry.DEFAULT


def _moment() -> int:
    return int(time.monotonic() // 10)


@lru_cache(maxsize=1)
def _default_policy(_: int) -> Group | None:
    """Return the policy of endpoints without one; a batch of a scan asks once, not each."""
    return Group.objects.filter(is_default=True).first()


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

        NONE = Protocol.NONE.value, "TLS from the first byte"
        SMTP = Protocol.SMTP.value, "SMTP STARTTLS"
        IMAP = Protocol.IMAP.value, "IMAP STARTTLS"
        POP3 = Protocol.POP3.value, "POP3 STLS"
        LDAP = Protocol.LDAP.value, "LDAP StartTLS"
        POSTGRESQL = Protocol.POSTGRESQL.value, "PostgreSQL"
        MYSQL = Protocol.MYSQL.value, "MySQL / MariaDB"
        XMPP = Protocol.XMPP.value, "XMPP (clients)"
        XMPP_SERVER = Protocol.XMPP_SERVER.value, "XMPP (servers)"
        FTP = Protocol.FTP.value, "FTP AUTH TLS"

    class Status(models.TextChoices):
        """What the last scans amount to."""

        UNKNOWN = "unknown"
        OK = "ok"
        WARNING = "warning", "expires soon"
        ERROR = "error", "expires very soon"
        CRITICAL = "critical", "about to expire"
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
        "protocol", max_length=16, choices=StartTls, default=StartTls.NONE, blank=True
    )
    authority = models.ForeignKey(
        Authority,
        null=True,
        blank=True,
        on_delete=models.PROTECT,
        help_text="The CA that must have issued it; empty: the system's store.",
    )
    group = models.ForeignKey(
        Group,
        null=True,
        blank=True,
        on_delete=models.SET_NULL,
        verbose_name="expiry policy",
        help_text="When it is warned of; empty: the default policy.",
    )
    expected_issuer = models.CharField(
        max_length=200, blank=True, help_text="A part of the issuer's name; empty: any."
    )
    pinned = models.TextField(
        "pinned fingerprints",
        blank=True,
        validators=[validate_fingerprints],
        help_text="SHA-256 of the certificates that it may present; empty: any.",
    )
    check_lists = models.BooleanField(
        "check CRLs",
        default=True,
        help_text="Fetch the revocation lists that trusted certificates name, and look them up.",
    )
    enabled = models.BooleanField(default=True)
    interval_minutes = models.PositiveIntegerField(
        default=60,
        validators=[MinValueValidator(1), MaxValueValidator(31 * 24 * 60)],
        help_text="Minutes between two scans; 44,640 (31 days) at most.",
    )
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
    scans = models.PositiveBigIntegerField(default=0, editable=False)
    outcome = models.CharField(
        max_length=24, blank=True, default="", editable=False, help_text="Of the last scan."
    )
    remarks = models.TextField(blank=True, editable=False)
    chain = models.JSONField(
        default=list,
        editable=False,
        help_text="Keys of the certificates presented, the leaf first.",
    )
    fault_depth = models.PositiveSmallIntegerField(null=True, editable=False)
    tls_version = models.CharField("TLS version", max_length=16, blank=True, editable=False)
    cipher = models.CharField(max_length=64, blank=True, editable=False)
    address = models.CharField(max_length=64, blank=True, editable=False)
    elapsed_ms = models.PositiveIntegerField("time (ms)", null=True, editable=False)
    observed_at = models.DateTimeField(
        null=True, editable=False, help_text="When an observation was last written down."
    )

    class Meta:
        ordering = (F("certificate__not_after").asc(nulls_first=True), "host", "port")
        constraints = (
            models.UniqueConstraint(
                fields=["host", "port", "server_name"], name="endpoint_identity"
            ),
        )
        indexes = (
            models.Index(fields=["enabled", "next_scan_at"], name="endpoint_due"),
            models.Index(fields=["enabled", "status"], name="endpoint_status"),
        )
        permissions = (("scan_endpoint", "Can have endpoints scanned"),)

    def __str__(self) -> str:
        return f"{self.host}:{self.port}" + (f" ({self.server_name})" if self.server_name else "")

    @property
    def target(self) -> Target:
        """The endpoint as the probe takes it."""
        return Target(self.host, self.port, self.server_name, Protocol(self.starttls))

    @property
    def limits(self) -> ExpiryLimits:
        """When the end of its certificate is near."""
        return self.group.limits if self.group else default_limits()

    @property
    def strength_limits(self) -> StrengthLimits:
        """What is strong enough for this endpoint."""
        policy = self.group or _default_policy(_moment())
        return policy.strength_limits if policy else StrengthLimits()

    @property
    def interval(self) -> timedelta:
        """The time between two scans."""
        return timedelta(minutes=self.interval_minutes)


class Observation(models.Model):
    """What scans of one endpoint found: each time that it changed, and once a day."""

    endpoint = models.ForeignKey(Endpoint, on_delete=models.CASCADE, related_name="observations")
    at = models.DateTimeField(default=timezone.now)
    outcome = models.CharField(
        max_length=24, help_text="valid, or why the certificate is not valid or was not seen"
    )
    status = models.CharField(
        max_length=12, choices=Endpoint.Status, default=Endpoint.Status.UNKNOWN
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


class Change(models.Model):
    """That an endpoint presented another certificate than before."""

    class Kind(models.TextChoices):
        """What the other certificate is."""

        FIRST = "first", "seen for the first time"
        RENEWED = "renewed"
        ISSUER = "issuer", "changed issuer"
        REPLACED = "replaced"
        WENT_BACK = "back", "went back to an older one"

    endpoint = models.ForeignKey(Endpoint, on_delete=models.CASCADE, related_name="changes")
    at = models.DateTimeField(default=timezone.now)
    kind = models.CharField(max_length=10, choices=Kind)
    text = models.TextField(blank=True)
    before = models.ForeignKey(Certificate, null=True, on_delete=models.PROTECT, related_name="+")
    after = models.ForeignKey(Certificate, on_delete=models.PROTECT, related_name="+")

    retention = Retention("at", days=730)

    class Meta:
        ordering = ("-at", "-pk")
        indexes = (
            models.Index(fields=["endpoint", "-at"], name="change_history"),
            models.Index(fields=["at"], name="change_age"),
        )

    def __str__(self) -> str:
        return f"{self.endpoint} {self.kind}"


class Verification(models.Model):
    """A person's question whether a certificate has been renewed, on every address of a name."""

    class Outcome(models.TextChoices):
        """The answer."""

        RENEWED = "renewed", "renewed on every address"
        PARTLY = "partly", "renewed on some addresses"
        NOT_YET = "not_yet", "not renewed"
        INVALID = "invalid", "renewed, but not valid"
        UNREACHABLE = "unreachable"

    endpoint = models.ForeignKey(Endpoint, on_delete=models.CASCADE, related_name="verifications")
    requested_at = models.DateTimeField(default=timezone.now)
    requested_by = models.CharField(max_length=150)
    before = models.ForeignKey(Certificate, null=True, on_delete=models.PROTECT, related_name="+")
    finished_at = models.DateTimeField(null=True)
    outcome = models.CharField(max_length=12, choices=Outcome, blank=True)
    found = models.JSONField(default=list, help_text="What each address presents.")

    retention = Retention("requested_at", days=90)

    class Meta:
        ordering = ("-requested_at", "-pk")
        indexes = (models.Index(fields=["requested_at"], name="verification_age"),)

    def __str__(self) -> str:
        return f"{self.endpoint} {self.outcome or 'asked'}"


class Search(models.Model):
    """A search of address ranges for endpoints; those that present a certificate are watched."""

    ranges = models.TextField()
    targets = models.JSONField(default=list, help_text="Pairs of host and port.")
    starttls = models.CharField(
        "protocol", max_length=16, choices=Endpoint.StartTls, default=Endpoint.StartTls.NONE
    )
    authority = models.ForeignKey(Authority, null=True, on_delete=models.SET_NULL)
    group = models.ForeignKey(Group, null=True, on_delete=models.SET_NULL)
    requested_at = models.DateTimeField(default=timezone.now)
    requested_by = models.CharField(max_length=150)
    finished_at = models.DateTimeField(null=True)
    answered = models.PositiveIntegerField(default=0)
    added = models.PositiveIntegerField(default=0)

    retention = Retention("requested_at", days=90)

    class Meta:
        ordering = ("-requested_at", "-pk")
        indexes = (models.Index(fields=["requested_at"], name="search_age"),)
        verbose_name_plural = "searches"

    def __str__(self) -> str:
        return self.ranges[:80]

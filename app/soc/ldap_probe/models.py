"""Directory servers to watch, what they are asked with, and what their probes found."""

from datetime import datetime

from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.urls import reverse
from django.utils import timezone

from soc.common.due import slot_after
from soc.core.models import Retention
from soc.core.sealed import SealedField
from soc.ldap_probe import diagnostics
from soc.ldap_probe.diagnostics import Outcome
from soc.trust.models import Authority

TOTAL = "total"


class Credential(models.Model):
    """Who binds, and with which password."""

    name = models.CharField(max_length=100, unique=True)
    user = models.CharField(
        max_length=500, help_text="A DN; for Active Directory also name@domain or DOMAIN\\name."
    )
    password = SealedField()

    refusals = models.PositiveIntegerField(
        default=0, editable=False, help_text="Binds in a row that were refused, at any server."
    )
    refused_at = models.DateTimeField(null=True, editable=False)
    refusal = models.TextField(blank=True, editable=False)
    used_until = models.DateTimeField(
        null=True, editable=False, help_text="Until then one round alone binds with it."
    )

    class Meta:
        ordering = ("name",)

    def __str__(self) -> str:
        return self.name


class Profile(models.Model):
    """What is slow for a kind of server, and how far its copy may be behind."""

    name = models.CharField(max_length=100, unique=True)
    lag_warning = models.PositiveIntegerField(
        "replication behind: warning (s)", null=True, blank=True, help_text="Empty: no limit."
    )
    lag_error = models.PositiveIntegerField("replication behind: error (s)", null=True, blank=True)
    lag_alert = models.PositiveIntegerField("replication behind: alert (s)", null=True, blank=True)

    class Meta:
        ordering = ("name",)

    def __str__(self) -> str:
        return self.name


class Limit(models.Model):
    """From how many seconds a phase is slow; the three steps are the three severities."""

    class Phase(models.TextChoices):
        """What is timed."""

        RESOLVE = diagnostics.Phase.RESOLVE.value
        CONNECT = diagnostics.Phase.CONNECT.value
        TLS = diagnostics.Phase.TLS.value, "TLS"
        BIND = diagnostics.Phase.BIND.value
        SEARCH = diagnostics.Phase.SEARCH.value
        TOTAL = TOTAL, "all together"

    profile = models.ForeignKey(Profile, on_delete=models.CASCADE, related_name="limits")
    phase = models.CharField(max_length=8, choices=Phase)
    warning = models.FloatField(
        "warning (s)", null=True, blank=True, validators=[MinValueValidator(0)]
    )
    error = models.FloatField("error (s)", null=True, blank=True, validators=[MinValueValidator(0)])
    alert = models.FloatField("alert (s)", null=True, blank=True, validators=[MinValueValidator(0)])

    class Meta:
        constraints = (models.UniqueConstraint(fields=["profile", "phase"], name="limit_identity"),)

    def __str__(self) -> str:
        return f"{self.profile}: {self.phase}"


class State(models.TextChoices):
    """How the last probe found a server."""

    UNKNOWN = "unknown", "not probed yet"
    OK = Outcome.OK.value, "OK"
    SLOW = "slow"
    REFERRAL = Outcome.REFERRAL.value, "sends elsewhere"
    REFUSED = Outcome.REFUSED.value, "refuses the search"
    CREDENTIAL = Outcome.CREDENTIAL.value, "credential problem"
    SECURITY = Outcome.SECURITY.value, "connection security"
    CERTIFICATE = Outcome.CERTIFICATE.value, "certificate problem"
    TIMEOUT = Outcome.TIMEOUT.value, "timed out"
    DOWN = Outcome.DOWN.value


ANSWERED_BIND = (State.OK, State.SLOW, State.REFERRAL, State.REFUSED)
"""States of a server with a credential that can only follow a bind."""


class DirectoryServer(models.Model):
    """A directory server to watch, with the state that its probes have left."""

    class Security(models.TextChoices):
        """How the connection is protected."""

        LDAPS = diagnostics.Security.LDAPS.value, "ldaps"
        STARTTLS = diagnostics.Security.STARTTLS.value, "StartTLS"
        PLAIN = diagnostics.Security.PLAIN.value, "none: passwords travel in clear text"

    host = models.CharField(max_length=253, help_text="A name, or an address.")
    certificate_name = models.CharField(
        max_length=253, blank=True, help_text="The name in its certificate; empty: the host."
    )
    port = models.PositiveIntegerField(
        default=636, validators=[MinValueValidator(1), MaxValueValidator(65535)]
    )
    security = models.CharField(max_length=8, choices=Security, default=Security.LDAPS)
    authority = models.ForeignKey(
        Authority,
        null=True,
        blank=True,
        on_delete=models.PROTECT,
        help_text="The CA that must have issued its certificate; empty: the system's store.",
    )
    base = models.CharField(max_length=500, blank=True, help_text="Empty: the RootDSE.")
    filter = models.CharField(
        max_length=500,
        blank=True,
        help_text="Searched for below the base; empty: the entry itself is read.",
    )
    credential = models.ForeignKey(
        Credential,
        null=True,
        blank=True,
        on_delete=models.PROTECT,
        related_name="servers",
        help_text="Empty: anonymous.",
    )
    profile = models.ForeignKey(
        Profile, null=True, blank=True, on_delete=models.PROTECT, help_text="Empty: never slow."
    )
    site = models.CharField(max_length=64, blank=True, db_index=True)
    group = models.CharField(
        "replication group",
        max_length=64,
        blank=True,
        db_index=True,
        help_text="Servers that hold the same data; they are compared with each other.",
    )
    enabled = models.BooleanField(default=True)
    interval_minutes = models.PositiveIntegerField(
        default=5, validators=[MinValueValidator(1), MaxValueValidator(1440)]
    )
    notes = models.TextField(blank=True)

    next_probe_at = models.DateTimeField(default=timezone.now, editable=False)
    probed_at = models.DateTimeField(null=True, editable=False)
    state = models.CharField(max_length=12, choices=State, default=State.UNKNOWN, editable=False)
    state_since = models.DateTimeField(default=timezone.now, editable=False)
    detail = models.TextField(blank=True, editable=False)
    failures = models.PositiveIntegerField(
        default=0, editable=False, help_text="Probes in a row that it did not answer."
    )
    bound = models.BooleanField(
        null=True, editable=False, help_text="Whether it took its credential; empty: never asked."
    )
    bind_refusals = models.PositiveIntegerField(
        default=0, editable=False, help_text="Binds in a row that it refused."
    )
    bind_refused_at = models.DateTimeField(null=True, editable=False)
    password_expires_at = models.DateTimeField(
        null=True, editable=False, help_text="When the credential's password expires, as it says."
    )
    recent = models.JSONField(
        default=list, editable=False, help_text="Milliseconds of the last probes; null: a failure."
    )
    csn = models.JSONField(default=dict, editable=False)
    missing = models.JSONField(default=dict, editable=False)
    usn = models.PositiveBigIntegerField(null=True, editable=False)
    invocation = models.CharField(max_length=36, blank=True, editable=False)
    vector = models.JSONField(default=dict, editable=False)
    marks = models.JSONField(default=dict, editable=False)
    controllers = models.JSONField(default=dict, editable=False)
    unjudged = models.TextField("replication is not judged", blank=True, editable=False)
    lag = models.PositiveIntegerField("behind (s)", null=True, editable=False)

    class Meta:
        ordering = ("host", "port")
        permissions = (("probe_directoryserver", "Can have directory servers probed now"),)
        constraints = (
            models.UniqueConstraint(fields=["host", "port"], name="directory_server_identity"),
        )
        indexes = (models.Index(fields=["enabled", "next_probe_at"], name="directory_server_due"),)

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"

    def get_absolute_url(self) -> str:
        """Return the address of the server's page."""
        return reverse("directory", args=[self.pk])

    def slot_after(self, moment: datetime) -> datetime:
        """Return the server's next turn after a moment."""
        return slot_after(str(self), self.interval_minutes, moment)


class ProbeResult(models.Model):
    """What one probe of one server found; times in milliseconds."""

    server = models.ForeignKey(DirectoryServer, on_delete=models.CASCADE, related_name="results")
    at = models.DateTimeField(default=timezone.now)
    outcome = models.CharField(max_length=12, choices=[(o.value, o.value) for o in Outcome])
    error = models.CharField("error class", max_length=60, blank=True)
    detail = models.TextField(blank=True)
    diagnostic = models.TextField("the server's words", blank=True)
    severity = models.PositiveSmallIntegerField("slowness", default=0)
    resolve_ms = models.FloatField(null=True)
    connect_ms = models.FloatField(null=True)
    tls_ms = models.FloatField("TLS ms", null=True)
    bind_ms = models.FloatField(null=True)
    search_ms = models.FloatField(null=True)
    address = models.CharField(max_length=64, blank=True)
    tls_version = models.CharField("TLS version", max_length=16, blank=True)
    lag = models.PositiveIntegerField("behind (s)", null=True)

    retention = Retention("at", days=14)

    class Meta:
        ordering = ("-at",)
        indexes = (
            models.Index(fields=["server", "-at"], name="probe_result_history"),
            models.Index(fields=["at"], name="probe_result_age"),
        )

    def __str__(self) -> str:
        return f"{self.server} {self.outcome}"

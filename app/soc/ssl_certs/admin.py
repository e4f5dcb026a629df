"""The admin's pages of the certificate tracker."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from django.contrib import admin, messages
from django.db.models import QuerySet, TextField
from django.http import HttpRequest
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from unfold.admin import ModelAdmin, TabularInline
from unfold.contrib.filters.admin import RelatedDropdownFilter
from unfold.decorators import action, display
from unfold.widgets import UnfoldAdminTextareaWidget

from soc.core.admin import ReadOnlyAdmin, preformatted
from soc.schedules.schedules import request_run
from soc.ssl_certs.models import Certificate, Change, Endpoint, Group, Observation
from soc.ssl_certs.tasks import scan_endpoint
from soc.trust.chain import Validity
from soc.trust.models import Authority, RevocationList

MOST_REQUESTS = 50
"""Above this, endpoints are made due instead of being requested one by one."""

_LABELS = {
    Endpoint.Status.UNKNOWN.label: "default",
    Endpoint.Status.OK.label: "success",
    Endpoint.Status.WARNING.label: "warning",
    Endpoint.Status.ERROR.label: "danger",
    Endpoint.Status.CRITICAL.label: "danger",
    Endpoint.Status.INVALID.label: "danger",
    Endpoint.Status.UNREACHABLE.label: "danger",
}


def _days_left(certificate: Certificate | None) -> int | None:
    if certificate is None or certificate.not_after is None:
        return None
    return (certificate.not_after - timezone.now()).days


def _to_minute(moment: datetime) -> str:
    return f"{timezone.localtime(moment):%Y-%m-%d %H:%M}"


class ObservationInline(TabularInline):
    """What the last scans of an endpoint found."""

    model = Observation
    verbose_name_plural = "changes, and one scan a day"
    fields = readonly_fields = (
        *("at", "outcome", "detail", "tls_version", "cipher", "address", "elapsed_ms"),
    )
    per_page = 20
    hide_title = True
    extra = 0
    can_delete = False

    def has_add_permission(self, request: HttpRequest, *_: Any) -> bool:
        """Scans add observations."""
        return False


@admin.register(Endpoint)
class EndpointAdmin(ModelAdmin):
    """TLS endpoints to watch."""

    list_display = (*("name", "status_label", "days_left", "expires", "scanned", "enabled"),)
    list_filter = (
        *("status", "enabled", "starttls"),
        ("authority", RelatedDropdownFilter),
        ("group", RelatedDropdownFilter),
    )
    list_filter_submit = True
    list_fullwidth = True
    list_select_related = ("certificate",)
    search_fields = ("host", "server_name", "notes", "certificate__subject")
    show_full_result_count = False
    autocomplete_fields = ("authority", "group")
    formfield_overrides = {TextField: {"widget": UnfoldAdminTextareaWidget(attrs={"rows": 3})}}
    actions = ("scan_selected",)
    actions_submit_line = ("scan_now",)
    inlines = (ObservationInline,)
    readonly_fields = (
        *("status_label", "reason", "status_since", "scanned", "next_scan_at", "failures"),
        *("scans", "remarks", "tls_version", "cipher", "address", "elapsed_ms"),
        *("certificate", "days_left", "expires", "issuer", "names", "key", "fingerprint"),
    )
    fieldsets = (
        (None, {"fields": (("host", "port"), ("server_name", "starttls"))}),
        (
            "Trust",
            {"fields": ("authority", "check_lists", "expected_issuer", "pinned")},
        ),
        (
            "Watching",
            {
                "fields": (
                    *("enabled", "interval_minutes", "group"),
                    "notes",
                )
            },
        ),
        (
            "State",
            {
                "fields": (
                    *("status_label", "reason", ("status_since", "failures")),
                    *(("scanned", "next_scan_at"), "scans", "remarks"),
                    *(("tls_version", "cipher"), ("address", "elapsed_ms")),
                )
            },
        ),
        (
            "Certificate",
            {
                "fields": (
                    *("certificate", ("days_left", "expires"), "issuer", "names"),
                    *("key", "fingerprint"),
                )
            },
        ),
    )

    def get_fieldsets(self, request: HttpRequest, obj: Endpoint | None = None) -> Any:
        """Return the fields; a new endpoint has no state and no certificate yet."""
        return super().get_fieldsets(request, obj) if obj else self.fieldsets[:3]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Endpoint]:
        """Return endpoints without the certificates' bodies, which no page of theirs shows."""
        endpoints: QuerySet[Endpoint] = super().get_queryset(request)
        return endpoints.defer("certificate__pem")

    @display(description="Endpoint and issuer", ordering="host", header=True)
    def name(self, endpoint: Endpoint) -> list[str]:
        """Return host, port and server name, and the issuer beneath."""
        return [str(endpoint), self.issuer(endpoint) or "no certificate seen"]

    @display(description="Status", ordering="status", label=_LABELS)
    def status_label(self, endpoint: Endpoint) -> str:
        """Return the status as a coloured word."""
        return endpoint.get_status_display()

    @display(description="Days left", ordering="certificate__not_after")
    def days_left(self, endpoint: Endpoint) -> int | None:
        """Return the days until the certificate expires."""
        return _days_left(endpoint.certificate)

    @display(description="Expires", ordering="certificate__not_after")
    def expires(self, endpoint: Endpoint) -> str | None:
        """Return when the certificate expires."""
        expires = endpoint.certificate.not_after if endpoint.certificate else None
        return _to_minute(expires) if expires else None

    @display(description="Last scan", ordering="scanned_at")
    def scanned(self, endpoint: Endpoint) -> str | None:
        """Return the time of the last scan."""
        return _to_minute(endpoint.scanned_at) if endpoint.scanned_at else None

    @display(description="Issuer")
    def issuer(self, endpoint: Endpoint) -> str | None:
        """Return who issued the certificate."""
        return endpoint.certificate.issuer if endpoint.certificate else None

    @display(description="Names")
    def names(self, endpoint: Endpoint) -> str | None:
        """Return the names that the certificate is for."""
        return _listed(endpoint.certificate.san) if endpoint.certificate else None

    @display(description="Key and signature")
    def key(self, endpoint: Endpoint) -> str | None:
        """Return the certificate's algorithms."""
        certificate = endpoint.certificate
        return f"{certificate.key}, {certificate.signature}" if certificate else None

    @display(description="SHA-256 fingerprint")
    def fingerprint(self, endpoint: Endpoint) -> str | None:
        """Return the certificate's fingerprint."""
        return endpoint.certificate.fingerprint if endpoint.certificate else None

    @action(description="Save and scan now", icon="radar", permissions=["change"])
    def scan_now(self, request: HttpRequest, endpoint: Endpoint) -> None:
        """Request a scan of the endpoint that was just saved."""
        self._request_scan(request, endpoint)
        text = f"Scan of {endpoint} requested: beat will start it within 5 s."
        self.message_user(request, text, messages.SUCCESS)

    @action(description="Scan now", permissions=["change"])
    def scan_selected(self, request: HttpRequest, queryset: QuerySet[Endpoint]) -> None:
        """Request a scan of each endpoint, or make many due for the next round of scans."""
        count = queryset.count()
        if count > MOST_REQUESTS:
            chosen = Endpoint.objects.filter(pk__in=queryset.order_by().values("pk"))
            chosen.update(next_scan_at=timezone.now())
            text = f"{count} endpoints are due now: the next round of scans takes those enabled."
        else:
            for endpoint in queryset:
                self._request_scan(request, endpoint)
            text = f"Scans requested: {count}. Beat will start them within 5 s."
        self.message_user(request, text, messages.SUCCESS)

    def _request_scan(self, request: HttpRequest, endpoint: Endpoint) -> None:
        user = request.user.get_username()
        request_run(f"scan {endpoint}", scan_endpoint.name, user, {"key": endpoint.pk})


@admin.register(Certificate)
class CertificateAdmin(ReadOnlyAdmin):
    """Certificates that endpoints presented."""

    list_display = ("subject", "issuer", "not_after", "days_left", "key", "first_seen_at")
    list_fullwidth = True
    search_fields = ("subject", "issuer", "serial", "fingerprint")
    date_hierarchy = "not_after"
    ordering = ("not_after",)
    show_full_result_count = False
    fields = readonly_fields = (
        *("subject", "issuer", "names", "not_before", "not_after", "days_left", "problem_list"),
        *("key", "signature", "serial", "fingerprint", "first_seen_at", "presented_by", "body"),
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[Certificate]:
        """Return certificates; a list needs no bodies."""
        certificates: QuerySet[Certificate] = super().get_queryset(request)
        return certificates.defer("pem")

    @display(description="Days left", ordering="not_after")
    def days_left(self, certificate: Certificate) -> int | None:
        """Return the days until it expires."""
        return _days_left(certificate)

    @display(description="Names")
    def names(self, certificate: Certificate) -> str:
        """Return the names that it is for."""
        return _listed(certificate.san)

    @display(description="Problems")
    def problem_list(self, certificate: Certificate) -> str:
        """Return what is odd about the certificate itself."""
        return _listed(certificate.problems)

    @display(description="Presented by")
    def presented_by(self, certificate: Certificate) -> str:
        """Return the endpoints where it was seen last."""
        return _listed(certificate.endpoints.all()[:MOST_REQUESTS])

    @display(description="PEM")
    def body(self, certificate: Certificate) -> SafeString:
        """Return the certificate itself."""
        return preformatted(certificate.pem)


def _listed(values: Iterable[object]) -> str:
    items = format_html_join("", "<li>{}</li>", ((value,) for value in values))
    return format_html("<ul>{}</ul>", items) if items else "none"


@admin.register(Observation)
class ObservationAdmin(ReadOnlyAdmin):
    """Every scan of every endpoint."""

    list_display = ("endpoint", "at", "outcome_label", "detail", "tls_version", "elapsed_ms")
    list_filter = ("outcome",)
    list_select_related = ("endpoint",)
    list_fullwidth = True
    search_fields = ("endpoint__host", "detail", "address")
    date_hierarchy = "at"
    show_full_result_count = False

    @display(description="Outcome", ordering="outcome", label={Validity.VALID.value: "success"})
    def outcome_label(self, observation: Observation) -> str:
        """Return the outcome as a label."""
        return observation.outcome


@admin.register(Authority)
class AuthorityAdmin(ModelAdmin):
    """Bundles of CA certificates that endpoints and directories are verified against."""

    list_display = ("name",)
    search_fields = ("name",)


@admin.register(Group)
class ExpiryPolicyAdmin(ModelAdmin):
    """Expiry policies: endpoints that are warned of alike."""

    list_display = (
        *("name", "is_default", "warning_days", "warning_share", "error_days", "error_share"),
        *("critical_days", "critical_share"),
    )
    search_fields = ("name",)
    fields = (
        ("name", "is_default"),
        ("warning_days", "warning_share"),
        ("error_days", "error_share"),
        ("critical_days", "critical_share"),
        ("rsa_bits", "curve_bits", "takes_sha1"),
        ("tls_version", "lifetime_days"),
    )


@admin.register(Change)
class ChangeAdmin(ReadOnlyAdmin):
    """Certificates that took the place of others."""

    list_display = ("endpoint", "at", "kind", "text")
    list_filter = ("kind",)
    list_select_related = ("endpoint",)
    list_fullwidth = True
    search_fields = ("endpoint__host", "text")
    date_hierarchy = "at"
    show_full_result_count = False


@admin.register(RevocationList)
class RevocationListAdmin(ReadOnlyAdmin):
    """Revocation lists that are fetched ahead of the scans."""

    list_display = ("url", "fetched_at", "next_fetch_at", "error")
    list_fullwidth = True
    search_fields = ("url",)
    fields = readonly_fields = ("url", "fetched_at", "next_fetch_at", "wanted_at", "error")

    def get_queryset(self, request: HttpRequest) -> QuerySet[RevocationList]:
        """Return lists without their bodies, which nobody could read."""
        lists: QuerySet[RevocationList] = super().get_queryset(request)
        return lists.defer("body")

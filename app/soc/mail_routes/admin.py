"""The admin's pages of the mail routes."""

from typing import Any

from django.contrib import admin, messages
from django.db.models import QuerySet, TextField
from django.http import HttpRequest
from unfold.admin import ModelAdmin
from unfold.decorators import action, display
from unfold.widgets import UnfoldAdminTextareaWidget

from soc.core.admin import ReadOnlyAdmin
from soc.mail_routes import accounts, trips
from soc.mail_routes.models import MailAccount, MailRoute, RoundTrip
from soc.mail_routes.pages import TripRow

_COLOURS = {"bad": "danger", "warn": "warning", "ok": "success", "idle": "default"}


@admin.register(MailRoute)
class MailRouteAdmin(ModelAdmin):
    """Routes that round trips are made on."""

    list_display = ("name", "enabled", "sender", "recipient", "site", "next_run_at")
    list_editable = ("enabled",)
    list_filter = ("enabled", "site")
    list_fullwidth = True
    search_fields = ("name", "sender", "recipient", "smtp_host", "imap_host", "notes")
    autocomplete_fields = ("smtp_authority", "smtp_account", "imap_authority", "imap_account")
    formfield_overrides = {TextField: {"widget": UnfoldAdminTextareaWidget(attrs={"rows": 3})}}
    actions = ("check_selected",)
    readonly_fields = ("next_run_at",)
    fieldsets = (
        (None, {"fields": ("name", ("enabled", "site"))}),
        (
            "Submission",
            {
                "fields": (
                    *(("smtp_host", "smtp_port"), ("smtp_security", "smtp_authority")),
                    *("smtp_account", ("sender", "recipient")),
                )
            },
        ),
        (
            "Mailbox",
            {
                "fields": (
                    *(("imap_host", "imap_port"), ("imap_security", "imap_authority")),
                    *("imap_account", ("inbox", "spam_folder")),
                )
            },
        ),
        (
            "Watching",
            {"fields": ("interval_minutes", ("late_after", "lost_after"), "notes", "next_run_at")},
        ),
    )

    @action(description="Check now", permissions=["change"])
    def check_selected(self, request: HttpRequest, queryset: QuerySet[MailRoute]) -> None:
        """Make routes due."""
        count = trips.check_now(list(queryset.order_by().values_list("pk", flat=True)))
        self.message_user(request, f"{count} routes are checked within 15 s.", messages.SUCCESS)


@admin.register(MailAccount)
class MailAccountAdmin(ModelAdmin):
    """Who logs in; a secret is never shown."""

    list_display = ("name", "user", "method", "refusals", "refused_at")
    list_filter = ("method",)
    search_fields = ("name", "user")
    autocomplete_fields = ("authority",)
    readonly_fields = ("refusals", "refused_at", "refusal")
    actions = ("try_selected",)
    fieldsets = (
        (None, {"fields": ("name", ("user", "method"), "secret")}),
        (
            "Access token",
            {
                "description": "OAuth 2.0 client credentials, as for Exchange Online.",
                "fields": (("token_url", "authority"), ("client_id", "scope")),
            },
        ),
        ("Refused", {"fields": (("refusals", "refused_at"), "refusal")}),
    )

    @action(description="Try now", permissions=["change"])
    def try_selected(self, request: HttpRequest, queryset: QuerySet[MailAccount]) -> None:
        """Allow one more login with accounts that are not tried any more."""
        count = accounts.try_now(list(queryset.order_by().values_list("pk", flat=True)))
        self.message_user(request, f"{count} routes are checked within 15 s.", messages.SUCCESS)


@admin.register(RoundTrip)
class RoundTripAdmin(ReadOnlyAdmin):
    """Every round trip."""

    list_display = ("route", "started_at", "result", "seconds", "detail")
    list_filter = ("outcome", "route")
    list_select_related = ("route",)
    list_fullwidth = True
    search_fields = ("route__name", "detail", "mark")
    date_hierarchy = "started_at"
    show_full_result_count = False

    @display(
        description="Result",
        ordering="outcome",
        label={
            str(outcome.label): _COLOURS[TripRow(RoundTrip(state="done", outcome=outcome)).tone]
            for outcome in RoundTrip.Outcome
        },
    )
    def result(self, trip: RoundTrip) -> str:
        """Return the result as a coloured word."""
        return TripRow(trip).label

    @display(description="Delivery (s)")
    def seconds(self, trip: RoundTrip) -> Any:
        """Return how long the delivery took."""
        return TripRow(trip).seconds

"""The admin's pages of the mail flow."""

from typing import Any

from django.contrib import admin
from django.http import HttpRequest
from unfold.admin import ModelAdmin
from unfold.decorators import display

from soc.core.admin import ReadOnlyAdmin
from soc.mail_collector.models import Delivery, Mailbox, MailEvent, MailSettings, Route


class SeenAdmin(ReadOnlyAdmin):
    """Pages of what robots have shown; what is of no interest any more is deleted by hand."""

    def has_delete_permission(self, request: HttpRequest, *arguments: Any) -> bool:
        """Anyone who may delete may: what is still seen comes back by itself."""
        return bool(ModelAdmin.has_delete_permission(self, request, *arguments))


@admin.register(MailEvent)
class MailEventAdmin(ReadOnlyAdmin):
    """Every check of every mail robot."""

    list_display = ("bot", "at", "kind", "result", "mailbox", "text", "stale")
    list_filter = ("kind", "passed", "stale")
    list_select_related = ("bot",)
    list_fullwidth = True
    search_fields = ("bot__host", "mailbox", "wm_id", "message_id")
    date_hierarchy = "at"
    show_full_result_count = False
    fields = readonly_fields = (
        *("bot", "at", "received_at", "stale", "kind", "result", "mailbox", "wm_id"),
        *("message_id", "sender", "recipients", "text", "taken"),
    )

    @display(
        description="Result", ordering="passed", label={"passed": "success", "failed": "danger"}
    )
    def result(self, event: MailEvent) -> str:
        """Return the result as a coloured word."""
        return "passed" if event.passed else "failed"


@admin.register(Mailbox)
class MailboxAdmin(SeenAdmin):
    """Mailboxes as robots see them."""

    list_display = (
        *("address", "bot", "server", "database", "connected_at", "sent_at", "received_at"),
    )
    list_filter = ("server",)
    list_select_related = ("bot",)
    list_fullwidth = True
    search_fields = ("address", "bot__host")


@admin.register(Delivery)
class DeliveryAdmin(ReadOnlyAdmin):
    """Mails on their way."""

    list_display = ("wm_id", "sender", "recipient", "sent_at", "received_at", "verified")
    list_fullwidth = True
    search_fields = ("wm_id", "sender", "recipient")
    show_full_result_count = False
    fields = readonly_fields = (
        *("wm_id", "sender", "recipient", "sent_at", "received_at", "first_seen_at"),
    )

    @display(description="Verified", boolean=True)
    def verified(self, delivery: Delivery) -> bool:
        """Return whether both ends of it were seen."""
        return delivery.verified_at is not None


@admin.register(Route)
class RouteAdmin(SeenAdmin):
    """Pairs of domains between which robots send mail."""

    list_display = ("__str__", "sent_at", "verified_at", "failed_at", "problem")
    list_fullwidth = True
    search_fields = ("sender", "recipient")


@admin.register(MailSettings)
class MailSettingsAdmin(ModelAdmin):
    """From which values on mail has a problem."""

    list_display = ("__str__", "bot_warning", "server_warning", "route_unverified")
    fieldsets = (
        ("Robots and sites", {"fields": (("bot_warning", "bot_critical"),)}),
        (
            "Servers and databases",
            {"fields": (("server_warning", "server_critical"), "mailbox_pattern")},
        ),
        ("Pairs of domains", {"fields": ("route_unverified",)}),
    )

    def has_add_permission(self, request: HttpRequest, *_: Any) -> bool:
        """There is one row."""
        return False

    def has_delete_permission(self, request: HttpRequest, *_: Any) -> bool:
        """There is one row."""
        return False

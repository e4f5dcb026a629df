"""The admin's pages of the logons."""

from typing import Any

from django.contrib import admin
from django.http import HttpRequest
from unfold.admin import ModelAdmin
from unfold.decorators import display

from soc.core.admin import ReadOnlyAdmin
from soc.logons.models import LogonEvent, LogonSettings

_LABELS = {"Succeeded": "success", "Failed": "danger"}


@admin.register(LogonEvent)
class LogonEventAdmin(ReadOnlyAdmin):
    """Every logon of every robot."""

    list_display = ("bot", "at", "state_label", "event_id", "broker", "response_ms", "stale")
    list_filter = ("state", "stale")
    list_select_related = ("bot",)
    list_fullwidth = True
    search_fields = ("bot__host", "broker", "resource", "reason")
    date_hierarchy = "at"
    show_full_result_count = False
    fields = readonly_fields = (
        *("bot", "at", "received_at", "stale", "state_label", "event_id", "resource", "broker"),
        *("reason", "store_ms", "client_ms", "connection_ms", "logon_ms", "logoff_ms"),
        "response_ms",
    )

    @display(description="State", ordering="state", label=_LABELS)
    def state_label(self, event: LogonEvent) -> str:
        """Return the state as a coloured word."""
        return event.get_state_display()


@admin.register(LogonSettings)
class LogonSettingsAdmin(ModelAdmin):
    """From which values on logons are a problem."""

    list_display = ("__str__", "silent_after", "failures", "slow_above", "cluster")
    fieldsets = (
        ("Silence", {"fields": ("silent_after",)}),
        ("Failures", {"fields": (("failures", "failures_within"),)}),
        ("Response", {"fields": (("slow_above", "slow_within"),)}),
        (
            "Clusters",
            {
                "fields": (
                    ("cluster", "cluster_within"),
                    *("cluster_event_ids", "clusters_an_hour"),
                )
            },
        ),
    )

    def has_add_permission(self, request: HttpRequest, *_: Any) -> bool:
        """There is one row."""
        return False

    def has_delete_permission(self, request: HttpRequest, *_: Any) -> bool:
        """There is one row."""
        return False

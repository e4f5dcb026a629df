"""The admin's pages of the inventory."""

from django.contrib import admin
from unfold.admin import ModelAdmin

from soc.core.admin import ReadOnlyAdmin
from soc.inventory.models import InventoryRun, InventorySource


@admin.register(InventorySource)
class InventorySourceAdmin(ModelAdmin):
    """Where lists of what is to be watched are."""

    list_display = ("name", "kind", "shape", "enabled", "url", "next_run_at")
    list_filter = ("kind", "enabled")
    list_fullwidth = True
    search_fields = ("name", "url")
    autocomplete_fields = ("authority",)
    readonly_fields = ("next_run_at",)
    fieldsets = (
        (None, {"fields": ("name", ("kind", "enabled"))}),
        ("Address", {"fields": ("url", "authorization", "authority")}),
        ("Reading", {"fields": (("shape", "items"), "mapping")}),
        ("Watching", {"fields": (("interval_minutes", "most_missing"), "next_run_at")}),
    )


@admin.register(InventoryRun)
class InventoryRunAdmin(ReadOnlyAdmin):
    """Every reading of a source."""

    list_display = (
        *("source", "at", "mode", "outcome", "created", "changed", "same", "missing", "wrong"),
        "detail",
    )
    list_filter = ("outcome", "mode", "source")
    list_select_related = ("source",)
    list_fullwidth = True
    search_fields = ("source__name", "detail")
    date_hierarchy = "at"
    show_full_result_count = False

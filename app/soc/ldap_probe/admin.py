"""The admin's pages of the directory servers."""

from typing import Any

from django.contrib import admin, messages
from django.db.models import QuerySet, TextField
from django.http import HttpRequest, HttpResponseRedirect
from django.shortcuts import redirect
from django.utils import timezone
from unfold.admin import ModelAdmin, TabularInline
from unfold.contrib.filters.admin import RelatedDropdownFilter
from unfold.decorators import action, display
from unfold.widgets import UnfoldAdminTextareaWidget

from soc.core.admin import ReadOnlyAdmin
from soc.ldap_probe import credentials
from soc.ldap_probe.lists import TIMES, TONES
from soc.ldap_probe.models import (
    Credential,
    DirectoryServer,
    Limit,
    ProbeResult,
    Profile,
)

_COLOURS = {"bad": "danger", "warn": "warning", "ok": "success", "idle": "default"}

_LABELS = {str(state.label): _COLOURS[tone] for state, tone in TONES.items()}


@admin.register(DirectoryServer)
class DirectoryServerAdmin(ModelAdmin):
    """Directory servers to watch."""

    list_display = (
        *("name", "state_label", "site", "group", "credential", "profile", "probed_at", "enabled"),
    )
    list_filter = (
        *("state", "enabled", "security", "site", "group"),
        ("credential", RelatedDropdownFilter),
        ("profile", RelatedDropdownFilter),
    )
    list_filter_submit = True
    list_fullwidth = True
    list_select_related = ("credential", "profile")
    search_fields = ("host", "site", "group", "notes")
    show_full_result_count = False
    autocomplete_fields = ("authority", "credential", "profile")
    formfield_overrides = {TextField: {"widget": UnfoldAdminTextareaWidget(attrs={"rows": 3})}}
    actions = ("probe_selected",)
    actions_list = ("import_servers",)
    readonly_fields = (
        "state_label",
        "detail",
        "state_since",
        "probed_at",
        "next_probe_at",
        "lag",
        "unjudged",
    )
    fieldsets = (
        (None, {"fields": (("host", "port"), ("security", "authority"), "certificate_name")}),
        ("What is asked", {"fields": ("credential", "base", "filter")}),
        (
            "Watching",
            {
                "fields": (
                    *("enabled", ("interval_minutes", "profile"), ("site", "group")),
                    "notes",
                )
            },
        ),
        (
            "State",
            {
                "fields": (
                    *("state_label", "detail", ("state_since", "lag")),
                    *("unjudged", ("probed_at", "next_probe_at")),
                )
            },
        ),
    )

    def get_fieldsets(self, request: HttpRequest, obj: DirectoryServer | None = None) -> Any:
        """Return the fields; a new server has no state yet."""
        return super().get_fieldsets(request, obj) if obj else self.fieldsets[:3]

    @display(description="Server and what was found", ordering="host", header=True)
    def name(self, server: DirectoryServer) -> list[str]:
        """Return host and port, and the last detail beneath."""
        return [str(server), server.detail[:160]]

    @display(description="State", ordering="state", label=_LABELS)
    def state_label(self, server: DirectoryServer) -> str:
        """Return the state as a coloured word."""
        return server.get_state_display()

    @action(description="Import servers", permissions=["add"], url_path="import")
    def import_servers(self, request: HttpRequest) -> HttpResponseRedirect:
        """Go to the page that imports a table."""
        return redirect("directories-import")

    @action(description="Probe now", permissions=["change"])
    def probe_selected(self, request: HttpRequest, queryset: QuerySet[DirectoryServer]) -> None:
        """Make servers due for the next rounds."""
        chosen = DirectoryServer.objects.filter(pk__in=queryset.order_by().values("pk"))
        count = chosen.update(next_probe_at=timezone.now())
        text = f"{count} servers are due: the next rounds take those that are enabled."
        self.message_user(request, text, messages.SUCCESS)


@admin.register(Credential)
class CredentialAdmin(ModelAdmin):
    """Who binds; a password is never shown."""

    list_display = ("name", "user", "refusals", "refused_at")
    search_fields = ("name", "user")
    fields = ("name", "user", "password", "refusals", "refused_at", "refusal")
    readonly_fields = ("refusals", "refused_at", "refusal")
    actions = ("try_selected",)

    @action(description="Try now", permissions=["change"])
    def try_selected(self, request: HttpRequest, queryset: QuerySet[Credential]) -> None:
        """Allow one more bind with credentials that are not tried any more."""
        count = credentials.try_now(list(queryset.order_by().values_list("pk", flat=True)))
        text = f"{count} servers are due; if the first refuses it, the others are not asked."
        self.message_user(request, text, messages.SUCCESS)


class LimitInline(TabularInline):
    """The limits of a profile's phases."""

    model = Limit
    fields = ("phase", "warning", "error", "alert")
    extra = 0


@admin.register(Profile)
class ProfileAdmin(ModelAdmin):
    """What is slow; warning, error and alert raise info, warning and critical."""

    list_display = ("name", "lag_warning", "lag_error", "lag_alert")
    search_fields = ("name",)
    inlines = (LimitInline,)
    fields = ("name", ("lag_warning", "lag_error", "lag_alert"))


@admin.register(ProbeResult)
class ProbeResultAdmin(ReadOnlyAdmin):
    """Every probe of every server."""

    list_display = ("server", "at", "outcome", "error", "detail", *TIMES)
    list_filter = ("outcome",)
    list_select_related = ("server",)
    list_fullwidth = True
    search_fields = ("server__host", "error", "detail")
    date_hierarchy = "at"
    show_full_result_count = False

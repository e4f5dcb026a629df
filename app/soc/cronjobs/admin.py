"""The admin's pages of cron jobs: each has an address that is shown once."""

from typing import Any

from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.template.response import TemplateResponse
from django.utils import timezone
from unfold.admin import ModelAdmin
from unfold.decorators import action, display

from soc.cronjobs import pings
from soc.cronjobs.models import CronJob
from soc.cronjobs.pages import JobRow

_LABELS = {
    "ran": "success",
    "within its grace": "warning",
    "missing": "danger",
    "failed": "danger",
    "new": "info",
    "disabled": "default",
}


@admin.register(CronJob)
class CronJobAdmin(ModelAdmin):
    """Jobs that run elsewhere."""

    list_display = (
        "name",
        "enabled",
        "state_label",
        "last_ping_at",
        "expected",
        "severity",
        "site",
    )
    list_editable = ("enabled",)
    list_filter = ("enabled", "severity", "site")
    list_fullwidth = True
    search_fields = ("name", "site")
    actions_detail = ("new_address",)
    readonly_fields = ("created_at", "last_ping_at", "last_ping_from", "failed", "last_text")
    fieldsets = (
        (None, {"fields": ("name", "enabled", "site")}),
        ("When it is missing", {"fields": (("period", "grace"), "severity")}),
        (
            "Last heard of",
            {"fields": (("last_ping_at", "last_ping_from"), "failed", "last_text", "created_at")},
        ),
    )

    @display(description="State", label=_LABELS)
    def state_label(self, job: CronJob) -> str:
        """Return the state as a coloured word."""
        return JobRow(job, timezone.now()).state

    @display(description="Expected by")
    def expected(self, job: CronJob) -> Any:
        """Return when it is missing at the latest."""
        return job.expected_by

    def save_model(self, request: HttpRequest, obj: CronJob, form: Any, change: bool) -> None:
        """Give a new job its address."""
        if not change:
            obj.address = pings.renew(obj)
        super().save_model(request, obj, form, change)

    def response_add(
        self, request: HttpRequest, obj: CronJob, post_url_continue: str | None = None
    ) -> HttpResponse:
        """Show the address on the page itself: a message would keep it in a cookie."""
        return self._shown(request, obj, obj.address)

    @action(description="New address", icon="key", permissions=["change"])
    def new_address(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Ask, then revoke the address and show another one."""
        job = get_object_or_404(CronJob, pk=object_id)
        if request.method != "POST":
            return self._shown(request, job, "")
        address = pings.renew(job)
        job.save(update_fields=["digest"])
        return self._shown(request, job, address)

    def _shown(self, request: HttpRequest, job: CronJob, address: str) -> HttpResponse:
        context = {
            **self.admin_site.each_context(request),
            "title": f"Address of {job}" if address else f"New address of {job}?",
            "opts": self.opts,
            "job": job,
            "address": address,
        }
        headers = {"Cache-Control": "no-store"}
        return TemplateResponse(request, "cronjobs/address.html", context, headers=headers)

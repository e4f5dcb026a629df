"""The admin's pages of schedules and their timings."""

import json
from collections.abc import Iterable
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.db import models
from django.http import HttpRequest
from django.utils import timezone
from django_celery_beat.models import (
    ClockedSchedule,
    CrontabSchedule,
    IntervalSchedule,
    PeriodicTask,
    PeriodicTasks,
    SolarSchedule,
)
from unfold.admin import ModelAdmin, TabularInline
from unfold.contrib.filters.admin import RadioFilter
from unfold.decorators import action, display
from unfold.widgets import UnfoldAdminSelectWidget, UnfoldAdminTextareaWidget

from soc.beat.models import TaskOptions
from soc.common.times import local
from soc.runtime.celery import app
from soc.runtime.queues import TASK_QUEUES
from soc.schedules.checks import problems_of
from soc.schedules.schedules import REQUEST_PREFIX, next_run, request_run

MOST_REPLAYED = 500
"""Dead letters that one request replays."""

for _model in (ClockedSchedule, CrontabSchedule, IntervalSchedule, PeriodicTask, SolarSchedule):
    admin.site.unregister(_model)


def _task_choices() -> Iterable[tuple[str, str]]:
    app.loader.import_default_modules()
    names = sorted(name for name in app.tasks if not name.startswith("celery."))
    return [("", "Select a task"), *((name, name) for name in names)]


class ScheduleForm(forms.ModelForm):
    """A schedule whose task, queue and arguments exist, and whose runs expire."""

    task = forms.ChoiceField(choices=_task_choices, widget=UnfoldAdminSelectWidget)
    queue = forms.ChoiceField(
        choices=[(queue.name, f"{queue.name}: {queue.purpose}") for queue in TASK_QUEUES],
        widget=UnfoldAdminSelectWidget,
    )

    class Meta:
        """No routing fields: the queue settles them."""

        model = PeriodicTask
        fields = (
            *("name", "description", "enabled", "task", "queue", "args", "kwargs"),
            *("interval", "crontab", "clocked", "solar", "one_off", "start_time"),
            *("expire_seconds", "expires"),
        )
        widgets = {
            name: UnfoldAdminTextareaWidget(attrs={"rows": 2})
            for name in ("description", "args", "kwargs")
        }

    def clean(self) -> dict[str, Any]:
        """Refuse what the system check of the schedules refuses."""
        data = super().clean() or self.cleaned_data
        if data.get("expires") and data.get("expire_seconds"):
            self.add_error("expire_seconds", "Set this or the last day, not both.")
        judged = ("task", "args", "kwargs", "queue", "expires", "expire_seconds")
        if not self.errors:
            for problem in problems_of(PeriodicTask(**{name: data[name] for name in judged})):
                self.add_error(None, f"This schedule {problem}.")
        return data


class KindFilter(RadioFilter):
    """Shows the schedules; requests to run something now only when asked."""

    title = "kind"
    parameter_name = "kind"
    all_option = ("", "Schedules")

    def lookups(self, request: HttpRequest, model_admin: admin.ModelAdmin) -> list[tuple[str, str]]:
        """Return the other kinds."""
        return [("requests", "Requested runs"), ("all", "Both")]

    def queryset(
        self, request: HttpRequest, queryset: models.QuerySet[PeriodicTask]
    ) -> models.QuerySet[PeriodicTask]:
        """Return the rows of the kind that is asked for."""
        if self.value() == "all":
            return queryset
        if self.value() == "requests":
            return queryset.filter(name__startswith=REQUEST_PREFIX)
        return queryset.exclude(name__startswith=REQUEST_PREFIX)


class TaskOptionsInline(TabularInline):
    """What our beat knows of a schedule beyond django-celery-beat."""

    model = TaskOptions
    fields = ("missed", "delivery", "problem")
    readonly_fields = ("problem",)
    can_delete = False
    verbose_name_plural = "failing"


@admin.register(PeriodicTask)
class PeriodicTaskAdmin(ModelAdmin):
    """Schedules: what beat sends to which queue, and when."""

    form = ScheduleForm
    list_display = (
        *("title", "enabled", "in_words", "queue_name", "last_run", "next_run", "runs"),
    )
    list_filter = (KindFilter, "enabled", "queue", "one_off")
    list_filter_submit = True
    list_select_related = ("interval", "crontab", "solar", "clocked")
    list_fullwidth = True
    search_fields = ("name", "task", "description")
    ordering = ("name",)
    actions = ("enable", "disable", "run_now")
    inlines = (TaskOptionsInline,)
    readonly_fields = ("last_run", "next_run", "runs")
    fieldsets = (
        (None, {"fields": ("name", "description", "enabled")}),
        ("What", {"fields": ("task", "queue", "args", "kwargs")}),
        (
            "When",
            {
                "description": "Exactly one of interval, crontab, clocked and solar.",
                "fields": ("interval", "crontab", "clocked", "solar", "one_off", "start_time"),
            },
        ),
        (
            "Until",
            {
                "description": "A run that no worker took in time is dropped: without this the "
                "runs of an outage would come in a flood.",
                "fields": ("expire_seconds", "expires"),
            },
        ),
        ("Runs", {"fields": (("last_run", "next_run"), "runs")}),
    )

    @display(description="Name", ordering="name", header=True)
    def title(self, schedule: PeriodicTask) -> list[str]:
        """Return the name with the description beneath."""
        return [schedule.name, schedule.description or schedule.task]

    @display(description="Schedule")
    def in_words(self, schedule: PeriodicTask) -> str:
        """Return when the task runs, in words."""
        if schedule.crontab:
            return str(schedule.crontab.human_readable)
        if schedule.clocked:
            return f"once, at {local(schedule.clocked.clocked_time)}"
        return str(schedule.scheduler)

    @display(description="Queue", ordering="queue")
    def queue_name(self, schedule: PeriodicTask) -> str | None:
        """Return the queue."""
        queue: str | None = schedule.queue
        return queue

    @display(description="Runs", ordering="total_run_count")
    def runs(self, schedule: PeriodicTask) -> int:
        """Return how often beat has started the task."""
        return int(schedule.total_run_count)

    @display(description="Last run", ordering="last_run_at")
    def last_run(self, schedule: PeriodicTask) -> str:
        """Return the last run in the site's time zone."""
        return local(schedule.last_run_at) if schedule.last_run_at else "not yet"

    @display(description="Next run")
    def next_run(self, schedule: PeriodicTask) -> str:
        """Return the next run in the site's time zone."""
        if schedule.pk is None:
            return "not yet"
        at = next_run(schedule, timezone.now())
        return local(at) if at else "none"

    def delete_queryset(
        self, request: HttpRequest, queryset: models.QuerySet[PeriodicTask]
    ) -> None:
        """Delete schedules and notify beat once."""
        queryset.delete()
        PeriodicTasks.update_changed()

    @action(description="Enable", permissions=["change"])
    def enable(self, request: HttpRequest, queryset: models.QuerySet[PeriodicTask]) -> None:
        """Let beat run the schedules."""
        self._switch(request, queryset, enabled=True)

    @action(description="Disable", permissions=["change"])
    def disable(self, request: HttpRequest, queryset: models.QuerySet[PeriodicTask]) -> None:
        """Keep beat from running the schedules."""
        self._switch(request, queryset, enabled=False)

    def _switch(
        self, request: HttpRequest, queryset: models.QuerySet[PeriodicTask], *, enabled: bool
    ) -> None:
        # Without its last run, a schedule that is enabled again does not make up for lost time.
        others = queryset.filter(enabled=not enabled)
        count = others.update(enabled=enabled, last_run_at=None, date_changed=timezone.now())
        PeriodicTasks.update_changed()
        self.message_user(request, f"{'Enabled' if enabled else 'Disabled'}: {count}.")

    @action(description="Run now", permissions=["change"])
    def run_now(self, request: HttpRequest, queryset: models.QuerySet[PeriodicTask]) -> None:
        """Request a run of each; beat publishes it, so that no page waits on the broker."""
        asked = []
        for schedule in queryset:
            try:
                arguments = json.loads(schedule.kwargs), json.loads(schedule.args)
                request_run(schedule.name, schedule.task, request.user.get_username(), *arguments)
            except (LookupError, ValueError) as error:
                self.message_user(request, f"{schedule.name}: {error}", messages.ERROR)
            else:
                asked.append(schedule.name)
        if asked:
            text = f"Requested: {', '.join(asked)}. Beat will start it within 5 s."
            self.message_user(request, text, messages.SUCCESS)


class UsedByInline(TabularInline):
    """The schedules that use a timing."""

    model = PeriodicTask
    verbose_name_plural = "used by"
    fields = readonly_fields = ("name", "task", "enabled")
    extra = 0
    can_delete = False
    show_change_link = True

    def has_add_permission(self, request: HttpRequest, *_: Any) -> bool:
        """A timing is given to a schedule on the schedule's page."""
        return False


@admin.register(IntervalSchedule)
class IntervalAdmin(ModelAdmin):
    """Intervals that schedules may use."""

    list_display = ("__str__", "every", "period")
    inlines = (UsedByInline,)


@admin.register(CrontabSchedule)
class CrontabAdmin(ModelAdmin):
    """Crontab lines that schedules may use."""

    list_display = (
        *("human_readable", "minute", "hour", "day_of_week", "day_of_month", "month_of_year"),
        "timezone",
    )
    inlines = (UsedByInline,)


@admin.register(ClockedSchedule)
class ClockedAdmin(ModelAdmin):
    """Single moments that schedules may use; requested runs make many."""

    list_display = ("clocked_time",)
    date_hierarchy = "clocked_time"
    inlines = (UsedByInline,)


@admin.register(SolarSchedule)
class SolarAdmin(ModelAdmin):
    """Sunrises and the like, at a place, that schedules may use."""

    list_display = ("event", "latitude", "longitude")
    inlines = (UsedByInline,)

"""The admin's pages of what the stack does: signs of life, queues, failures."""

from typing import Any

from django.contrib import admin, messages
from django.db import models
from django.http import HttpRequest
from django.utils.html import escape, format_html
from django.utils.safestring import SafeString
from unfold.admin import ModelAdmin
from unfold.decorators import action, display

from soc.core import dead_letters
from soc.core.models import DeadTask, Heartbeat, QueueSample, TaskFailure

MOST_REPLAYED = 500
"""Dead letters that one request replays."""


class ReadOnlyAdmin(ModelAdmin):
    """Pages of a model that only the stack itself writes."""

    def has_add_permission(self, request: HttpRequest, *_: Any) -> bool:
        """Nobody adds a row by hand."""
        return False

    def has_change_permission(self, request: HttpRequest, *_: Any) -> bool:
        """Nobody changes a row by hand."""
        return False

    def has_delete_permission(self, request: HttpRequest, *_: Any) -> bool:
        """Housekeeping deletes."""
        return False


def preformatted(text: str) -> SafeString:
    """Return a text for a page with its line breaks and blanks."""
    # What a template made counts as safe though it is no HTML: escape it in any case.
    return format_html('<pre class="verbatim">{}</pre>', escape(text))


@admin.register(Heartbeat)
class HeartbeatAdmin(ReadOnlyAdmin):
    """Processes and their last sign of life."""

    list_display = ("service", "instance", "seen_at", "state")
    list_filter = ("service",)
    search_fields = ("service", "instance")
    ordering = ("service", "-seen_at")

    @display(description="State", label={"alive": "success", "silent": "danger"})
    def state(self, heartbeat: Heartbeat) -> str:
        """Return whether the process has been heard of recently."""
        return "alive" if heartbeat.is_alive else "silent"


@admin.register(QueueSample)
class QueueSampleAdmin(ReadOnlyAdmin):
    """Depth and consumers of the queues over time."""

    list_display = ("queue", "at", "depth", "consumers", "dead")
    list_filter = ("queue",)
    date_hierarchy = "at"
    ordering = ("-at",)
    show_full_result_count = False


@admin.register(TaskFailure)
class TaskFailureAdmin(ReadOnlyAdmin):
    """Tasks that ended in an error or ran into their time limit."""

    list_display = ("task", "at", "why", "summary")
    list_filter = ("kind", "task")
    search_fields = ("task", "task_id", "error")
    date_hierarchy = "at"
    show_full_result_count = False
    fields = ("task", "task_id", "at", "why", "error", "arguments", "trace")
    readonly_fields = fields

    @display(
        description="Why",
        ordering="kind",
        label={TaskFailure.Kind.ERROR.label: "danger", TaskFailure.Kind.TIMEOUT.label: "warning"},
    )
    def why(self, failure: TaskFailure) -> str:
        """Return the kind as a label."""
        return failure.get_kind_display()

    @display(description="Error")
    def summary(self, failure: TaskFailure) -> str:
        """Return the start of the error."""
        return failure.error[:120]

    @display(description="Traceback")
    def trace(self, failure: TaskFailure) -> SafeString:
        """Return the traceback as it was printed."""
        return preformatted(failure.traceback)


@admin.register(DeadTask)
class DeadTaskAdmin(ReadOnlyAdmin):
    """Tasks' messages that the broker gave up: read, replay or discard them here."""

    list_display = ("title", "queue", "why", "times", "last_seen_at", "state_label", "settled_by")
    list_filter = ("state", "queue", "task")
    search_fields = ("task", "task_id", "body")
    actions = ("replay", "discard")
    show_full_result_count = False
    fields = (
        *("queue", "task", "task_id", "reason", ("first_seen_at", "last_seen_at", "times")),
        *("state_label", ("settled_at", "settled_by", "note"), "message"),
    )
    readonly_fields = (
        *("queue", "task", "task_id", "reason", "first_seen_at", "last_seen_at", "times"),
        *("state_label", "settled_at", "settled_by", "note", "message"),
    )

    def has_settle_permission(self, request: HttpRequest) -> bool:
        """Whether a person may settle dead letters; nobody edits one."""
        return request.user.has_perm("core.change_deadtask")

    @display(description="Task", ordering="task")
    def title(self, letter: DeadTask) -> str:
        """Return the task's name."""
        return letter.task or "unreadable message"

    @display(description="Why", ordering="reason")
    def why(self, letter: DeadTask) -> str:
        """Return the reason."""
        return letter.reason

    @display(
        description="State",
        ordering="state",
        label={
            DeadTask.State.WAITING.label: "warning",
            DeadTask.State.REPLAYED.label: "success",
            DeadTask.State.DISCARDED.label: "default",
        },
    )
    def state_label(self, letter: DeadTask) -> str:
        """Return the state as a coloured word."""
        return letter.get_state_display()

    @display(description="Message")
    def message(self, letter: DeadTask) -> SafeString:
        """Return the message as it came."""
        return preformatted(letter.body)

    @action(description="Replay", permissions=["settle"])
    def replay(self, request: HttpRequest, queryset: models.QuerySet[DeadTask]) -> None:
        """Ask beat to run the tasks once more."""
        letters = list(queryset.order_by("pk")[:MOST_REPLAYED])
        done, failed = dead_letters.replay_all(letters, request.user.get_username())
        if done:
            text = f"Replayed: {done}. Beat starts them within 5 s."
            self.message_user(request, text, messages.SUCCESS)
        for letter, reason in failed[:5]:
            self.message_user(request, f"{letter}, not replayed: {reason}.", messages.ERROR)
        if len(failed) > 5:
            self.message_user(request, f"Not replayed: {len(failed)} in all.", messages.ERROR)

    @action(description="Discard", permissions=["settle"])
    def discard(self, request: HttpRequest, queryset: models.QuerySet[DeadTask]) -> None:
        """Settle dead letters that nobody needs."""
        chosen = DeadTask.objects.filter(pk__in=queryset.order_by().values("pk"))
        count = dead_letters.discard(chosen, request.user.get_username())
        self.message_user(request, f"Discarded: {count}.", messages.SUCCESS)

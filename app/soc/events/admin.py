"""The admin's pages of the event stream."""

import json
from contextlib import suppress
from datetime import datetime
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.core.paginator import Paginator
from django.db import models
from django.db.models import Max, QuerySet, TextField
from django.db.models.functions import Coalesce
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils import timezone
from django.utils.functional import cached_property
from django.utils.safestring import SafeString
from unfold.admin import ModelAdmin, TabularInline
from unfold.decorators import action, display
from unfold.widgets import UnfoldAdminTextareaWidget

from soc.common.times import local
from soc.core.admin import ReadOnlyAdmin, preformatted
from soc.events import clocks, dead, identity, mappings
from soc.events.models import (
    BacklogAction,
    Bot,
    BotAlias,
    BotSeen,
    DeadLetter,
    Event,
    EventSource,
    FieldMapping,
    IngestCount,
    Site,
    StreamSettings,
)

MOST_REPLAYED = 1000
"""Dead letters that one request replays; the command replays any number."""

MOST_PREVIEWED = 5
"""Dead letters that the preview of a mapping reads."""

MOST_COUNTED = 10_000
"""Rows that a list counts: beyond, it only says that there are more."""

State = DeadLetter.State


@admin.register(Site)
class SiteAdmin(ModelAdmin):
    """Places where robots run."""

    list_display = ("name", "time_zone", "notes")
    search_fields = ("name",)
    formfield_overrides = {TextField: {"widget": UnfoldAdminTextareaWidget(attrs={"rows": 3})}}


class SeenInline(TabularInline):
    """When a robot was last heard of, by kind."""

    model = BotSeen
    verbose_name_plural = "last heard of"
    fields = readonly_fields = ("kind", "at", "arrived_at")
    extra = 0
    can_delete = False

    def has_add_permission(self, request: HttpRequest, *_: Any) -> bool:
        """Events add signs of life."""
        return False


class AliasInline(TabularInline):
    """The other names that a robot's host goes by."""

    model = BotAlias
    fields = ("name",)
    extra = 0


@admin.register(Bot)
class BotAdmin(ModelAdmin):
    """Robots; unknown ones are added as they speak."""

    list_display = ("host", "site", "enabled", "expected_minutes", "last_seen", "listed_addresses")
    list_filter = ("site", "enabled")
    list_select_related = ("site",)
    list_editable = ("site", "enabled")
    list_fullwidth = True
    search_fields = ("host", "site__name", "notes")
    inlines = (AliasInline, SeenInline)
    actions = ("merge",)
    fields = (
        "host",
        "site",
        "enabled",
        "expected_minutes",
        "notes",
        "listed_addresses",
        "clock",
        "created_at",
    )
    readonly_fields = ("listed_addresses", "clock", "created_at")
    formfield_overrides = {TextField: {"widget": UnfoldAdminTextareaWidget(attrs={"rows": 3})}}

    def formfield_for_foreignkey(
        self, field: "models.ForeignKey[Any, Any]", request: HttpRequest, **options: Any
    ) -> Any:
        """Read the sites once for all rows of the list."""
        made = super().formfield_for_foreignkey(field, request, **options)
        if field.name == "site":
            made.choices = list(made.choices)
        return made

    def save_model(
        self, request: HttpRequest, obj: Bot, form: "forms.ModelForm[Bot]", change: bool
    ) -> None:
        """Save a robot; one that is renamed still goes by its former name."""
        super().save_model(request, obj, form, change)
        if change and "host" in form.changed_data and form.initial["host"] != obj.host:
            identity.keep_name(obj, form.initial["host"])

    @action(description="Merge into one", permissions=["delete"])
    def merge(self, request: HttpRequest, queryset: QuerySet[Bot]) -> HttpResponse | None:
        """Ask which robot the others are, then merge them into it."""
        bots = list(Bot.objects.filter(pk__in=queryset.order_by().values("pk")))
        if len(bots) < 2:
            self.message_user(request, "Select two robots or more.", messages.WARNING)
            return None
        target = next((bot for bot in bots if str(bot.pk) == request.POST.get("target")), None)
        if target is None:
            context = {
                **self.admin_site.each_context(request),
                "title": "Merge robots",
                "opts": self.opts,
                "bots": bots,
            }
            return TemplateResponse(request, "events/merge.html", context)
        for source in bots:
            if source != target:
                self.log_deletions(request, Bot.objects.filter(pk=source.pk))
                identity.merge(source, target)
                self.log_change(request, target, f"Merged {source} into it.")
        names = ", ".join(str(bot) for bot in bots if bot != target)
        self.message_user(request, f"Merged into {target}: {names}.", messages.SUCCESS)
        return None

    def get_queryset(self, request: HttpRequest) -> QuerySet[Bot]:
        """Return robots with the time of their last event."""
        bots: QuerySet[Bot] = super().get_queryset(request)
        return bots.annotate(heard_at=Max(Coalesce("seen__arrived_at", "seen__at")))

    @display(description="Last heard of", ordering="heard_at")
    def last_seen(self, bot: Bot) -> str:
        """Return when its last event arrived."""
        heard_at: datetime | None = getattr(bot, "heard_at", None)
        return local(heard_at) if heard_at else "never"

    @display(description="Clock")
    def clock(self, bot: Bot) -> str:
        """Return by how much its events arrive after their time."""
        skew = clocks.skews(timezone.now()).get(bot.pk)
        if skew is None:
            return "not measured within the last hour"
        seconds = f"events arrive {skew.total_seconds():.1f} s after their time"
        return f"{clocks.in_short(skew) or 'right'}: {seconds}"

    @display(description="Addresses")
    def listed_addresses(self, bot: Bot) -> str:
        """Return the addresses that it has told."""
        return ", ".join(bot.addresses) or "none"


@admin.register(EventSource)
class EventSourceAdmin(ModelAdmin):
    """Where events may come from."""

    list_display = ("provider", "channel", "allowed", "dropped", "dropped_at", "description")
    list_filter = ("allowed",)
    list_fullwidth = True
    search_fields = ("provider", "channel", "description")
    ordering = ("allowed", "-dropped", "provider", "channel")
    actions = ("allow", "refuse")
    readonly_fields = ("dropped", "dropped_at")

    @action(description="Allow", permissions=["change"])
    def allow(self, request: HttpRequest, queryset: QuerySet[EventSource]) -> None:
        """Have the events of sources stored."""
        self._set(request, queryset, allowed=True)

    @action(description="Refuse", permissions=["change"])
    def refuse(self, request: HttpRequest, queryset: QuerySet[EventSource]) -> None:
        """Have the events of sources counted and dropped."""
        self._set(request, queryset, allowed=False)

    def _set(self, request: HttpRequest, queryset: QuerySet[EventSource], *, allowed: bool) -> None:
        for source in queryset.exclude(allowed=allowed):
            source.allowed = allowed
            source.save(update_fields=["allowed"])
            text = "Allowed from the list." if allowed else "Refused from the list."
            self.log_change(request, source, text)
        self.message_user(request, "Within 10 s the stream goes by that.", messages.SUCCESS)


class FewCounted(Paginator):
    """Counts no more rows than a person turns pages for: the table grows by the second."""

    @cached_property
    def count(self) -> int:
        """The number of rows, bounded."""
        rows: Any = self.object_list
        return len(rows.order_by().values_list("pk")[:MOST_COUNTED])


@admin.register(Event)
class EventAdmin(ReadOnlyAdmin):
    """Raw events, the last ones first."""

    list_display = ("at", "bot", "source", "event_id", "level", "record_id", "stale", "problem")
    list_filter = ("stale", ("source", admin.RelatedOnlyFieldListFilter))
    list_select_related = ("bot", "source")
    list_fullwidth = True
    search_fields = ("=bot__host", "=event_id", "=record_id")
    search_help_text = "A host, an event id or a record number."
    ordering = ("-pk",)
    paginator = FewCounted
    show_full_result_count = False
    fields = readonly_fields = (
        *("bot", "source", "event_id", "record_id", "level", "at", "received_at", "stale"),
        *("problem", "document"),
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[Event]:
        """Return events; a list needs no bodies."""
        events: QuerySet[Event] = super().get_queryset(request)
        return events.defer("raw")

    @display(description="Event")
    def document(self, event: Event) -> SafeString:
        """Return the event as it came, laid out."""
        return preformatted(_laid_out(event.raw))


def _laid_out(text: str) -> str:
    try:
        return json.dumps(json.loads(text), indent=2, ensure_ascii=False)
    except (ValueError, RecursionError):
        return text


@admin.register(DeadLetter)
class DeadLetterAdmin(ModelAdmin):
    """Messages that are no events: read, mend and replay them here."""

    list_display = ("why", "host", "times", "first_seen_at", "state_label", "settled_by")
    list_filter = ("state",)
    list_fullwidth = True
    search_fields = ("reason", "host")
    actions = ("replay_selected", "discard_selected")
    actions_submit_line = ("replay_now",)
    show_full_result_count = False
    fields = (
        *("reason", "host", "state", ("first_seen_at", "last_seen_at", "times")),
        *(("settled_at", "settled_by"), "message", "edited"),
    )
    readonly_fields = (
        *("reason", "host", "state", "first_seen_at", "last_seen_at", "times", "settled_at"),
        *("settled_by", "message"),
    )
    formfield_overrides = {
        TextField: {"widget": UnfoldAdminTextareaWidget(attrs={"rows": 16, "class": "font-mono"})}
    }

    def has_add_permission(self, request: HttpRequest, *_: Any) -> bool:
        """The stream adds dead letters."""
        return False

    def has_delete_permission(self, request: HttpRequest, *_: Any) -> bool:
        """Housekeeping deletes; a person discards."""
        return False

    def get_queryset(self, request: HttpRequest) -> QuerySet[DeadLetter]:
        """Return dead letters; a list needs no bodies."""
        letters: QuerySet[DeadLetter] = super().get_queryset(request)
        return letters.defer("body", "edited")

    def get_object(
        self, request: HttpRequest, object_id: str, from_field: str | None = None
    ) -> DeadLetter | None:
        """Return a dead letter with its own text to begin mending with, if it has one."""
        letter: DeadLetter | None = super().get_object(request, object_id, from_field)
        if letter and not letter.edited:
            with suppress(UnicodeDecodeError):
                letter.edited = bytes(letter.body).decode()
        return letter

    def save_model(
        self, request: HttpRequest, obj: DeadLetter, form: forms.ModelForm, change: bool
    ) -> None:
        """Write the mended text only: the message itself never changes, and may be long."""
        DeadLetter.objects.filter(pk=obj.pk).update(edited=obj.edited)
        for pressed in self.get_actions_submit_line(request, obj.pk):
            if pressed.action_name in request.POST:
                pressed.method(request, obj)

    @display(description="Why", ordering="reason", header=True)
    def why(self, letter: DeadLetter) -> list[str]:
        """Return the reason, cut."""
        return [letter.reason[:140], ""]

    @display(
        description="State",
        ordering="state",
        label={
            State.WAITING.label: "warning",
            State.REPLAYED.label: "success",
            State.DISCARDED.label: "default",
        },
    )
    def state_label(self, letter: DeadLetter) -> str:
        """Return the state as a coloured word."""
        return letter.get_state_display()

    @display(description="Message")
    def message(self, letter: DeadLetter) -> SafeString:
        """Return the message as it came, laid out if it is JSON."""
        return preformatted(_laid_out(letter.text))

    @action(description="Save and replay", icon="replay", permissions=["change"])
    def replay_now(self, request: HttpRequest, letter: DeadLetter) -> None:
        """Take in the dead letter that was just saved."""
        self._replay(request, DeadLetter.objects.filter(pk=letter.pk))

    @action(description="Replay", permissions=["change"])
    def replay_selected(self, request: HttpRequest, queryset: QuerySet[DeadLetter]) -> None:
        """Take dead letters in as if they came now."""
        self._replay(request, queryset)

    @action(description="Discard", permissions=["change"])
    def discard_selected(self, request: HttpRequest, queryset: QuerySet[DeadLetter]) -> None:
        """Settle dead letters that nobody needs."""
        for letter in queryset.filter(state=State.WAITING):
            self.log_change(request, letter, "Discarded.")
        chosen = DeadLetter.objects.filter(pk__in=queryset.order_by().values("pk"))
        count = dead.discard(chosen, request.user.get_username())
        self.message_user(request, f"Discarded: {count}.", messages.SUCCESS)

    def _replay(self, request: HttpRequest, queryset: QuerySet[DeadLetter]) -> None:
        letters = queryset.order_by("pk")[:MOST_REPLAYED]
        done, failed = dead.replay_all(letters, request.user.get_username())
        refused = {letter.pk for letter, _ in failed}
        for letter in letters:
            if letter.pk not in refused:
                self.log_change(request, letter, "Replayed.")
        if done:
            self.message_user(request, f"Replayed: {done}.", messages.SUCCESS)
        for _, reason in failed[:5]:
            self.message_user(request, f"Not replayed: {reason}.", messages.ERROR)
        if len(failed) > 5:
            self.message_user(request, f"Not replayed: {len(failed)} in all.", messages.ERROR)


@admin.register(FieldMapping)
class FieldMappingAdmin(ModelAdmin):
    """Shapes of a site's own, with what they make of the newest dead letters."""

    list_display = ("name", "enabled", "mark", "computer", "provider")
    list_filter = ("enabled",)
    search_fields = ("name", "mark")
    fields = (
        *(("name", "enabled"), "mark", ("computer", "provider", "channel")),
        *(("record_id", "event_id", "at"), ("level", "message", "values"), "preview"),
    )
    readonly_fields = ("preview",)

    @display(description="Preview")
    def preview(self, mapping: FieldMapping) -> SafeString | str:
        """Return what the mapping, as it is saved, reads the newest dead letters as."""
        if mapping.pk is None:
            return "Save it, disabled, to see what it reads the newest dead letters as."
        waiting = DeadLetter.objects.filter(state=State.WAITING).order_by("-last_seen_at")
        newest = [bytes(body) for body in waiting.values_list("body", flat=True)[:MOST_PREVIEWED]]
        return preformatted(mappings.preview(mapping, newest) or "No dead letter waits.")


@admin.register(IngestCount)
class IngestCountAdmin(ReadOnlyAdmin):
    """What the stream brought in each minute."""

    list_display = (
        *("minute", "instance", "stored", "duplicates", "stale", "problems", "dropped"),
        *("expired", "refused"),
    )
    list_filter = ("instance",)
    date_hierarchy = "minute"
    ordering = ("-minute", "instance")
    show_full_result_count = False


@admin.register(StreamSettings)
class StreamSettingsAdmin(ModelAdmin):
    """What may be set about the stream."""

    list_display = ("__str__", "stale_minutes", "silent_minutes", "raw_hours", "derived_days")

    def has_add_permission(self, request: HttpRequest, *_: Any) -> bool:
        """There is one row, unless it was lost."""
        return not StreamSettings.objects.exists()

    def has_delete_permission(self, request: HttpRequest, *_: Any) -> bool:
        """The one row stays."""
        return False


@admin.register(BacklogAction)
class BacklogActionAdmin(ReadOnlyAdmin):
    """Who has done what to a queue's backlog."""

    list_display = ("at", "queue", "kind", "by", "reason", "messages", "details")
    list_filter = ("queue", "kind")

"""The admin's pages of alerts: their rules, what keeps them quiet, and what is known now."""

from itertools import islice
from typing import Any

from django.contrib import admin, messages
from django.db.models import Count, OuterRef, Q, QuerySet, Subquery, URLField
from django.db.models.functions import Coalesce, Least
from django.http import HttpRequest
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from unfold.admin import ModelAdmin, TabularInline
from unfold.contrib.filters.admin import RelatedDropdownFilter
from unfold.decorators import action, display

from soc.alerts import recurrence
from soc.alerts.models import OPEN, Alert, EscalationStep, Rule, Silence, Subject
from soc.alerts.spans import in_words
from soc.common.times import local
from soc.core.admin import ReadOnlyAdmin
from soc.core.severity import Severity

NEXT_WINDOWS = 5
MOST_MATCHES = 50

_SEVERITIES = {
    Severity.OK.label: "success",
    Severity.INFO.label: "info",
    Severity.WARNING.label: "warning",
    Severity.CRITICAL.label: "danger",
}
_STATES = {
    Alert.State.PENDING.label: "default",
    Alert.State.FIRING.label: "danger",
    Alert.State.ACKNOWLEDGED.label: "info",
    Alert.State.SUPPRESSED.label: "default",
    Alert.State.FLAPPING.label: "warning",
    Alert.State.RESOLVED.label: "success",
}


def _page_of(alert: Alert, text: str) -> SafeString:
    return format_html('<a class="underline" href="{}">{}</a>', alert.get_absolute_url(), text)


# --- Rules --------------------------------------------------------------------------------------


class StepInline(TabularInline):
    """Who else is notified, the soonest first, as long as nobody acknowledges."""

    model = EscalationStep
    extra = 0
    verbose_name_plural = "escalation"


@admin.register(Rule)
class RuleAdmin(ModelAdmin):
    """How reported conditions become alerts."""

    list_display = ("title", "enabled", "fires", "resolves", "open_alerts", "escalates")
    list_editable = ("enabled",)
    list_display_links = ("title",)
    list_filter = ("application", "enabled")
    list_fullwidth = True
    inlines = (StepInline,)
    search_fields = ("application", "name", "description")
    formfield_overrides = {URLField: {"assume_scheme": "https"}}
    fieldsets = (
        (None, {"fields": (("application", "name"), "description", "enabled", "runbook")}),
        (
            "When it fires, and when it is over",
            {
                "description": "An alert fires after n bad reports among the last m, and is "
                "resolved after k good ones in a row. With 1, 1 and 1 every report counts at once.",
                "fields": (("needed", "window"), "good_needed", "stale_after"),
            },
        ),
        (
            "Flapping",
            {
                "description": "What comes and goes makes one mail when that begins and one when "
                "it ends, instead of one each time.",
                "fields": (("flap_changes", "flap_minutes"),),
            },
        ),
        (
            "Reminders",
            {
                "description": "As long as nobody acknowledges. An acknowledged alert reminds "
                "nobody, and goes to nobody else.",
                "fields": (("remind_critical", "remind_warning", "remind_info"),),
            },
        ),
    )

    def get_readonly_fields(self, request: HttpRequest, obj: Rule | None = None) -> tuple[str, ...]:
        """Keep the name that the application reports under."""
        return ("application", "name") if obj else ()

    def get_queryset(self, request: HttpRequest) -> QuerySet[Rule]:
        """Return the rules with the number of their open alerts."""
        counted = (
            Alert.objects.filter(OPEN, rule=OuterRef("pk"))
            .order_by()
            .values("rule")
            .annotate(n=Count("pk"))
        )
        number = Coalesce(Subquery(counted.values("n")), 0)
        rules: QuerySet[Rule] = super().get_queryset(request)
        return rules.annotate(open_count=number).prefetch_related("steps__subscription")

    @display(description="Rule", ordering="name", header=True)
    def title(self, rule: Rule) -> list[str]:
        """Return the rule with its description beneath."""
        return [str(rule), rule.description]

    @display(description="Fires after", ordering="needed")
    def fires(self, rule: Rule) -> str:
        """Return n of m in words."""
        if rule.window == 1:
            return "1 bad report"
        return f"{rule.needed} bad of {rule.window}"

    @display(description="Resolved after", ordering="good_needed")
    def resolves(self, rule: Rule) -> str:
        """Return k in words."""
        return "1 good report" if rule.good_needed == 1 else f"{rule.good_needed} good in a row"

    @display(description="Escalates to")
    def escalates(self, rule: Rule) -> str:
        """Return the steps in words."""
        return ", ".join(f"{step.subscription} ({step.after} min)" for step in rule.steps.all())

    @display(description="Open alerts", ordering="open_count")
    def open_alerts(self, rule: Rule) -> SafeString | int:
        """Return the number of open alerts, linked to their list."""
        count: int = getattr(rule, "open_count", 0)
        if not count:
            return 0
        link = f"{reverse('alerts')}?rule={rule}"
        return format_html('<a class="underline" href="{}">{}</a>', link, count)


# --- Silences -----------------------------------------------------------------------------------


class ActiveFilter(admin.SimpleListFilter):
    """Leaves out the silences that are over for good."""

    title = "time"
    parameter_name = "time"

    def lookups(self, request: HttpRequest, model_admin: admin.ModelAdmin) -> list[tuple[str, str]]:
        """Return the choices."""
        return [("now", "Not over"), ("over", "Over")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Silence]) -> QuerySet[Silence]:
        """Return the silences that are asked for."""
        over = Q(ends_at__lte=timezone.now(), recurrence="")
        match self.value():
            case "now":
                return queryset.exclude(over)
            case "over":
                return queryset.filter(over)
        return queryset


@admin.register(Silence)
class SilenceAdmin(ModelAdmin):
    """Times in which matching alerts make no noise."""

    list_display = ("title", "state_label", "about", "starts_at", "ends_at", "repeats")
    list_filter = (ActiveFilter, "kind", "application", ("rule", RelatedDropdownFilter), "site")
    list_filter_submit = True
    list_fullwidth = True
    list_select_related = ("rule",)
    search_fields = ("comment", "subject", "created_by")
    date_hierarchy = "starts_at"
    actions = ("end_now",)
    readonly_fields = ("created_by", "windows", "matches")
    fieldsets = (
        (None, {"fields": ("kind", "comment", "created_by")}),
        (
            "What is quiet",
            {
                "description": "What all of these match. Everything, if they are left as they are.",
                "fields": (("application", "rule"), ("site", "subject"), "matches"),
            },
        ),
        (
            "When",
            {
                "description": "The first time; with an RRULE it comes again, at the same time of "
                "day by the site's clock. What still goes on when a window ends fires then.",
                "fields": ("starts_at", "ends_at", "recurrence", "windows"),
            },
        ),
    )

    def save_model(self, request: HttpRequest, obj: Silence, form: Any, change: bool) -> None:
        """Save a silence with the name of the person who made it."""
        if not change:
            obj.created_by = request.user.get_username()
        super().save_model(request, obj, form, change)

    @display(description="Silence", ordering="comment", header=True)
    def title(self, silence: Silence) -> list[str]:
        """Return why it is quiet, and who said so."""
        return [silence.comment, f"{silence.get_kind_display()} {silence.created_by}".strip()]

    @display(
        description="State", label={"quiet now": "warning", "to come": "info", "over": "default"}
    )
    def state_label(self, silence: Silence) -> str:
        """Return whether it is quiet now, later or no more."""
        now = timezone.now()
        if silence.is_active(now):
            return "quiet now"
        return "to come" if _windows(silence, 1) else "over"

    @display(description="About")
    def about(self, silence: Silence) -> str:
        """Return what it matches in words."""
        scope = str(silence.rule or silence.application or "everything")
        where = f" at {silence.site}" if silence.site else ""
        named = "" if silence.subject == "*" else f": {silence.subject}"
        return f"{scope}{named}{where}"

    @display(description="Repeats", ordering="recurrence")
    def repeats(self, silence: Silence) -> str:
        """Return how it repeats."""
        return silence.recurrence or "once"

    @display(description=f"Next {NEXT_WINDOWS} windows")
    def windows(self, silence: Silence) -> SafeString | str:
        """Return the times in which it will be quiet."""
        if silence.pk is None:
            return "Shown once it is saved."
        lines = [
            (local(start), local(end), in_words(end - start))
            for start, end in _windows(silence, NEXT_WINDOWS)
        ]
        if not lines:
            return "None: it is over."
        return format_html("<ul>{}</ul>", format_html_join("", "<li>{} to {}, {}</li>", lines))

    @display(description="Open alerts that match")
    def matches(self, silence: Silence) -> SafeString | str:
        """Return the open alerts that it is about, whether it is quiet now or not."""
        if silence.pk is None:
            return "Shown once it is saved."
        alerts = Alert.objects.filter(OPEN).select_related("rule", "subject").defer("facts")
        found = [
            alert
            for alert in alerts.order_by("-severity", "opened_at")
            if silence.matches(alert.rule, alert.subject.name, alert.site)
        ]
        if not found:
            return "None."
        shown = [(_page_of(one, one.subject.name), one.rule, one.get_state_display())
                 for one in found[:MOST_MATCHES]]  # fmt: skip
        lines = format_html_join("", "<li>{} {}, {}</li>", shown)
        rest = len(found) - len(shown)
        more = format_html("<li>and {} more</li>", rest) if rest else ""
        return format_html("<ul>{}{}</ul>", lines, more)

    @action(description="End now", permissions=["change"])
    def end_now(self, request: HttpRequest, queryset: QuerySet[Silence]) -> None:
        """End silences; recurring ones don't come again."""
        now = timezone.now()
        going_on = queryset.exclude(ends_at__lte=now, recurrence="")
        count = going_on.update(starts_at=Least("starts_at", now), ends_at=now, recurrence="")
        text = f"Silences ended: {count}."
        self.message_user(request, text, messages.SUCCESS)


def _windows(silence: Silence, number: int) -> list[tuple[Any, Any]]:
    times = (silence.starts_at, silence.ends_at, silence.recurrence, timezone.now())
    return list(islice(recurrence.upcoming(*times), number))


# --- What is known now --------------------------------------------------------------------------


@admin.register(Alert)
class AlertAdmin(ReadOnlyAdmin):
    """Every alert there was; operators use the pages that these rows lead to."""

    list_display = ("title", "severity_label", "state_label", "opened_at", "resolved_at", "count")
    list_filter = ("state", "severity", ("rule", RelatedDropdownFilter), "site")
    list_filter_submit = True
    list_fullwidth = True
    list_select_related = ("rule", "subject")
    search_fields = ("subject__name", "summary", "note", "acknowledged_by")
    date_hierarchy = "opened_at"
    show_full_result_count = False
    fields = readonly_fields = (
        *("page", "rule", "subject", "site", "severity_label", "state_label", "summary"),
        *("opened_at", "last_seen_at", "resolved_at", "count"),
        *("acknowledged_by", "acknowledged_at", "note", "suppressed_by"),
    )

    @display(description="Alert", ordering="subject__name", header=True)
    def title(self, alert: Alert) -> list[str]:
        """Return the subject with its rule beneath."""
        return [str(alert.subject), str(alert.rule)]

    @display(description="Severity", ordering="severity", label=_SEVERITIES)
    def severity_label(self, alert: Alert) -> str:
        """Return the severity as a coloured word."""
        return alert.get_severity_display()

    @display(description="State", ordering="state", label=_STATES)
    def state_label(self, alert: Alert) -> str:
        """Return the state as a coloured word."""
        return alert.get_state_display()

    @display(description="Page")
    def page(self, alert: Alert) -> SafeString:
        """Return the way to the alert's own page."""
        return _page_of(alert, "Timeline, facts and mail")


@admin.register(Subject)
class SubjectAdmin(ReadOnlyAdmin):
    """The current condition of everything that is reported on, failing or not."""

    list_display = ("title", "severity_label", "observed_at", "recent", "site", "alert_page")
    list_filter = ("severity", ("rule", RelatedDropdownFilter), "site")
    list_filter_submit = True
    list_fullwidth = True
    list_select_related = ("rule", "alert")
    search_fields = ("name", "site", "fingerprint")
    show_full_result_count = False
    fields = readonly_fields = (
        *("name", "rule", "site", "severity_label", "observed_at", "recent", "good"),
        *("alert_page", "parent", "fingerprint"),
    )

    @display(description="Subject", ordering="name", header=True)
    def title(self, subject: Subject) -> list[str]:
        """Return the name with the rule beneath."""
        return [subject.name, str(subject.rule)]

    @display(description="Severity", ordering="severity", label=_SEVERITIES)
    def severity_label(self, subject: Subject) -> str:
        """Return the severity as a coloured word."""
        return subject.get_severity_display()

    @display(description="Open alert")
    def alert_page(self, subject: Subject) -> SafeString | str:
        """Return the open alert with the way to its page."""
        if subject.alert is None:
            return "none"
        return _page_of(subject.alert, subject.alert.get_state_display())

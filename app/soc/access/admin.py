"""The admin's pages of who may come in, and of what people did."""

from typing import Any

from auditlog.models import LogEntry
from axes.models import AccessAttempt
from django.conf import settings
from django.contrib import admin
from django.contrib.auth.admin import GroupAdmin as DjangoGroupAdmin
from django.contrib.auth.admin import UserAdmin as DjangoUserAdmin
from django.contrib.auth.models import Group, User
from django.db import models
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils.html import format_html_join
from django.utils.safestring import SafeString
from unfold.admin import ModelAdmin, TabularInline
from unfold.decorators import action, display
from unfold.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm

from soc.access.models import Identity
from soc.common.times import local
from soc.core import tokens
from soc.core.admin import ReadOnlyAdmin
from soc.core.models import ApiToken

for _model in (Group, LogEntry, User):
    admin.site.unregister(_model)


# --- People -------------------------------------------------------------------------------------


class IdentityInline(TabularInline):
    """By whom else a person is known, which lets them sign in there."""

    model = Identity
    extra = 0


@admin.register(User)
class UserAdmin(DjangoUserAdmin, ModelAdmin):
    """People who may sign in."""

    form = UserChangeForm
    add_form = UserCreationForm
    change_password_form = AdminPasswordChangeForm
    inlines = (IdentityInline,)

    def get_readonly_fields(self, request: HttpRequest, obj: User | None = None) -> tuple[str, ...]:
        """Nobody makes a superuser who is none."""
        return () if request.user.is_superuser else ("is_superuser", "user_permissions")

    def has_change_permission(self, request: HttpRequest, obj: User | None = None) -> bool:
        """Nobody sets the password of a superuser who is none."""
        return self._may_touch(request, obj) and super().has_change_permission(request, obj)

    def has_delete_permission(self, request: HttpRequest, obj: User | None = None) -> bool:
        """Nobody deletes a superuser who is none."""
        return self._may_touch(request, obj) and super().has_delete_permission(request, obj)

    @staticmethod
    def _may_touch(request: HttpRequest, obj: User | None) -> bool:
        return obj is None or request.user.is_superuser or not obj.is_superuser


@admin.register(Group)
class GroupAdmin(DjangoGroupAdmin, ModelAdmin):
    """Sets of permissions."""


@admin.register(ApiToken)
class ApiTokenAdmin(ModelAdmin):
    """What programs use the API with; the secret is shown once, when it is made."""

    list_display = ("name", "user", "state_label", "expires_at", "last_used_at")
    list_filter = ("enabled", "user")
    list_select_related = ("user",)
    search_fields = ("name", "user__username")
    fields = ("name", "user", "enabled", "expires_at", "created_at", "last_used_at")
    readonly_fields = ("created_at", "last_used_at")

    @display(
        description="State",
        label={"works": "success", "expired": "warning", "disabled": "danger"},
    )
    def state_label(self, token: ApiToken) -> str:
        """Return whether the token opens anything."""
        return token.state

    def get_readonly_fields(
        self, request: HttpRequest, obj: ApiToken | None = None
    ) -> tuple[str, ...]:
        """A token stays with its user: anyone who holds the secret must not come by more rights."""
        return self.readonly_fields if obj is None else ("user", *self.readonly_fields)

    def formfield_for_foreignkey(
        self, field: models.ForeignKey[Any, Any], request: HttpRequest, **options: Any
    ) -> Any:
        """Only who may do everything may make a token that acts for somebody else."""
        if field.name == "user" and not request.user.is_superuser:
            options["queryset"] = User.objects.filter(username=request.user.get_username())
        return super().formfield_for_foreignkey(field, request, **options)

    def save_model(self, request: HttpRequest, obj: ApiToken, form: Any, change: bool) -> None:
        """Give a new token its secret."""
        if not change:
            obj.secret = tokens.new_secret()
            obj.digest = tokens.digest(obj.secret)
        super().save_model(request, obj, form, change)

    def response_add(
        self, request: HttpRequest, obj: ApiToken, post_url_continue: str | None = None
    ) -> HttpResponse:
        """Show the secret on the page itself: a message would keep it in a cookie."""
        context = {
            **self.admin_site.each_context(request),
            "title": f"The token {obj} is made",
            "opts": self.opts,
            "token": obj,
        }
        headers = {"Cache-Control": "no-store"}
        return TemplateResponse(request, "core/api_token.html", context, headers=headers)


# --- The record ---------------------------------------------------------------------------------


@admin.register(AccessAttempt)
class AccessAttemptAdmin(ReadOnlyAdmin):
    """Names and addresses with failed sign-ins; the last may be locked."""

    list_display = ("username", "ip_address", "failures_since_start", "attempt_time", "until")
    search_fields = ("username", "ip_address")
    fields = ("username", "ip_address", "failures_since_start", "attempt_time", "user_agent")
    actions = ("unlock",)

    @display(description="Locked until")
    def until(self, attempt: AccessAttempt) -> str:
        """Return when the lock ends, if there is one."""
        if attempt.failures_since_start < settings.AXES_FAILURE_LIMIT:
            return ""
        return local(attempt.attempt_time + settings.AXES_COOLOFF_TIME)

    @action(description="Unlock", permissions=["unlock"])
    def unlock(self, request: HttpRequest, queryset: models.QuerySet[AccessAttempt]) -> None:
        """Forget the failures."""
        count, _ = queryset.delete()
        self.message_user(request, f"Unlocked: {count}.")

    def has_unlock_permission(self, request: HttpRequest) -> bool:
        """Anyone who may delete failures may unlock."""
        return request.user.has_perm("axes.delete_accessattempt")


@admin.register(LogEntry)
class LogEntryAdmin(ReadOnlyAdmin):
    """Who changed what, who came and went; nobody can change it here."""

    list_display = ("timestamp", "who", "address", "what", "kind", "of_what", "summary")
    list_fullwidth = True
    list_filter = ("action", "content_type")
    list_select_related = ("actor", "content_type")
    search_fields = ("actor__username", "object_repr", "remote_addr", "additional_data")
    date_hierarchy = "timestamp"
    show_full_result_count = False
    fields = ("timestamp", "who", "address", "what", "kind", "of_what", "details")
    readonly_fields = fields

    @display(description="Address", ordering="remote_addr")
    def address(self, entry: LogEntry) -> str:
        """Return where it was done from."""
        return entry.remote_addr or ""

    @display(description="Of what")
    def of_what(self, entry: LogEntry) -> str:
        """Return what it was done to, as it was called then."""
        return str(entry.object_repr)

    @display(description="Who", ordering="actor__username")
    def who(self, entry: LogEntry) -> str:
        """Return the person, or the name they gave; nobody for a command or the stack."""
        if entry.actor:
            return str(entry.actor.get_username())
        return str((entry.additional_data or {}).get("who", ""))

    @display(description="What", ordering="action")
    def what(self, entry: LogEntry) -> str:
        """Return the event, or the kind of change."""
        event = (entry.additional_data or {}).get("event")
        return event or f"{entry.get_action_display()}d".capitalize()

    @display(description="Kind", ordering="content_type")
    def kind(self, entry: LogEntry) -> str:
        """Return what kind of thing it was done to."""
        return str(entry.content_type.name)

    @display(description="Changes")
    def summary(self, entry: LogEntry) -> str:
        """Return the names of the fields that changed."""
        return ", ".join(entry.changes or {})[:120]

    @display(description="Changes")
    def details(self, entry: LogEntry) -> SafeString:
        """Return each change: the field, what it was and what it is."""
        return format_html_join("", "<div><b>{}</b>: {}</div>", _lines(entry))


def _lines(entry: LogEntry) -> list[tuple[str, str]]:
    lines = []
    for field, change in (entry.changes or {}).items():
        if isinstance(change, dict):
            lines.append((field, f"{change['operation']} {', '.join(change['objects'])}"))
        else:
            lines.append((field, f"{change[0]} \u2192 {change[1]}"))
    if rows := (entry.additional_data or {}).get("rows"):
        lines.append(("rows", ", ".join(rows)))
    return lines

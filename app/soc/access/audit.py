"""The audit log: who changed what from what to what, who came and went, when and from where.

django-auditlog compares and stores; here stands whom it watches and what it must not see. A row
is a person's act: what the stack writes by itself is in no log but its own.
"""

import logging
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

from auditlog.middleware import AuditlogMiddleware
from auditlog.models import LogEntry
from auditlog.registry import auditlog
from auditlog.signals import pre_log
from django.contrib import admin
from django.contrib.auth.models import Group, User
from django.contrib.auth.signals import user_logged_in, user_logged_out
from django.contrib.contenttypes.models import ContentType
from django.db.models import Model
from django.http import HttpRequest, HttpResponse

from soc.access.models import Identity
from soc.core.admin import ReadOnlyAdmin
from soc.core.models import ApiToken
from soc.core.sealed import SealedField

SECRET_FIELDS = frozenset({"password", "digest", "secret", "token"})
NOBODYS = frozenset({"last_login"})
"""Fields that change with every sign-in, which has a row of its own."""

MOST_ROWS = 100
"""Rows of one action that are named one by one."""

_SAFE = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
_ALWAYS = (ApiToken, Group, Identity, User)
_by_person: ContextVar[bool] = ContextVar("by_person", default=False)

logger = logging.getLogger(__name__)


def hidden(_: str) -> str:
    """Return what the log shows of a secret; the library's own mask shows the second half."""
    return "(not shown)"


def watch() -> None:
    """Watch every model that a page of the admin changes."""
    for model in _changeable():
        fields = model._meta.get_fields()
        auditlog.register(
            model,
            exclude_fields=[field.name for field in fields if field.name in NOBODYS],
            mask_fields=[field.name for field in fields if is_secret(field)],
            mask_callable="soc.access.audit.hidden",
            m2m_fields={field.name for field in model._meta.many_to_many},
        )
    pre_log.connect(_is_of_interest, dispatch_uid="soc.access.audit")
    user_logged_in.connect(_signed_in, dispatch_uid="soc.access.audit")
    user_logged_out.connect(_signed_out, dispatch_uid="soc.access.audit")


def is_secret(field: Any) -> bool:
    """Return whether a model's field holds what nobody may read in a log."""
    return field.name in SECRET_FIELDS or isinstance(field, SealedField)


def _changeable() -> set[type[Model]]:
    pages = [page for page in admin.site._registry.values() if not isinstance(page, ReadOnlyAdmin)]
    inlines = {inline.model for page in pages for inline in page.inlines}
    return ({page.model for page in pages} | inlines | {ApiToken}) - {LogEntry}


def _is_of_interest(sender: type[Model], **_: Any) -> bool:
    return _by_person.get() or sender in _ALWAYS


def note(event: str, request: HttpRequest | None, *, user: User | None = None) -> None:
    """Record an event that changes no row, such as a sign-in."""
    address = request.META.get("REMOTE_ADDR") if request is not None else None
    logger.info("%s: user %s, address %s", event, user or "unknown", address or "none")
    LogEntry.objects.create(
        content_type=ContentType.objects.get_for_model(User),
        object_pk=user.pk if user else "",
        object_id=user.pk if user else None,
        object_repr=user.get_username() if user else "unknown",
        action=LogEntry.Action.ACCESS,
        actor=user,
        actor_email=user.email if user else None,
        remote_addr=address,
        additional_data={"event": event},
    )


def note_about(row: Model, event: str, request: HttpRequest, who: str) -> None:
    """Record an act on a row by somebody who need not have signed in, as they name themselves."""
    address = request.META.get("REMOTE_ADDR")
    logger.info("%s: %s, by %s, address %s", event, row, who, address or "none")
    user = request.user if request.user.is_authenticated else None
    LogEntry.objects.create(
        content_type=ContentType.objects.get_for_model(row),
        object_pk=row.pk,
        object_id=row.pk,
        object_repr=str(row),
        action=LogEntry.Action.ACCESS,
        actor=user,
        remote_addr=address,
        additional_data={"event": event, "who": who},
    )


def _signed_in(request: HttpRequest, user: User, **_: Any) -> None:
    note("Signed in", request, user=user)


def _signed_out(request: HttpRequest, user: User | None, **_: Any) -> None:
    if user is not None:
        note("Signed out", request, user=user)


class AuditMiddleware(AuditlogMiddleware):
    """Tells the log who asks and from where, and records the actions of the admin's lists."""

    @staticmethod
    def _get_remote_addr(request: HttpRequest) -> str | None:
        # The library believes X-Forwarded-For, in which anybody can write what they like.
        return request.META.get("REMOTE_ADDR")

    @staticmethod
    def _get_remote_port(request: HttpRequest) -> None:
        return None

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Answer a request, as a person's act if it may change something."""
        if request.method in _SAFE:
            unchanged: HttpResponse = self.get_response(request)
            return unchanged
        token = _by_person.set(request.user.is_authenticated)
        try:
            answer: HttpResponse = super().__call__(request)
            return answer
        finally:
            _by_person.reset(token)

    def process_view(
        self, request: HttpRequest, view: Callable[..., HttpResponse], *_: Any
    ) -> None:
        """Record an action on rows: it may change them in one statement, past every model."""
        page = getattr(view, "model_admin", None)
        lists = (getattr(request.resolver_match, "url_name", None) or "").endswith("_changelist")
        if request.method != "POST" or page is None or not lists or not request.user.is_staff:
            return
        name = request.POST.get("action", "")
        if name not in page.get_actions(request):
            return
        rows = request.POST.getlist("_selected_action")
        everything = request.POST.get("select_across") == "1"
        LogEntry.objects.create(
            content_type=ContentType.objects.get_for_model(page.model),
            object_pk="",
            object_repr="every row of the list" if everything else f"{len(rows)} rows",
            action=LogEntry.Action.UPDATE,
            additional_data={"event": f"Action {name}", "rows": rows[:MOST_ROWS]},
        )

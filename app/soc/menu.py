"""What the admin's frame shows of the whole site: its menu, badge and icon (settings.UNFOLD)."""

from typing import Any

from django.conf import settings
from django.http import HttpRequest
from django.templatetags.static import static
from django.urls import reverse

_GROUPS = (
    (
        "Alerts",
        (
            ("Alerts", "notifications_active", "alerts.alert"),
            ("Silences", "notifications_off", "alerts.silence"),
            ("Rules", "rule", "alerts.rule"),
            ("Subjects", "lists", "alerts.subject"),
        ),
    ),
    (
        "Watch",
        (
            ("Endpoints", "router", "ssl_certs.endpoint"),
            ("Certificates", "verified_user", "ssl_certs.certificate"),
            ("Observations", "visibility", "ssl_certs.observation"),
            ("Authorities", "account_balance", "ssl_certs.authority"),
        ),
    ),
    (
        "Notify",
        (
            ("Subscriptions", "contact_mail", "notify.subscription"),
            ("Mail", "outgoing_mail", "notify.outboundmail"),
        ),
    ),
    (
        "Operations",
        (
            ("Schedules", "schedule", "django_celery_beat.periodictask"),
            ("Intervals", "timer", "django_celery_beat.intervalschedule"),
            ("Crontabs", "calendar_month", "django_celery_beat.crontabschedule"),
            ("Clocked times", "alarm", "django_celery_beat.clockedschedule"),
            ("Solar events", "wb_twilight", "django_celery_beat.solarschedule"),
            ("Heartbeats", "ecg_heart", "core.heartbeat"),
            ("Queue samples", "stacked_line_chart", "core.queuesample"),
            ("Task failures", "error", "core.taskfailure"),
        ),
    ),
    (
        "Access",
        (
            ("Users", "person", "auth.user"),
            ("Groups", "group", "auth.group"),
            ("API tokens", "key", "core.apitoken"),
        ),
    ),
)


def flower_link() -> str:
    """Return the address of Flower as browsers reach it."""
    return f"https://{settings.ALLOWED_HOSTS[0]}:{settings.SITE['SOC_FLOWER_PORT']}/"


def menu(request: HttpRequest) -> list[dict[str, Any]]:
    """Return the admin's menu: the pages that the user may see, and the way to the others."""
    groups: list[dict[str, Any]] = [
        {
            "items": [
                _away("Board", "monitoring", reverse("board")),
                _away("Flower", "local_florist", flower_link()),
            ]
        }
    ]
    for title, pages in _GROUPS:
        items = [
            {"title": name, "icon": icon, "link": _list_of(model)}
            for name, icon, model in pages
            if request.user.has_perm(_view_permission(model))
        ]
        if items:
            groups.append({"title": title, "separator": True, "items": items})
    return groups


def _away(title: str, icon: str, link: str) -> dict[str, Any]:
    # Said outright: the menu would take "/" for a part of every page's address.
    return {"title": title, "icon": icon, "link": link, "active": False}


def _list_of(model: str) -> str:
    return reverse(f"admin:{model.replace('.', '_')}_changelist")


def _view_permission(model: str) -> str:
    application, name = model.split(".")
    return f"{application}.view_{name}"


def badge(request: HttpRequest) -> list[str]:
    """Return the site's name as the badge beside the user's menu."""
    return [settings.SITE["SOC_SITE"], "info"]


def icon(request: HttpRequest) -> str:
    """Return the address of the site's icon."""
    return static("favicon.svg")

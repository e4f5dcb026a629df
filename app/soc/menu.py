"""The admin's frame: its menu, badge, icon and script (settings.UNFOLD)."""

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
            ("Trusted authorities", "account_balance", "ssl_certs.authority"),
            ("Groups", "event_upcoming", "ssl_certs.group"),
            ("Changes", "published_with_changes", "ssl_certs.change"),
            ("Revocation lists", "block", "ssl_certs.revocationlist"),
        ),
    ),
    (
        "Directories",
        (
            ("Servers", "dns", "ldap_probe.directoryserver"),
            ("Credentials", "password", "ldap_probe.credential"),
            ("Profiles", "timer", "ldap_probe.profile"),
            ("Probes", "network_check", "ldap_probe.proberesult"),
        ),
    ),
    (
        "Event stream",
        (
            ("Robots", "smart_toy", "events.bot"),
            ("Sites", "location_on", "events.site"),
            ("Sources", "input", "events.eventsource"),
            ("Events", "receipt_long", "events.event"),
            ("Dead letters", "mark_email_unread", "events.deadletter"),
            ("Counts", "speed", "events.ingestcount"),
            ("Stream settings", "tune", "events.streamsettings"),
            ("Backlog actions", "cleaning_services", "events.backlogaction"),
        ),
    ),
    (
        "Mail flow",
        (
            ("Checks", "fact_check", "mail_collector.mailevent"),
            ("Mailboxes", "inbox", "mail_collector.mailbox"),
            ("Mails on their way", "forward_to_inbox", "mail_collector.delivery"),
            ("Pairs of domains", "compare_arrows", "mail_collector.route"),
            ("Mail settings", "tune", "mail_collector.mailsettings"),
        ),
    ),
    (
        "Logons",
        (
            ("Logons", "login", "logons.logonevent"),
            ("Logon settings", "tune", "logons.logonsettings"),
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
            ("Dead letters", "mark_email_unread", "core.deadtask"),
        ),
    ),
    (
        "Access",
        (
            ("Users", "person", "auth.user"),
            ("Groups", "group", "auth.group"),
            ("API tokens", "key", "core.apitoken"),
            ("Locked sign-ins", "lock", "axes.accessattempt"),
            ("Audit log", "history", "auditlog.logentry"),
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


def script(request: HttpRequest) -> str:
    """Return the address of the script that settles how the theme's libraries work."""
    return static("admin.js")


def style(request: HttpRequest) -> str:
    """Return the address of what the theme has no class for."""
    return static("admin.css")

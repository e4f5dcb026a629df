"""The place of users and what they did in the navigation."""

from soc.common.nav import Menu

MENU = Menu(
    "Access",
    ("Users", "person", "auth.user"),
    ("Groups", "group", "auth.group"),
    ("API tokens", "key", "core.apitoken"),
    ("Locked sign-ins", "lock", "axes.accessattempt"),
    ("Audit log", "history", "auditlog.logentry"),
)

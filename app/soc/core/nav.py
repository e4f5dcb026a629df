"""The place of the stack's own signs of life in the navigation."""

from soc.common.nav import Menu

MENU = Menu(
    "Operations",
    ("Heartbeats", "ecg_heart", "core.heartbeat"),
    ("Queue samples", "stacked_line_chart", "core.queuesample"),
    ("Task failures", "error", "core.taskfailure"),
    ("Dead letters", "mark_email_unread", "core.deadtask"),
)

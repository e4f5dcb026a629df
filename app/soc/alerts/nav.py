"""The alerts' place in the navigation."""

from soc.common.nav import Menu, Page

PAGES = (Page("Alerts", "alerts", "alerts.view_alert"),)
MENU = Menu(
    "Alerts",
    ("Alerts", "notifications_active", "alerts.alert"),
    ("Silences", "notifications_off", "alerts.silence"),
    ("Rules", "rule", "alerts.rule"),
    ("Subjects", "lists", "alerts.subject"),
)

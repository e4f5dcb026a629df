"""The robots' place in the navigation."""

from soc.common.nav import Page

PAGES = (Page("Robots", "robots", "alerts.view_alert"),)

"""The application's place in the navigation."""

from soc.common.nav import Menu, Page

PAGES = (Page("Demo", "demo", "demo.view_democounter"),)
MENU = Menu("Demo", ("Counters", "counter_1", "demo.democounter"))

"""The board's place in the navigation."""

from soc.common.nav import Page

PAGES = (Page("Board", "board"),)

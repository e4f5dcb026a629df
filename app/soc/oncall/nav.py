"""The rotas' place in the navigation."""

from soc.common.nav import Menu, Page

PAGES = (Page("On call", "oncall", "oncall.view_rota"),)
MENU = Menu(
    "On call",
    ("Rotas", "calendar_month", "oncall.rota"),
    ("Overrides", "swap_horiz", "oncall.shiftoverride"),
)

"""The mail routes' place in the navigation."""

from soc.common.nav import Menu, Page

PAGES = (Page("Mail routes", "mail-routes", "mail_routes.view_mailroute"),)
MENU = Menu(
    "Mail flow",
    ("Round trip routes", "sync_alt", "mail_routes.mailroute"),
    ("Accounts", "password", "mail_routes.mailaccount"),
    ("Round trips", "update", "mail_routes.roundtrip"),
)

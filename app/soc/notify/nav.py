"""The notifications' place in the navigation."""

from soc.common.nav import Menu

MENU = Menu(
    "Notify",
    ("Subscriptions", "contact_mail", "notify.subscription"),
    ("Mail", "outgoing_mail", "notify.outboundmail"),
    ("Bounces", "undo", "notify.bounce"),
)

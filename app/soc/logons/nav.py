"""The logons' place in the navigation."""

from soc.common.nav import Menu

MENU = Menu(
    "Logons",
    ("Logons", "login", "logons.logonevent"),
    ("Logon settings", "tune", "logons.logonsettings"),
)

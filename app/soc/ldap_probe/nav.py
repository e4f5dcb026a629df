"""The directory servers' place in the navigation."""

from soc.common.nav import Menu, Page

PAGES = (Page("Directories", "directories", "ldap_probe.view_directoryserver"),)
MENU = Menu(
    "Directories",
    ("Servers", "dns", "ldap_probe.directoryserver"),
    ("Credentials", "password", "ldap_probe.credential"),
    ("Profiles", "timer", "ldap_probe.profile"),
    ("Probes", "network_check", "ldap_probe.proberesult"),
)

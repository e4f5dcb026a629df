"""The certificate tracker's place in the navigation."""

from soc.common.nav import Menu, Page

PAGES = (Page("Certificates", "certificates", "ssl_certs.view_endpoint"),)
MENU = Menu(
    "Certificates",
    ("Endpoints", "router", "ssl_certs.endpoint"),
    ("Certificates", "verified_user", "ssl_certs.certificate"),
    ("Observations", "visibility", "ssl_certs.observation"),
    ("Trusted authorities", "account_balance", "ssl_certs.authority"),
    ("Expiry policies", "event_upcoming", "ssl_certs.group"),
    ("Changes", "published_with_changes", "ssl_certs.change"),
    ("Revocation lists", "block", "ssl_certs.revocationlist"),
)
